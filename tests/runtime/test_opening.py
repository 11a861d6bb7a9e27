from streamer.model.download import LoadStep
from streamer.runtime.opening import Opening


def test_each_step_is_told_to_every_session_once():
    told = []
    opening = Opening(["kitchen", "hall"], told.append)
    for step in (LoadStep("loading base"), LoadStep("loading base"), LoadStep("warming up base")):
        opening.tell(step)
    assert [(event.session, event.seq, event.detail) for event in told] == [
        ("kitchen", 1, "loading base"),
        ("hall", 1, "loading base"),
        ("kitchen", 2, "warming up base"),
        ("hall", 2, "warming up base"),
    ]
    assert {(event.state, event.audio_t) for event in told} == {("starting", 0.0)}
    assert opening.events == told
    assert {name: told.seq for name, told in opening.told.items()} == {"kitchen": 2, "hall": 2}


def test_a_download_is_told_of_in_tenths():
    told = []
    opening = Opening(["s1"], told.append)
    for received in range(0, 1001):
        opening.tell(LoadStep("fetching base", True, received, 1000))
    assert [event.detail for event in told] == [f"fetching base, {share} %" for share in range(0, 101, 10)]
    opening.tell(LoadStep("fetching more", True, 5, None))
    assert told[-1].detail == "fetching more"
