import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch

import streamer
from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.hearing import encode, write
from streamer.recipes.nano.judge import Scene, load_judged, load_scenes, second_by_second, transcribed
from streamer.recipes.nano.publish import sha256
from streamer.recipes.nano.vocabulary import N_VOCAB, used_tokens
from streamer.recipes.nano.words import vocabulary
from streamer.recipes.synthesis.alarms import ALARM, SIREN, SMOKE, make
from streamer.recipes.synthesis.clips import TimedWord, read_audio

DATA = Path(streamer.__file__).parent / "data"
SCENES = Path(streamer.__file__).parents[2] / "shared" / "scenes"


@pytest.fixture(scope="module")
def judged():
    torch.set_num_threads(1)
    return load_judged(DATA)


@pytest.fixture(scope="module")
def demo():
    truth = json.loads((DATA / "demo.json").read_text())
    words = tuple(
        TimedWord(word["word"], int(word["start"] * SAMPLE_RATE), int(word["end"] * SAMPLE_RATE))
        for word in truth["words"]
    )
    events = tuple((event["label"], event["start"], event["end"]) for event in truth["events"])
    return Scene("demo", read_audio(DATA / "demo.flac"), words, events)


def test_the_files_are_whole_small_and_say_what_they_are():
    facts, head = (json.loads((DATA / name).read_text()) for name in ("nano.json", "nano_at.json"))
    assert (DATA / "nano.pt").stat().st_size < 20_000_000
    assert facts["sha256"] == sha256(DATA / "nano.pt")
    assert head["sha256"] == sha256(DATA / "nano_at.pth")
    assert facts["variable_context"] is True
    assert facts["vocabulary"] == list(vocabulary())
    assert head["kind"] == "tl_tr"
    assert len(head["thresholds"]) == len(head["calibration"]["scale"]) == len(head["calibration"]["offset"]) == 527


def test_it_is_an_english_whisper_with_zero_rows_for_unused_tokens(judged):
    rows = judged.model.decoder.token_embedding.weight
    used = np.zeros(N_VOCAB, bool)
    used[used_tokens().used] = True
    assert rows.shape[0] == N_VOCAB
    assert not rows[torch.from_numpy(~used)].any()
    assert not judged.model.is_multilingual
    facts = json.loads((DATA / "nano.json").read_text())
    layers, heads = judged.model.dims.n_text_layer, judged.model.dims.n_text_head
    assert all(layer < layers and head < heads for layer, head in facts["alignment_heads"])


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return streamer.load_model("nano")


def streamed(model, audio):
    """What a listener reads in the end."""
    stream = streamer.Stream(model)
    events = [*stream.push(audio), *stream.finish()]
    return " ".join(event.text for event in events if event.type == "transcript" and event.final)


def test_it_captions_the_demo(model, demo):
    assert jiwer.wer(" ".join(word.text for word in demo.words), streamed(model, demo.audio)) <= 0.2


@pytest.mark.parametrize("seconds", [2, 5, 10, 30])
def test_it_writes_nothing_where_nothing_is_said(judged, seconds):
    random = np.random.default_rng(seconds)
    count = seconds * SAMPLE_RATE
    siren = make("wail", seconds, random).audio * 0.1
    quiet = [np.zeros(count, np.float32), random.normal(0, 0.01, count).astype(np.float32), siren[:count]]
    for heard in write(judged.model, encode(judged.model, quiet)[0]):
        assert heard.words == ()
        assert heard.no_speech > 0.5


@pytest.mark.parametrize(("kind", "label"), [("smoke_t3", SMOKE), ("wail", SIREN), ("yelp", SIREN), ("hilo", SIREN)])
def test_it_knows_an_alarm_within_two_seconds(judged, kind, label):
    hits = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        audio = random.normal(0, 0.003, 5 * SAMPLE_RATE).astype(np.float32)
        audio[SAMPLE_RATE:] += make(kind, 4.0, random).audio * 0.1
        hits.append(second_by_second(judged, audio)[2:, label] >= judged.thresholds[label])
    assert np.mean(hits) >= 0.85


def test_classes_that_were_never_trained_stay_silent(judged):
    taps = encode(judged.model, [np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32)])[1]
    never = np.flatnonzero(judged.a == 0)
    assert len(never) > 400
    assert judged.scores(taps)[0, never].max() < 1e-3
    assert judged.a[[0, ALARM, SIREN, SMOKE]].min() > 0


def test_whispers_own_transcribe_needs_no_fallback_on_the_demos_speech(judged, demo):
    words = tuple(word for word in demo.words if word.end < 12 * SAMPLE_RATE)
    found, facts = transcribed(judged.model, Scene("calm", demo.audio[: 12 * SAMPLE_RATE], words, ()))
    assert facts["fallbacks"] == 0
    assert jiwer.wer(" ".join(word.text for word in words), " ".join(found)) <= 0.3


@pytest.mark.shared
@pytest.mark.skipif(not SCENES.is_dir(), reason="needs ../shared/scenes")
@pytest.mark.parametrize(("scenes", "most"), [("speech_clean", 0.05), ("speech_snr10", 0.15)])
def test_scenes_are_captioned(model, scenes, most):
    wrong = total = 0.0
    for scene in load_scenes(SCENES):
        if scene.name.startswith(scenes):
            truth = " ".join(word.text for word in scene.words)
            wrong += jiwer.wer(truth, streamed(model, scene.audio)) * len(scene.words)
            total += len(scene.words)
    assert wrong / total <= most


@pytest.mark.shared
@pytest.mark.skipif(not SCENES.is_dir(), reason="needs ../shared/scenes")
def test_nothing_is_invented_where_nobody_speaks(model):
    quiet = [scene for scene in load_scenes(SCENES) if not scene.words]
    invented = sum(len(streamed(model, scene.audio).split()) for scene in quiet)
    assert invented / (sum(len(scene.audio) for scene in quiet) / SAMPLE_RATE / 60) <= 0.5
