from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.plans import HypothesisWord
from streamer.policy.agreement import LocalAgreement, bare, common_prefix


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
