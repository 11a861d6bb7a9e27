import importlib.util
import json

import numpy as np
import pytest
from random_whisper import random_whisper

from streamer.bench.conversion import PeerAbsentError
from streamer.bench.hop import Stopwatch
from streamer.bench.peers import FasterWhisper, OpenAIWhisper
from streamer.commands.cli import main

NOISE = np.random.default_rng(0).normal(0.0, 0.05, 16_000 * 10).astype(np.float32)


def test_time_inside_another_part_is_counted_once():
    now = 0.0

    class Owner:
        def outer(self):
            nonlocal now
            now += 2.0
            return self.inner()

        def inner(self):
            nonlocal now
            now += 20.0
            return 7

    owner, watch = Owner(), Stopwatch(clock=lambda: now)
    watch.watch(owner, "inner", "inside")
    watch.watch(owner, "outer", "outside")
    assert owner.outer() == 7
    assert watch.take() == {"inside": 20.0, "outside": 2.0}
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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["hop", "--peers", "whisperx"], "--peers: must be among openai-whisper, faster-whisper, is 'whisperx'"),
        (["ceilings", "--sizes", "huge"], "--sizes: must be among tiny, base"),
        (["ceilings", "--rounds", "0"], "--rounds: must be a whole number of at least 1, is '0'"),
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
