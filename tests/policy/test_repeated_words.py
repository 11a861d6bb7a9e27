"""A word that is said twice is written twice; one that the decoder reads again from committed audio is not."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events.plans import Hop, Hypothesis, HypothesisWord, SegmentClosed, SegmentOpened
from streamer.policy.prompt import TextModel
from streamer.policy.text_session import TextSession
from streamer.settings.config import PolicySettings, Settings

MODEL = TextModel(encode=lambda text: (), fixed_language="en", carries_prompt=False)
POLICIES = pytest.mark.parametrize("policy", ["alignatt", "agreement"])


def word(text: str, start_s: float, end_s: float, attended_s: float) -> HypothesisWord:
    start, end, attended = (round(second * 16_000) for second in (start_s, end_s, attended_s))
    return HypothesisWord(f" {text}", (1,), start, end, 0.97, attended)


class Listening:
    """A session that hears speech without a pause, half a second a step."""

    def __init__(self, policy: str) -> None:
        self.session = TextSession(Settings(policy=PolicySettings(name=policy)), MODEL)
        self.session.open(SegmentOpened(960, 0))
        self.end = 0

    def hear(self, *words: HypothesisWord) -> None:
        self.end += 8000
        self.session.hear(Hop(self.end, np.zeros(8000, np.float32), (True,) * 25, True, False, False, -20))
        self.session.prepare(self.end, True)
        self.session.step(Hypothesis(words, "en", 1.0, 0.0, -0.1, 1.0, True), self.end, None)

    @property
    def committed(self) -> int:
        return len(self.session._segment.shown[0].split()) if self.session._segment else 0

    def close(self) -> str:
        changes = self.session.close(SegmentClosed(self.end + 4000, self.end)) + self.session.end(self.end + 4000)
        return changes[-1].text if changes else ""


@POLICIES
@pytest.mark.parametrize(
    ("again", "text"),
    [
        (word("four", 1.30, 1.62, 1.45), "four four"),  # said again right behind the first
        (word("four", 1.15, 1.35, 1.20), "four four"),
        (word("four", 1.10, 1.50, 1.05), "four"),  # attended where the committed one was
        (word("four", 1.10, 1.13, 1.16), "four"),  # adds next to nothing to what is committed
        (word("five", 1.10, 1.40, 1.05), "four five"),  # another word may follow at once
        (word("five", 0.90, 1.20, 0.95), "four"),
    ],
)
def test_a_word_behind_a_committed_one(policy, again, text):
    listening = Listening(policy)
    first = word("four", 0.7, 1.08, 1.0)
    listening.hear()
    for _ in range(4):
        listening.hear(*([] if listening.committed else [first]))
    assert listening.committed == 1
    for _ in range(3):
        listening.hear(*([again] if listening.committed == 1 else []))
    assert listening.close() == text


@POLICIES
@pytest.mark.parametrize(
    ("again", "text"),
    [
        (word("four", 1.06, 1.40, 1.30), "four four five"),
        (word("four", 1.06, 1.18, 1.12), "four five"),  # the frames of the first one, read twice in one pass
    ],
)
def test_a_word_behind_the_same_in_one_hypothesis(policy, again, text):
    listening = Listening(policy)
    words = [word("four", 0.7, 1.06, 1.0), again, word("five", 1.5, 1.9, 1.8)]
    for _ in range(4):
        listening.hear()
    for _ in range(3):
        listening.hear(*([] if listening.committed else words))
    assert listening.close() == text


@given(
    st.sampled_from(["alignatt", "agreement"]),
    st.lists(st.floats(0.26, 0.8), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_words_that_are_truly_repeated_come_out_as_often_as_they_were_said(policy, lengths, random):
    """The times of a word move by up to 0.05 s from pass to pass."""
    listening = Listening(policy)
    ends = np.cumsum([0.6, *lengths])
    while listening.end < (ends[-1] + 1.5) * 16_000:
        heard = []
        for start, end in list(itertools.pairwise(ends))[listening.committed :]:
            if (end + 0.1) * 16_000 < listening.end + 8000:
                moved = random.uniform(-0.05, 0.05)
                heard.append(word("four", start, end + moved, end - 0.1 + moved))
        listening.hear(*heard)
    assert listening.close().split() == ["four"] * len(lengths)
