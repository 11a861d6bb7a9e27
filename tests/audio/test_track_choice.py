import pytest

from streamer.audio.track import TrackFacts, choose
from streamer.errors import InputError

PLAIN, DEFAULT, ASIDE = TrackFacts(), TrackFacts(default=True), TrackFacts(default=True, aside=True)
TITLED = TrackFacts(default=True, title="Cast Commentary")


def chosen(tracks: list[TrackFacts], wanted: int | None = None, silent: tuple[int, ...] = ()) -> int:
    return choose(tracks, wanted, "--input x", lambda number: number not in silent).number


@pytest.mark.parametrize(
    ("tracks", "silent", "number"),
    [
        ([PLAIN], (1,), 1),
        ([PLAIN, PLAIN], (), 1),
        ([PLAIN, DEFAULT], (), 2),
        ([ASIDE, PLAIN], (), 2),
        ([TITLED, PLAIN], (), 2),
        ([ASIDE, PLAIN, DEFAULT], (), 3),
        ([PLAIN, DEFAULT, PLAIN], (2,), 1),
        ([ASIDE, PLAIN], (2,), 1),
        ([PLAIN, DEFAULT], (1, 2), 2),
    ],
)
def test_the_track_that_is_meant(tracks, silent, number):
    assert chosen(tracks, silent=silent) == number


def test_what_was_asked_for_is_not_judged():
    assert chosen([DEFAULT, PLAIN], wanted=2, silent=(2,)) == 2
    assert chosen([ASIDE, PLAIN], wanted=1) == 1


def test_what_is_told():
    tracks = [
        TrackFacts(language="und", channels=6),
        TrackFacts(default=True, language="deu", title="Kino", channels=2),
    ]
    notice = choose(tracks, None, "--input x", lambda number: True).notice
    assert notice == "audio track 2 of 2 is heard (deu, Kino, 2 ch); --track N takes another"
    notice = choose(tracks, None, "--input x", lambda number: number == 1).notice
    assert notice == ("audio track 1 of 2 is heard (6 ch); track 2 is silent at its beginning; --track N takes another")
    assert choose([PLAIN], None, "--input x", lambda number: True).notice == ""


@pytest.mark.parametrize(
    ("count", "wanted", "says"),
    [
        (0, None, r"^--input x: has no audio track"),
        (0, 1, r"^--input x: has no audio track"),
        (1, 2, r"^--track 2: --input x has 1 audio track; give 1$"),
        (3, 9, r"^--track 9: --input x has 3 audio tracks; give 1 to 3$"),
    ],
)
def test_a_track_that_is_not_there_is_refused(count, wanted, says):
    with pytest.raises(InputError, match=says):
        chosen([PLAIN] * count, wanted)
