"""Ends of segments, the mask and hot words on whole streams: real listener and session, a decoder that knows all."""

import functools
import re
import wave
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol import check_session
from random_whisper import random_whisper

from streamer.commands.transcribe import transcribe
from streamer.events import Alert, Event, Transcript
from streamer.events.plans import DecodeTask, Hypothesis, HypothesisWord, StepRequest, StepResult
from streamer.model.whisper import Model
from streamer.policy.prompt import TextModel
from streamer.policy.text_session import TextChange
from streamer.runtime.session import Session
from streamer.runtime.stream import Listener, Stream
from streamer.settings.config import Settings, validate

RATE = 16_000
CUTS = st.lists(st.integers(0, 2**31), max_size=40).map(tuple)
MODEL = TextModel(encode=lambda text: tuple(text.encode()), fixed_language="en", carries_prompt=True)
# Bursts of voice (start, end in seconds), and what is said in each.
SPOKEN = (
    (0.4, 1.7, "It costs 3.50 here."),
    (2.6, 3.6, "Dr. Damn said"),
    (4.4, 5.2, "nothing. Really?"),
    (6.2, 7.0, "damn it. And"),
    (7.3, 8.1, "so on."),
    (10.2, 11.0, "“The end!”"),
)
SECONDS = 12.5
CONFIG = {
    "vad": {"speech_probability": 0, "hangover_ms": 1000},
    "alerts": {"rules": [{"id": "swears", "phrases": ["damn"]}]},
}


def words() -> list[HypothesisWord]:
    found: list[HypothesisWord] = []
    for start, end, text in SPOKEN:
        parts = text.split()
        length = (end - start) / len(parts)
        for index, part in enumerate(parts):
            first, last = (round((start + length * place) * RATE) for place in (index, index + 1))
            found.append(HypothesisWord(f" {part}", (len(found) + 1,), first, last, 0.9, last))
    return found


WORDS = words()


