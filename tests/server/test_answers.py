"""What OpenAI's clients get for a recording: made of events, without a server."""

import pytest

from streamer.events import Alert, Event, Sound, Span, Status, Transcript, Word
from streamer.server import answers


def passage(segment: int, text: str, start: float, language: str = "en", unclear: tuple[Span, ...] = ()) -> Transcript:
    words = tuple(
        Word(word, start + 0.2 * number, start + 0.2 * number + 0.1, 0.5) for number, word in enumerate(text.split())
    )
    return Transcript(
        session="s1",
        seq=segment + 1,
        audio_t=30.0,
        segment=segment,
        start=start,
        end=start + 2,
        text=text,
        partial="",
        final=True,
        words=words,
        language=language,
        speech_probability=0.9,
        unclear=unclear,
    )


def sound(state: str, end: float | None) -> Sound:
    return Sound(session="s1", seq=9, audio_t=30.0, id=1, label="Siren", state=state, start=3.0, end=end, score=0.8)


EVENTS: tuple[Event, ...] = (
    passage(0, "Good morning.", 0.5),
    sound("start", None),
    Alert(
        session="s1",
        seq=5,
        audio_t=30.0,
        id=1,
        rule="siren",
        severity="warning",
        state="raised",
        start=3.0,
        end=None,
        score=0.7,
        labels=("Siren",),
        heard=(),
        text="",
    ),
    passage(1, "Who is there?", 5.0, unclear=(Span(8.0, 9.0),)),
    sound("end", 6.0),
    Status(session="s1", seq=10, audio_t=30.0, state="stopped"),
)
BESIDE = {
    "sounds": [{"label": "Siren", "start": 3.0, "end": 6.0, "score": 0.8}],
    "alerts": [
        {"rule": "siren", "severity": "warning", "start": 3.0, "end": None, "score": 0.7, "labels": ["Siren"]},
    ],
    "unclear": [{"start": 8.0, "end": 9.0}],
}


def test_json_has_the_text_and_what_sounded():
    assert answers.brief(EVENTS) == {"text": "Good morning. Who is there?", "streamer": BESIDE}


def test_languages_without_spaces_are_joined_without():
    assert answers.joined([passage(0, "こんにちは。", 0, "ja"), passage(1, "はい。", 3, "ja")]) == "こんにちは。はい。"


@pytest.mark.parametrize(
    ("wanted", "words", "segments"),
    [((), False, True), (("segment",), False, True), (("word",), True, False), (("word", "segment"), True, True)],
)
def test_verbose_json_has_what_was_asked_for(wanted, words, segments):
    answer = answers.verbose(EVENTS, "transcribe", {"en": "english"}, frozenset(wanted))
    assert (answer["task"], answer["language"], answer["duration"]) == ("transcribe", "english", 30.0)
    assert ("words" in answer, "segments" in answer) == (words, segments)
    if words:
        assert answer["words"][1] == {"word": "morning.", "start": 0.7, "end": pytest.approx(0.8)}
    if segments:
        first = answer["segments"][0]
        assert (first["id"], first["start"], first["end"], first["text"]) == (0, 0.5, 2.5, "Good morning.")
        assert first["avg_logprob"] == -0.6931
        assert first["no_speech_prob"] == 0.1


def test_a_translation_is_english_whatever_was_spoken():
    german = (passage(0, "Good morning.", 0.5, "de"),)
    assert answers.verbose(german, "translate", {"en": "english", "de": "german"}, frozenset())["language"] == "english"


def test_nothing_said_is_an_empty_text():
    silence = (Status(session="s1", seq=1, audio_t=2.0, state="stopped"),)
    assert answers.brief(silence)["text"] == ""
    answer = answers.verbose(silence, "transcribe", {}, frozenset())
    assert (answer["language"], answer["duration"], answer["segments"]) == ("", 2.0, [])


def test_captions_are_whole():
    srt = answers.captions(EVENTS, "srt")
    assert srt.startswith("1\n00:00:00,500 --> ")
    assert "[Siren]" in srt
    assert answers.captions(EVENTS, "vtt").startswith("WEBVTT\n")
