"""The profanity mask: whole words, never a letter that changes once it was shown."""

from itertools import pairwise

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.events import Alert, Status, Transcript, Word
from streamer.policy.mask import Mask
from streamer.settings.config import resolve, validate

MASK = Mask(["damn", "shit", "Hölle", "mother-in-law", "mother", "畜生"], spoken_rules=["swears"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Damn!", "D***!"),
        ("“DAMN,” he said", "“D***,” he said"),
        ("damnation, damned", "damnation, damned"),
        ("zur hölle", "zur h****"),
        ("zur ho\u0308lle", "zur h*****"),
        ("damn-it's", "d***-it's"),
        ("goddamn", "goddamn"),
        ("my mother-in-law's", "my m************'s"),
        ("my mother-in-laws", "my m*****-in-laws"),
        ("damn1 _damn_", "damn1 _d***_"),
        ("你这畜生啊", "你这畜*啊"),
        ("", ""),
    ],
)
def test_whole_words_whatever_their_case_and_punctuation(text, shown):
    assert MASK.text(text) == shown


def transcript(pieces, partial="", final=False):
    text = "".join(pieces).strip()
    words = tuple(Word(piece.strip(), 0.0, 0.0, 0.9) for piece in pieces)
    return Transcript(
        session="s1",
        seq=1,
        audio_t=1.0,
        segment=0,
        start=0.0,
        end=1.0,
        text=text,
        partial=partial,
        final=final,
        words=words,
        language="en",
        speech_probability=1.0,
    )


def test_a_word_in_two_pieces_keeps_what_was_shown():
    shown = MASK.event(transcript([" Oh", " sh", "it", "!"], partial="damn it"))
    assert (shown.text, shown.partial) == ("Oh sh**!", "d*** it")
    assert [word.word for word in shown.words] == ["Oh", "sh", "**", "!"]
    assert MASK.event(transcript([" shit", "ake"])).text == "s***ake"


PIECES = st.text("damnshi tö畜生!.-' ", min_size=1, max_size=6).filter(lambda piece: piece.strip())
SWEARING = st.sampled_from(
    [" damn", " shit", " sh", "it", " da", "mn", "!", ",", "'s", " mother", "-in-law", "畜", "生"]
)


@settings(deadline=None, max_examples=200)
@given(st.lists(PIECES | SWEARING, min_size=1, max_size=12))
@example([" sh", "it", " damn", "ation"])
def test_what_was_shown_never_changes_however_the_text_comes(pieces):
    shown = [MASK.event(transcript(pieces[:count])) for count in range(1, len(pieces) + 1)]
    for before, after in pairwise(shown):
        assert after.text.startswith(before.text)
        assert after.words[: len(before.words)] == before.words
    said, last = transcript(pieces), shown[-1]
    assert len(last.text) == len(said.text)
    assert "".join("".join(word.word for word in last.words).split()) == "".join(last.text.split())
    assert all(hidden in (plain, "*") for hidden, plain in zip(last.text, said.text, strict=True))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["damn", "Shit", "damned", "so", "what"]), min_size=1, max_size=8))
def test_words_that_come_whole_are_masked_as_the_text_is(words):
    shown = MASK.event(transcript([f" {word}," for word in words]))
    assert shown.text == MASK.text(", ".join(words) + ",")


def test_alerts_show_masked_text_and_labels_of_what_was_said_only():
    def alert(rule):
        return Alert(
            session="s1",
            seq=1,
            audio_t=1.0,
            id=1,
            rule=rule,
            severity="info",
            state="raised",
            start=0.0,
            end=None,
            score=1.0,
            labels=("Damn",),
            heard=(),
            text="oh damn, a siren",
        )

    assert MASK.event(alert("swears")).labels == ("D***",)
    assert MASK.event(alert("siren")).labels == ("Damn",)
    assert MASK.event(alert("siren")).text == "oh d***, a siren"


def test_without_words_nothing_is_touched():
    event = transcript([" damn"])
    assert Mask(()).event(event) is event
    status = Status(session="s1", seq=1, audio_t=0.0, state="listening")
    assert MASK.event(status) is status


def test_the_settings_take_true_a_list_or_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeffdamn # mild\n\n# more\nHölle\n", encoding="utf-8")
    assert resolve([], [f"speech.mask={path}"], {}).speech.mask == ("damn", "Hölle")
    assert resolve([], ["speech.mask=[damn, hell, damn]"], {}).speech.mask == ("damn", "hell")
    assert resolve([], ["speech.mask=true"], {}).speech.mask is True
    assert resolve([], [], {}).speech.mask is False
    settings_ = resolve([], [f"speech.mask={path}"], {})
    assert validate(yaml.safe_load(settings_.to_yaml())).speech.mask == ("damn", "Hölle")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("no/such.txt", "speech.mask: no/such.txt cannot be read (No such file or directory); must be true"),
        (3, "speech.mask: must be true"),
        ({"a": 1}, "speech.mask: must be true"),
        (["two words"], "speech.mask: must be single words of 2 to 40"),
        (["a"], "speech.mask: must be single words of 2 to 40"),
        ([False], "speech.mask: must be single words of 2 to 40 characters (in quotes"),
        (["--"], "speech.mask: must be single words"),
        ([f"w{index}x" for index in range(5001)], "speech.mask: must be at most 5000 words"),
    ],
)
def test_a_wrong_mask_is_refused(given, says):
    with pytest.raises(ConfigError) as caught:
        validate({"speech": {"mask": given}})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_a_list_is_refused(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        validate({"speech": {"mask": str(path)}})
    path.write_bytes(b"a" * 1_000_001)
    with pytest.raises(ConfigError, match="larger than 1000000 bytes"):
        validate({"speech": {"mask": str(path)}})
