"""What one terminal shows of several sources: names in front, and the gravest state of all."""

from hypothesis import given, settings
from hypothesis import strategies as st
from test_cues import sound, spoken, unclear, words
from test_terminal import alert

from streamer.events import Gap, Status
from streamer.output.naming import Naming


def status(session: str, state: str, detail: str = "") -> Status:
    return Status(session=session, seq=1, audio_t=0.0, state=state, detail=detail)


def test_one_source_needs_no_name_and_a_sender_has_one():
    naming = Naming(["s1-20261123T060000"])
    own, sender = "s1-20261123T060000", "in2-20261123T060100"
    said = Gap(session=own, seq=1, audio_t=1.0, start=0.0, end=1.0, reason="lost")
    assert naming.step(said) == said
    assert naming.step(Gap(session=sender, seq=1, audio_t=1.0, start=0.0, end=1.0, reason="lost")).reason == "in2: lost"


def test_names_stand_in_front_of_what_people_read():
    naming = Naming(["s", "hall"])
    assert naming.step(sound("Siren", 1.0)).label == "s: Siren"
    assert naming.step(alert("raised")).rule == "s: smoke_alarm"
    said = naming.step(spoken(words("one two"), final=True))
    assert said.text.startswith("s: one two")
    assert naming.step(unclear((1.0, 2.0))).text == "s: "
    assert naming.step(status("hall", "degraded", "slow")).detail == "hall: slow"


def test_the_gravest_state_is_shown():
    naming = Naming(["a", "b"])
    assert naming.step(status("a", "listening")).state == "listening"
    assert naming.step(status("b", "no_audio", "gone")).detail == "b: gone"
    assert naming.step(status("a", "listening")) is None
    assert naming.step(status("a", "degraded", "slow")).detail == "a: slow"
    assert naming.step(status("a", "listening")).detail == "b: gone"
    assert naming.step(status("b", "stopped")).state == "listening"
    assert naming.step(status("a", "stopped")).state == "stopped"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["listening", "degraded", "no_audio", "stopped"]))))
def test_trouble_is_shown_exactly_while_somebody_has_it(changes):
    naming, states, shown = Naming("abc"), {}, None
    for session, state in changes:
        states[session] = state
        shown = naming.step(status(session, state, state)) or shown
        assert (shown.state in ("degraded", "no_audio")) == bool({"degraded", "no_audio"} & set(states.values()))
        assert states[shown.session] == shown.state or shown.state in states.values()
