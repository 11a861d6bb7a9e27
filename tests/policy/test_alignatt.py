from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.policy.alignatt import JUMP_BACK_SAMPLES, AlignAtt
from streamer.steps import HypothesisWord

FRONTIER = 8000


def word(attended: int, text: str = "w") -> HypothesisWord:
    return HypothesisWord(f" {text}", (1,), max(0, attended - 4000), attended, 0.9, attended)


def test_commits_what_was_attended_before_the_frontier_and_shows_the_rest():
    policy = AlignAtt(FRONTIER)
    decision = policy.step((word(10_000), word(20_000), word(31_000)), 36_000)
    assert [w.attended_sample for w in decision.commit] == [10_000, 20_000]
    assert [w.attended_sample for w in decision.partial] == [31_000]
    assert [w.attended_sample for w in policy.close()] == [31_000]
    assert policy.close() == ()


def test_attention_that_jumps_far_back_discards_the_pass():
    policy = AlignAtt(FRONTIER)
    policy.step((word(100_000), word(119_000)), 120_000)
    decision = policy.step((word(100_000 - JUMP_BACK_SAMPLES - 1),), 128_000)
    assert decision.commit == ()
    assert [w.attended_sample for w in decision.partial] == [119_000]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 480_000), max_size=8), max_size=10))
def test_never_commits_past_the_frontier(hypotheses):
    policy = AlignAtt(FRONTIER)
    for number, attended in enumerate(hypotheses):
        end = 48_000 * (number + 1)
        decision = policy.step(tuple(word(at) for at in attended), end)
        assert all(w.attended_sample < end - FRONTIER for w in decision.commit)
