"""What stands before the transcript: hot words and the user's prompt stay, earlier text fills what is left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.events.plans import Hop, Hypothesis, HypothesisWord, SegmentClosed, SegmentOpened
from streamer.policy.prompt import PREVIOUS_TOKENS, START_TOKENS, Prompt, TextModel
from streamer.policy.text_session import TextSession
from streamer.settings.config import PolicySettings, Settings, SpeechSettings, validate


def coded(text: str) -> tuple[int, ...]:
    """Two characters a token, more or less as Whisper's tokens hold text."""
    return tuple(sum(text[index : index + 2].encode()) for index in range(0, len(text), 2))


def model(carries: bool = True, context: int = 448) -> TextModel:
    return TextModel(coded, "en", carries, text_context=context)


HOT = coded(" Kubernetes, Anna Schmidt.")
SPEECH = SpeechSettings(hot_words=("Kubernetes", "Anna Schmidt"), prompt="A talk.")


@settings(deadline=None)
@given(st.lists(st.integers(1000, 2000), max_size=500).map(tuple), st.integers(0, 200), st.integers(8, 130))
def test_hot_words_stand_at_the_head_whatever_scrolled_off(earlier, prefix_tokens, new_tokens):
    found = Prompt(SPEECH, model()).tokens(earlier, prefix_tokens, new_tokens)
    head = HOT + coded(" A talk.")
    assert found[: len(head)] == head
    rest = found[len(head) :]
    assert rest == earlier[len(earlier) - len(rest) :]
    assert len(found) <= 448 // 2 - 1
    assert len(found) + START_TOKENS + prefix_tokens + new_tokens <= 448
    if len(earlier) >= PREVIOUS_TOKENS and prefix_tokens + new_tokens < 100:
        assert len(rest) >= 150


@settings(deadline=None)
@given(st.text("ab ", max_size=2000), st.integers(0, 300), st.integers(8, 224), st.integers(16, 448))
def test_what_is_cut_first(said, prefix_tokens, new_tokens, context):
    prompt = Prompt(SpeechSettings(prompt=said, hot_words=("x",)), model(context=context))
    found = prompt.tokens((7,) * 300, prefix_tokens, new_tokens)
    room = max(0, min(context // 2 - 1, context - START_TOKENS - prefix_tokens - new_tokens))
    assert len(found) <= room
    assert found[:2] == coded(" x.")[:room]
    tokens = coded(" " + said.strip()) if said.strip() else ()
    kept = min(len(tokens), max(0, room - 2))
    assert found[2 : 2 + kept] == tokens[len(tokens) - kept :]


def test_a_model_that_knows_no_earlier_text_gets_none_unless_told_to(caplog):
    assert Prompt(SPEECH, model(carries=False)).tokens((5,), 0, 8) == ()
    assert "speech.hot_words: the model was not trained with text before the transcript" in caplog.text
    assert not Prompt(SpeechSettings(), model(carries=False)).tokens((5,), 0, 8)
    assert len(caplog.records) == 1
    told = SPEECH.model_copy(update={"carry_prompt": "on"})
    assert Prompt(told, model(carries=False)).tokens((5,), 0, 8) == HOT + coded(" A talk.") + (5,)
    alone = SPEECH.model_copy(update={"carry_prompt": "off"})
    assert Prompt(alone, model()).tokens((5,), 0, 8) == HOT + coded(" A talk.")


def test_more_than_the_model_can_hold_is_refused():
    many = SpeechSettings(hot_words=tuple(f"name {index}" for index in range(60)))
    with pytest.raises(ConfigError, match=r"^speech\.hot_words: must fit into 112 tokens of the model, are \d+"):
        Prompt(many, model())


def test_they_survive_scrolling_rolls_segments_and_a_new_session():
    config = Settings(speech=SPEECH, policy=PolicySettings(name="agreement"))
    for _ in range(2):  # the second is the session of the same settings after a restart
        session = TextSession(config, model())
        for segment in range(3):
            begin = segment * 50 * 16_000
            session.open(SegmentOpened(begin + 960, begin))
            for step in range(1, 90):
                end = begin + step * 8000
                session.hear(Hop(end, np.zeros(8000, np.float32), (True,) * 25, True, False, False, -20))
                _, task = session.prepare(end, True)
                assert task.prompt[: len(HOT)] == HOT
                if step > 60:
                    assert len(task.prompt) > len(HOT) + 20  # there is earlier text behind them
                said = HypothesisWord(
                    f" w{chr(97 + step // 2)}", coded(f" word{step // 2}"), end - 6000, end - 2000, 0.9, end
                )
                session.step(Hypothesis((said,), "en", 1.0, 0.0, -0.1, 1.0, True), end, None)
            session.close(SegmentClosed(begin + 91 * 8000, begin + 90 * 8000))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (7, "speech.hot_words: must be a list of words and phrases"),
        ([""], "speech.hot_words: must be words and phrases of 1 to 60"),
        (["a" * 61], "speech.hot_words: must be words and phrases of 1 to 60"),
        (["a\x00b"], "speech.hot_words: must be words and phrases of 1 to 60"),
        ([True], "speech.hot_words: must be words and phrases (in quotes"),
        (["<|endoftext|>"], "speech.hot_words: must be plain text, without marks"),
        ([f"w{index}" for index in range(101)], "speech.hot_words: must be at most 100"),
    ],
)
def test_wrong_hot_words_are_refused(given, says):
    with pytest.raises(ConfigError) as caught:
        validate({"speech": {"hot_words": given}})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Kubernetes, Anna  Schmidt,", ("Kubernetes", "Anna Schmidt")),
        (["Kubernetes", 112, "Kubernetes"], ("Kubernetes", "112")),
        ([], ()),
    ],
)
def test_hot_words_come_as_a_list_or_with_commas(given, found):
    assert validate({"speech": {"hot_words": given}}).speech.hot_words == found


def test_a_prompt_with_whispers_own_marks_is_refused():
    with pytest.raises(ConfigError, match=r"^speech\.prompt: must be plain text"):
        validate({"speech": {"prompt": "so <|endoftext|>"}})
