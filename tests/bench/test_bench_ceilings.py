"""The ceilings: what is counted, and that the bench runs and is written."""

import json
import time

import pytest
import torch
from random_whisper import random_model, random_whisper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from streamer.bench import ceilings
from streamer.bench.conversion import PeerAbsentError
from streamer.bench.peers import PEERS, peers_at_hand
from streamer.commands.cli import main
from streamer.errors import StreamerError
from streamer.model.checkpoint import compute_target
from streamer.model.decoding.search import GreedySearch
from streamer.model.whisper import Model


@pytest.mark.parametrize("frames", [400, 1000])
def test_the_encoders_operations_are_those_that_torch_counts(frames):
    model = ceilings.random_model("tiny", torch.device("cpu"), torch.float32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it knows not all other kernels
        model.encode(torch.randn(2, 80, frames))
    assert 2 * ceilings.encoder_flop(model.dims, frames) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_step_reads_every_weight_once_and_each_windows_keys_and_values():
    decoder = GreedySearch(Model(random_whisper(0))).decoder
    weights = sum(
        parameter.numel()
        for name, parameter in random_whisper(0).decoder.named_parameters()
        if parameter.ndim == 2 and "positional" not in name and not name.endswith(("cross_attn.key.weight",))
        if "cross_attn.value" not in name
    )
    assert decoder.bytes_read(1, 0, 0) == 4 * weights
    one_more = decoder.bytes_read(3, 40, 500) - decoder.bytes_read(2, 40, 500)
    assert one_more == 2 * 2 * 64 * 540 * 4  # key and value, layers, width, positions and frames, bytes


def test_where_weights_are_kept_in_eight_bits_few_rows_read_half():
    decoder = GreedySearch(ceilings.random_model("tiny", torch.device("cpu"), torch.bfloat16)).decoder
    few, many = decoder.bytes_read(4, 0, 0), decoder.bytes_read(5, 0, 0)
    assert many - few in (0, 4 * 14 * 384**2)  # none of this machine's, or all projections of four layers


def test_one_object_a_page_and_a_plot(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ceilings, "random_model", lambda size, device, dtype: random_model(0, dtype=dtype))
    monkeypatch.setattr(ceilings, "MATRIX_SIZES", {"cpu": (64,)})
    monkeypatch.setattr(ceilings, "MEMORY_BYTES", {"cpu": 2**16})
    monkeypatch.setattr(ceilings, "LEAST_S", 0.001)
    monkeypatch.setattr(ceilings, "BATCHES", (1, 2))
    command = ["bench", "ceilings", "--sizes", "tiny", "--rounds", "1", "--compute", "cpu", "--dtype", "float32"]
    assert main([*command, "--json", "-", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["matrix_gflops"] > 0
    assert result["memory_gb_per_s"] > 0
    assert (result["device"], result["dtype"]) == ("cpu", "float32")
    assert [row["windows"] for row in result["sizes"]["tiny"]] == [1, 2]
    for row in result["sizes"]["tiny"]:
        assert min(row["encoder_share"], row["step_share"], row["encoder_ms"], row["step_ms"]) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ceilings.json", "ceilings.md", "ceilings.png"]
    assert "of the matrix ceiling" in (tmp_path / "ceilings.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no CUDA")
@pytest.mark.parametrize("bench", ["hop", "throughput", "ceilings"])
def test_a_device_that_is_not_there_is_refused_in_one_line(bench, capsys, tmp_path):
    assert main(["bench", bench, "--compute", "cuda", "--out", str(tmp_path)]) == 2
    assert "--compute (device) 'cuda': this machine has no CUDA" in capsys.readouterr().err.splitlines()[-1]
    assert compute_target("auto") == compute_target("cpu")


def test_a_peer_that_cannot_use_the_device_is_left_out_with_a_line(monkeypatch, tmp_path):
    def unable(module, folder, threads, device):
        raise PeerAbsentError(f"faster-whisper cannot use {device}: no driver")

    monkeypatch.setattr("streamer.bench.peers.FasterWhisper", unable)
    monkeypatch.setattr("streamer.bench.peers.OpenAIWhisper", lambda module, device: device)
    peers, absent = peers_at_hand(PEERS, random_whisper(0), tmp_path, 1, torch.device("cuda"))
    assert peers == [torch.device("cuda")]
    assert absent == {"faster-whisper": "faster-whisper cannot use cuda: no driver"}


def test_a_text_that_ends_early_is_no_measurement():
    model = random_model(0, ending=30.0)
    with pytest.raises(StreamerError, match="random wrote fewer than 9 tokens"):
        ceilings.write(GreedySearch(model), model, 1, 9, time.perf_counter)
