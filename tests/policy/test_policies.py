from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events.plans import HypothesisWord
from streamer.policy.policies import (
    END_SAMPLES,
    NUMBER_SAMPLES,
    QUIET_SAMPLES,
    SURE,
    AlignAtt,
    LocalAgreement,
    bare,
    common_prefix,
)


def words(text):
    return tuple(
        HypothesisWord(f" {word}", (index,), index * 8000, index * 8000 + 6000, 0.9, index * 8000 + 5000)
        for index, word in enumerate(text.split())
    )


def test_commits_what_two_hypotheses_agree_on():
    policy = LocalAgreement()
    assert policy.step(words("one two"), 16000, 16000).commit == ()
    decision = policy.step(words("one two three"), 24000, 24000)
    assert [word.text for word in decision.commit] == [" one", " two"]
    assert [word.text for word in decision.partial] == [" three"]
    assert [word.text for word in policy.step(words("Three, four"), 32000, 32000).commit] == [" Three,"]
    assert [word.text for word in policy.close()] == [" four"]
    assert policy.close() == ()


def test_case_and_punctuation_do_not_matter():
    assert common_prefix(words("Hello, World"), words("hello world.")) == 2
    assert bare(" …") == "…"


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=12))
def test_committed_words_are_a_prefix_of_two_hypotheses(hypotheses):
    policy, committed, previous = LocalAgreement(), [], []
    for hypothesis in hypotheses:
        heard = words(" ".join(hypothesis))
        decision = policy.step(heard, 0, 0)
        count = len(decision.commit)
        assert [bare(w.text) for w in decision.commit] == (previous[:count] if heard else []) == hypothesis[:count]
        committed += decision.commit
        if heard:  # a pass that writes nothing takes nothing back
            assert decision.commit + decision.partial == heard
            previous = hypothesis[count:]


FRONTIER = 8000


def word(attended: int, text: str = "w", probability: float = 0.99) -> HypothesisWord:
    return HypothesisWord(f" {text}", (1,), max(0, attended - 4000), attended, probability, attended)


def test_commits_what_was_attended_before_the_frontier_and_shows_the_rest():
    policy = AlignAtt(FRONTIER)
    decision = policy.step((word(10_000), word(20_000), word(31_000)), 36_000, 36_000)
    assert [w.attended_sample for w in decision.commit] == [10_000, 20_000]
    assert [w.attended_sample for w in decision.partial] == [31_000]
    assert [w.attended_sample for w in policy.close()] == [31_000]
    assert policy.close() == ()


def test_where_the_gate_hears_no_voice_the_frontier_moves_up():
    words = (word(10_000), word(31_000))
    speaking, quiet = AlignAtt(FRONTIER), AlignAtt(FRONTIER)
    assert len(speaking.step(words, 36_000, 36_001 - QUIET_SAMPLES).commit) == 1
    assert quiet.step(words, 36_000, 36_000 - QUIET_SAMPLES).commit == words


def test_a_number_waits_for_whether_it_goes_on():
    said, five = word(10_000, "is"), word(20_000, "5")
    waiting = AlignAtt(FRONTIER)
    assert waiting.step((said, five), 36_000, 36_000).commit == (said,)
    longer = word(20_000, "555")
    followed = (longer, word(26_000, "calls"))
    assert waiting.step(followed, 44_000, 44_000).commit == followed
    alone = AlignAtt(FRONTIER)
    assert alone.step((said, five), 20_000 + NUMBER_SAMPLES, 48_000).commit == (said, five)
    ended = AlignAtt(FRONTIER)
    assert ended.step((said, five), 36_000, 36_000).partial == (five,)
    assert ended.close() == (five,)


def test_a_word_that_the_decoder_is_not_sure_of_is_read_twice():
    unsure = word(10_000, "two", SURE - 0.1)
    for later, commits in (("two", True), ("too", False)):
        policy = AlignAtt(FRONTIER)
        decision = policy.step((unsure, word(11_000, "three")), 24_000, 24_000)
        assert decision.commit == ()
        assert [w.text for w in decision.partial] == [" two", " three"]
        decision = policy.step((word(10_000, later, SURE - 0.1),), 25_000, 25_000)
        assert bool(decision.commit) is commits


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 480_000), max_size=8), st.integers(0, 9000)), max_size=10))
def test_never_commits_past_the_frontier(hypotheses):
    policy = AlignAtt(FRONTIER)
    for number, (attended, quiet) in enumerate(hypotheses):
        end = 48_000 * (number + 1)
        decision = policy.step(tuple(word(at) for at in attended), end, end - quiet)
        frontier = END_SAMPLES if quiet >= QUIET_SAMPLES else FRONTIER
        assert all(w.attended_sample < end - frontier for w in decision.commit)