@functools.cache
def sound() -> np.ndarray:
    """A buzz that webrtcvad takes for a voice wherever somebody speaks, and next to nothing elsewhere."""
    t = np.arange(round(SECONDS * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    buzz = sum(np.sin(order * phase) / order for order in range(1, 25))
    speaking = np.zeros(len(t))
    for start, end, _ in SPOKEN:
        speaking[round(start * RATE) : round(end * RATE)] = 1
    hiss = np.random.default_rng(0).standard_normal(len(t))
    return (0.1 * buzz * speaking + 0.0005 * hiss).astype(np.float32)


def decoded(request: StepRequest, task: DecodeTask) -> Hypothesis:
    """Every word that begins in the window behind the forced prefix; one that its end cuts off is a guess."""
    behind = max(task.prefix, default=0)
    said = [word for word in WORDS if word.tokens[0] > behind and word.start_sample < request.end_sample - 1600]
    if said and said[-1].end_sample > request.end_sample:
        cut = said[-1]
        guess = f"{cut.text[:2]}{request.end_sample // 1600}."
        said[-1] = replace(cut, text=guess, end_sample=request.end_sample, attended_sample=cut.end_sample)
    fresh = tuple(word for word in said if word.end_sample > request.start_sample)
    return Hypothesis(fresh, "en", 1.0, 0.0, -0.1, 1.0, True)


def played(config: Settings, samples: np.ndarray, cuts: tuple[int, ...] = ()) -> list[Event]:
    listener, session = Listener(config), Session(config, MODEL, None)
    events = session.status("listening")

    def carry_out(plans: list[Any]) -> None:
        for plan in plans:
            request = session.begin(plan)
            result = None
            if request:
                assert request.decode is not None
                result = StepResult(request, decoded(request, request.decode))
            events.extend(session.complete(plan, result))

    for piece in np.split(samples, sorted(cut % (len(samples) + 1) for cut in cuts)):
        carry_out(listener.step(piece))
    carry_out(listener.finish())
    return events + session.finish()


def settings_with(**sections: Any) -> Settings:
    return validate({**CONFIG, **sections})


def plain(events: list[Event]) -> list[dict[str, Any]]:
    return [event.to_dict() for event in events]


def finals(events: list[Event]) -> list[Transcript]:
    return [event for event in events if isinstance(event, Transcript) and event.final]


@functools.cache
def whole(policy: str = "agreement") -> list[Event]:
    return played(settings_with(policy={"name": policy}, speech={"mask": ["damn"]}), sound())


def test_pauses_and_sentences_of_long_segments_end_segments_and_nothing_else_does():
    ended = finals(whole())
    check_session(plain(whole()))
    assert [final.text for final in ended] == [
        "It costs 3.50 here. Dr. D*** said nothing. Really? d*** it.",
        "And so on.",
        "“The end!”",
    ]
    assert all(final.audio_t - final.words[-1].end < 1.7 for final in ended)


@pytest.mark.parametrize("policy", ["agreement", "alignatt"])
@pytest.mark.parametrize("hop_s", [0.2, 0.5, 1.0])
def test_no_word_is_lost_and_none_comes_later(policy, hop_s):
    def run(pause_ms):
        about = {"policy": {"name": policy, "segment_pause_ms": pause_ms}, "window": {"hop_s": hop_s}}
        events = played(settings_with(**about), sound())
        check_session(plain(events))
        return [(word.word, word.start, word.end) for final in finals(events) for word in final.words], finals(events)

    patient, few_segments = run(3000)
    quick, many_segments = run(1000)
    assert quick == patient
    assert [word.text.strip() for word in WORDS] == [word for word, _, _ in quick]
    assert len(many_segments) > len(few_segments)


@settings(max_examples=8, deadline=None)
@given(CUTS, st.sampled_from(["agreement", "alignatt"]))
def test_any_chunking_gives_the_same_events(cuts, policy):
    config = settings_with(policy={"name": policy}, speech={"mask": ["damn"]})
    assert plain(played(config, sound(), cuts)) == plain(whole(policy))


def test_a_phrase_behind_a_mark_begins_with_its_own_word():
    rule = {"id": "eyes", "phrases": ["the eyes"]}
    session = Session(settings_with(alerts={"defaults": False, "rules": [rule]}), MODEL, None)
    written = [" modern", " figures", ",", " the", " eyes"]  # a mark that was written later is a word of its own
    words = tuple(
        HypothesisWord(text, (), RATE * place, RATE * (place + 1), 1.0, 0) for place, text in enumerate(written)
    )
    session.write([TextChange(0, 0, 5 * RATE, words, "modern figures, the eyes", "", True, "en")], 5 * RATE, 0.0)
    (raised,) = [event for event in session.status("listening") if isinstance(event, Alert)]
    assert (raised.start, raised.labels) == (3.0, ("the eyes",))


@settings(max_examples=8, deadline=None)
@given(st.integers(1, round(SECONDS * RATE)))
def test_a_cut_stream_gives_the_first_events_of_the_whole(cut):
    cut_events = plain(played(settings_with(policy={"name": "agreement"}, speech={"mask": ["damn"]}), sound()[:cut]))
    check_session(cut_events)
    before = [event for event in plain(whole()) if event["audio_t"] < cut / RATE]
    assert cut_events[: len(before)] == before


def test_rules_hear_what_people_do_not_read():
    alerts = [event for event in whole() if isinstance(event, Alert) and event.rule == "swears"]
    assert {alert.state for alert in alerts} >= {"raised", "cleared"}
    assert {label for alert in alerts for label in alert.labels} <= {"D***", "d***"}
    assert any("d***" in alert.text.lower() for alert in alerts)
    assert "damn" not in "".join(event.to_json() for event in whole()).lower()
    unmasked = played(settings_with(), sound())
    same = [event for event in unmasked if isinstance(event, Alert) and event.rule == "swears"]
    assert [(alert.state, alert.audio_t) for alert in same] == [(alert.state, alert.audio_t) for alert in alerts]


@functools.cache
def random_model(previous_text: bool) -> Model:
    torch.manual_seed(1)
    return Model(
        random_whisper(3, vocabulary=51864, ending=2.0),
        name="random",
        dtype=torch.float32,
        variable_context=True,
        min_context_s=1.0,
        previous_text=previous_text,
    )


def prompts(stream: Stream, samples: np.ndarray) -> list[list[int]]:
    """What the decoder read before each transcript."""
    search, seen = stream._engine.search, []
    make_row = search._row

    def spy(*arguments: Any) -> Any:
        row = make_row(*arguments)
        seen.append(row.prompt)
        return row

    search._row = spy  # type: ignore[method-assign]
    stream.push(samples)
    stream.finish()
    return seen


def test_hot_words_reach_the_decoder_of_a_model_that_knows_earlier_text():
    guards = {"silence": False, "loops": False}
    config = validate(
        {
            "guards": guards,
            "vad": {"speech_probability": 0},
            "speech": {"hot_words": ["Kubernetes", "Anna Schmidt"], "prompt": "A talk."},
        }
    )
    tokenizer = random_model(True).tokenizer("en")
    said, hot = tokenizer.encode(" A talk."), tokenizer.encode(" Kubernetes, Anna Schmidt.")
    found = prompts(Stream(random_model(True), config), sound()[: 3 * RATE])
    assert found
    head = [tokenizer.sot_prev, *hot, *said]
    assert all(prompt[: len(head)] == head for prompt in found)
    assert not any(prompts(Stream(random_model(False), config), sound()[: 2 * RATE]))


def test_the_mask_changes_nothing_but_letters():
    guards = {"silence": False, "loops": False}
    model, samples = random_model(True), sound()[: 3 * RATE]

    def run(mask: Any) -> list[dict[str, Any]]:
        heard = {"guards": guards, "vad": {"speech_probability": 0}, "speech": {"mask": mask}}
        stream = Stream(model, validate(heard))
        return plain(stream.push(samples) + stream.finish())

    open_events = run(False)
    spoken = {word["word"] for event in open_events if event["type"] == "transcript" for word in event["words"]}
    chosen = sorted(word for word in spoken if word.isalpha() and 1 < len(word) <= 40)[::2]
    masked = run(chosen)
    check_session(masked)
    assert len(masked) == len(open_events)
    shown = [event["text"] for event in masked if event["type"] == "transcript"]
    assert chosen
    assert any("*" in text for text in shown)
    for before, after in zip(open_events, masked, strict=True):
        if before["type"] != "transcript":
            assert before == after
            continue
        assert {**before, "text": "", "partial": "", "words": []} == {**after, "text": "", "partial": "", "words": []}
        assert all(one in (other, "*") for one, other in zip(after["text"], before["text"], strict=True))


def test_transcribe_masks_and_takes_hot_words_too(tmp_path):
    path, written = tmp_path / "said.wav", tmp_path / "out" / "said.txt"
    written.parent.mkdir()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((sound()[: 2 * RATE] * 32767).astype("<i2").tobytes())
    words_of = {chr(letter) + chr(other) for letter in range(97, 123) for other in range(97, 123)}
    speech = {"mask": sorted(words_of), "hot_words": ["Kubernetes"]}
    guards = {"silence": False, "loops": False}
    told: list[float] = []
    config = validate({"guards": guards, "vad": {"speech_probability": 0}, "speech": speech})
    show, model = (lambda _, done_s, __: told.append(done_s)), random_model(True)
    assert transcribe(model, config, [path], "text", written.parent, progress=show, tell=told.append) == 0
    found = written.read_text(encoding="utf-8")
    assert found.strip()
    assert not {part.lower() for part in re.findall(r"\w+", found)} & words_of
