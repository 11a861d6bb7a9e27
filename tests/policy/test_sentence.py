"""Sentence ends: what counts as one, when a pause is told of, and what closes a segment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.config import PolicySettings, Settings, VadSettings
from streamer.policy.sentence import PauseWatch, SpeechPaused, ends_sentence
from streamer.policy.session import TextSession
from streamer.policy.text_model import TextModel
from streamer.steps import Hypothesis, HypothesisWord
from streamer.vad.planner import Hop, SegmentClosed, SegmentOpened

RATE = 16_000
FRAME = 320


@pytest.mark.parametrize(
    "text",
    [
        "Hello.",
        "Really?",
        "No!",
        "“Go.”",
        'He said "yes."',
        "(Indeed.)",
        "好。",
        "「はい。」",
        "何？",
        "Well?!",
        "है।",
        "1.5.",
    ],
)
def test_these_end_a_sentence(text):
    assert ends_sentence(text)
    assert ends_sentence(text + " ")


@pytest.mark.parametrize("text", ["", "Hello", "Hello,", "Well...", "Well…", "3.5", "e.g", "and so:", "“", "no?)x"])
def test_these_do_not(text):
    assert not ends_sentence(text)


def frames(watch, flags, gate_open=True):
    return [p for i, flag in enumerate(flags, 1) for p in watch.step(flag, gate_open, i * FRAME)]


def test_a_pause_is_told_of_once_and_only_while_the_gate_is_open():
    flags = [True] * 5 + [False] * 30 + [True] + [False] * 9 + [True, False]
    assert frames(PauseWatch(200), flags) == [SpeechPaused(15 * FRAME, 5 * FRAME)]
    assert frames(PauseWatch(180), flags)[1:] == [SpeechPaused(45 * FRAME, 36 * FRAME)]
    assert frames(PauseWatch(200), flags, gate_open=False) == []
    assert frames(PauseWatch(None), flags) == []


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=200), st.integers(100, 600))
def test_every_told_pause_is_silent_and_long_enough(flags, pause_ms):
    told = frames(PauseWatch(pause_ms), flags)
    for pause in told:
        silent = flags[pause.speech_end_sample // FRAME : pause.at_sample // FRAME]
        assert not any(silent)
        assert (len(silent) - 1) * 20 < pause_ms <= len(silent) * 20
    assert len({pause.speech_end_sample for pause in told}) == len(told)


MODEL = TextModel(encode=lambda text: tuple(text.encode()), fixed_language="en", carries_prompt=True)
QUIET = Settings(vad=VadSettings(hangover_ms=1500), policy=PolicySettings(sentence_pause_ms=400))


def words(text: str, end: int, probability: float = 0.9) -> tuple[HypothesisWord, ...]:
    """Words of 0.2 s each, the last of which ends at `end`."""
    parts = text.split()
    ends = [end - 3200 * (len(parts) - 1 - index) for index in range(len(parts))]
    return tuple(
        HypothesisWord(f" {part}", (index,), at - 3200, at, probability, at)
        for index, (part, at) in enumerate(zip(parts, ends, strict=True))
    )


class Script:
    """A session that hears 0.5 s hops; `voiced_s`: of each hop so much from its start on is voice."""

    def __init__(self, config: Settings = QUIET) -> None:
        self.session = TextSession(config, MODEL)
        self.session.open(SegmentOpened(960, 0))
        self.at = 0

    def hop(self, said: tuple[HypothesisWord, ...], voiced_s: float, **about):
        count = round(voiced_s * 50)
        self.at += 8000
        self.session.hear(
            Hop(self.at, np.zeros(8000, np.float32), (True,) * count + (False,) * (25 - count), True, False, False, -20)
        )
        self.session.prepare(self.at, True)
        facts = {"complete": True, "mean_logprob": -0.1, **about}
        heard = Hypothesis(said, "en", 1.0, 0.0, facts["mean_logprob"], 1.0, facts["complete"])
        return self.session.step(heard, self.at, None)

    def pause(self, speech_end: int):
        return self.session.close(SpeechPaused(speech_end + 6400, speech_end))

    def gate_closes(self, speech_end: int):
        return self.session.close(SegmentClosed(speech_end + 24_000, speech_end))


def finals(changes) -> list[str]:
    return [change.text for change in changes if change.final]


def test_a_committed_sentence_and_a_pause_close_the_segment():
    script = Script()
    said = words("Good morning.", 7600)
    assert finals(script.hop(said, 0.5)) == []
    assert finals(script.hop(said, 0.2)) == []  # committed; quiet for 0.3 s
    (change,) = script.pause(11_200)
    assert (change.final, change.text, change.partial) == (True, "Good morning.", "")
    assert script.gate_closes(11_200) == []


def test_a_hop_that_ends_in_a_long_enough_pause_closes_it_too():
    script = Script()
    script.hop(words("Good morning.", 7600), 0.5)
    changes = script.hop(words("Good morning.", 7600), 0.08)
    assert [change.final for change in changes] == [False, True]
    assert script.pause(9280) == []


def test_speech_that_goes_on_is_never_cut():
    script = Script()
    for text, end in [("At 3.", 7600), ("At 3. p.m. Dr.", 15_600), ("p.m. Dr. Who", 23_600)]:
        assert finals(script.hop(words(text, end), 0.5)) == []


@pytest.mark.parametrize(
    ("last", "about"),
    [
        ("Good evening", {}),  # no end
        ("Good evening. And", {}),  # not all of it is committed
        ("Good evening.", {"complete": False}),  # there was no room for more
        ("Good evening.", {"mean_logprob": -5.0}),  # a guard doubts it
    ],
)
def test_what_is_open_or_in_doubt_waits_for_the_gate(last, about):
    script = Script()
    script.hop(words("Good evening", 7600), 0.5)
    assert finals(script.hop(words(last, 7600), 0.2, **about)) == []
    assert script.pause(11_200) == []
    assert len(finals(script.gate_closes(11_200))) == 1


def test_a_pause_whose_last_word_no_window_has_heard_closes_nothing():
    script = Script()
    said = words("Good morning.", 7600)
    script.hop(said, 0.5)
    script.hop(said, 0.5)
    assert script.pause(16_000 + 640) == []  # speech went on behind the last window
    assert script.pause(16_000 - 640) == []  # and may have gone on to its end


def test_speech_behind_the_sentence_is_the_next_segment():
    script = Script()
    said = words("Good morning.", 7600)
    script.hop(said, 0.5)
    script.hop(said, 0.08)
    more = words("How are you?", 22_400)
    script.hop(more, 0.5)
    changes = script.hop(more, 0.2)
    assert [(change.segment, change.text) for change in changes] == [(1, "How are you?")]
    assert finals(script.gate_closes(27_200)) == ["How are you?"]


def test_it_can_be_switched_off():
    script = Script(QUIET.model_copy(update={"policy": PolicySettings(sentence_pause_ms=None)}))
    script.hop(words("Good morning.", 7600), 0.5)
    assert finals(script.hop(words("Good morning.", 7600), 0.0)) == []
    assert script.pause(8000) == []
