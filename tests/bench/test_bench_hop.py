import importlib.util
import json
import time

import numpy as np
import pytest
import torch
from random_whisper import random_model, random_whisper

from streamer.bench import hop
from streamer.bench.clock import Stopwatch
from streamer.bench.peers import FasterWhisper, OpenAIWhisper, PeerAbsentError
from streamer.bench.scripted import Teacher
from streamer.commands.cli import main
from streamer.model.decoding.search import AudioWindow
from streamer.plans import DecodeTask

NOISE = np.random.default_rng(0).normal(0.0, 0.05, 16_000 * 10).astype(np.float32)


def test_the_teacher_writes_the_given_words_and_pays_for_each():
    model = random_model(0)
    teacher = Teacher(model)
    features = torch.randn(100, model.dims.n_audio_state)
    words = teacher.text(12)
    assert len(set(words)) == 12
    teacher.lessons = [words[8:11]]
    task = DecodeTask("en", prefix=words[:8], max_new_tokens=9)
    [decoded] = teacher.decode([AudioWindow(features, 100)], [task])
    assert decoded.tokens == words[8:11]
    assert decoded.complete
    assert decoded.steps == 4  # three words and the end, each in a step of its own
    [exactly] = teacher.decode([AudioWindow(features, 100)], [DecodeTask("en", prefix=words[:8], max_new_tokens=4)])
    assert exactly.tokens == words[8:12]
    assert exactly.steps == 4


def test_the_teacher_takes_the_same_words_from_a_draft_in_one_step():
    model = random_model(0)
    teacher = Teacher(model)
    words = teacher.text(6)
    teacher.lessons = [words]
    task = DecodeTask("en", draft=words, max_new_tokens=20)
    [decoded] = teacher.decode([AudioWindow(torch.randn(100, model.dims.n_audio_state), 100)], [task])
    assert decoded.tokens == words
    assert (decoded.steps, decoded.accepted) == (1, 6)


def test_time_inside_another_part_is_counted_once():
    class Owner:
        def outer(self):
            time.sleep(0.002)
            return self.inner()

        def inner(self):
            time.sleep(0.02)
            return 7

    owner, watch = Owner(), Stopwatch()
    watch.watch(owner, "inner", "inside")
    watch.watch(owner, "outer", "outside")
    start = time.perf_counter()
    assert owner.outer() == 7
    taken = watch.take()
    assert 0 < taken["outside"] < taken["inside"]
    assert sum(taken.values()) <= time.perf_counter() - start
    assert watch.take() == {}


def test_openai_whisper_writes_exactly_what_is_due():
    assert len(OpenAIWhisper(random_whisper(0)).decode(NOISE, 12)) == 12


def test_faster_whisper_on_converted_weights_writes_what_openai_whisper_writes_or_says_that_it_is_absent(tmp_path):
    module = random_whisper(0)
    if importlib.util.find_spec("faster_whisper") is None:
        with pytest.raises(PeerAbsentError, match="not installed"):
            FasterWhisper(module, tmp_path, 1)
        return
    peer = FasterWhisper(module, tmp_path, 1, compute_type="float32")
    expected = OpenAIWhisper(module).decode(NOISE, 12)
    assert len(set(expected)) > 3
    assert peer.decode(NOISE, 12) == expected
    text = "It's 12 o'clock – naïve über 日本"
    from whisper.tokenizer import get_tokenizer

    assert peer.model.hf_tokenizer.encode(text, add_special_tokens=False).ids == get_tokenizer(True).encode(text)


def test_one_object_with_ratios_and_split(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hop, "random_whisper", lambda size: random_whisper(0))
    monkeypatch.setattr(hop, "random_model", lambda module, size, *, device, dtype: random_model(0, dtype=dtype))
    command = ["bench", "hop", "--sizes", "base", "--rounds", "1", "--busy-rounds", "1", "--peers", "openai-whisper"]
    assert main([*command, "--json", "-", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ratios"]["openai-whisper"] > 0
    assert result["ratios"]["faster-whisper"] is None
    assert result["absent"] == {"faster-whisper": "not asked for"}
    assert set(result["split_ms"]) == set(hop.PARTS)
    assert result["split_ms"]["encoder"] > 0
    assert result["split_ms"]["decoder"] > 0
    assert set(result["sizes"]["base"]["busy_ms"]) == {"fit", "padded", "openai-whisper"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hop.json", "hop.md", "hop.png"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["hop", "--sizes", "tiny,huge"], "--sizes: must be among tiny, base, small, medium, large-v2, large-v3, "),
        (["ceilings", "--sizes", "huge"], "--sizes: must be among tiny, base"),
        (["throughput", "--size", "huge"], "--size: must be among tiny, base"),
        (["hop", "--rounds", "0"], "--rounds: must be a whole number of at least 1, is '0'"),
        (["soak", "--hours", "-1"], "--hours: must be a number above 0, is '-1'"),
        (["soak", "--data", "/nowhere"], "--data /nowhere: cannot be read: No such file or directory"),
        (["soak", "--data", "a", "--audio", "b"], "--audio: not allowed with argument --data"),
        (["speech"], "the following arguments are required: --data"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, line, capsys):
    assert main(["bench", *arguments]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_a_hop_of_peoples_speech_is_measured_on_a_real_model_and_split(tmp_path):
    code = main(["bench", "hop", "--models", "nano", "--peers", "openai-whisper", "--out", str(tmp_path)])
    assert code == 0
    found = json.loads((tmp_path / "hop.json").read_text())["models"]["nano"]
    assert found["hops_with_text"] > 20
    assert set(found["ratios"]) == {"openai-whisper"}
    assert all(found["split_ms_per_s"][part] > 0 for part in ("mel", "encoder", "keys", "decoder", "gate", "patterns"))
