"""The encoder's passes as recorded work: results are those of eager passes, for any batch and any ends of the audio."""

import copy
import logging

import pytest
import torch
from backbones import random_whisper
from graph_tape import TapeRecorder
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from streamer.model import whisper
from streamer.model.graphs import BATCH_BUCKETS
from streamer.model.whisper import EncodedWindows, Model

SPANS = st.sampled_from([0.0, 0.4, 2.0, 5.0, 10.0])
MODULE = random_whisper(3)


def models(recorder: TapeRecorder) -> tuple[Model, Model]:
    return Model(copy.deepcopy(MODULE)), Model(copy.deepcopy(MODULE), recorder=recorder)


def random_mel(batch: int, frames: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, 80, frames, generator=torch.Generator().manual_seed(seed))


def same(left: EncodedWindows, right: EncodedWindows, *, atol: float = 1e-5) -> None:
    assert_close(left.features, right.features, atol=atol, rtol=1e-4)
    for one, other in zip(left.taps, right.taps, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, atol=atol, rtol=1e-4)


EAGER, RECORDED = models(TapeRecorder())


@settings(max_examples=15, deadline=None)
@given(data=st.data(), batch=st.integers(1, 17), frames=st.sampled_from([40, 42, 120, 200]), seed=st.integers(0, 99))
def test_windows_are_as_in_an_eager_pass(data, batch, frames, seed):
    real = data.draw(st.lists(st.integers(0, frames + 5), min_size=batch, max_size=batch))
    spans = data.draw(st.lists(SPANS, min_size=batch, max_size=batch))
    mel = random_mel(batch, frames, seed)
    expected = EAGER.encode_windows(mel, real_frames=real, tag_spans_s=spans)
    same(RECORDED.encode_windows(mel, real_frames=real, tag_spans_s=spans), expected)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), batch=st.integers(1, 5), longest=st.sampled_from([120, 200]), seed=st.integers(0, 99))
def test_windows_that_end_earlier_are_as_alone_at_their_own_length(data, batch, longest, seed):
    """Zeros behind a window, seen by nobody, change nothing: eagerly and recorded."""
    ends = data.draw(st.lists(st.sampled_from([40, 42, 80, 118, longest]), min_size=batch, max_size=batch))
    spans = data.draw(st.lists(SPANS, min_size=batch, max_size=batch))
    mel = random_mel(batch, longest, seed)
    for row, end in zip(mel, ends, strict=True):
        row[:, end:] = 0
    for model in (EAGER, RECORDED):
        passes = model.encoder_passes
        found = model.encode_windows(mel, real_frames=ends, tag_spans_s=spans, window_frames=ends)
        assert model.encoder_passes == passes + batch
        for place, end in enumerate(ends):
            alone = EAGER.encode_windows(mel[place : place + 1, :, :end], tag_spans_s=spans[place : place + 1])
            same(EncodedWindows(found.features[place : place + 1, : end // 2], found.taps[place : place + 1]), alone)


def test_window_lengths_that_cannot_be_are_refused():
    mel = random_mel(2, 120, 0)
    for lengths in ([120], [120, 119], [120, 122], [0, 120]):
        with pytest.raises(whisper.MelError, match="window_frames"):
            EAGER.encode_windows(mel, window_frames=lengths)


def test_all_lengths_of_live_windows_are_few_kinds_of_passes():
    lengths = range(40, 3001, 40)
    assert {EAGER.pass_frames(length) for length in lengths} == set(lengths)
    assert {RECORDED.pass_frames(length) for length in lengths} == set(whisper.PASS_FRAMES)
    assert all(RECORDED.pass_frames(length) >= length for length in lengths)
    kinds = len(whisper.PASS_FRAMES) * len(BATCH_BUCKETS)
    assert kinds + len(BATCH_BUCKETS) <= whisper.RECORDED_PASSES  # and those of windows that fill the 30 s


class Full:
    """Results that memory runs out for where they are taken."""

    def __getitem__(self, place: slice) -> "Full":
        return self

    def clone(self) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_pass_counts_when_it_is_done(monkeypatch):
    """What memory runs out for is done anew, and would count twice."""
    eager, recorded = models(TapeRecorder())
    mel = random_mel(2, 120, 0)
    monkeypatch.setattr(recorded._graphs, "run", lambda *work: (Full(), Full()))
    monkeypatch.setattr(eager._encoder, "features", lambda x: Full().clone())
    for run in (recorded.encode_windows, eager.encode_windows, eager.encode):
        with pytest.raises(torch.OutOfMemoryError):
            run(mel)
    assert recorded.encoder_passes == eager.encoder_passes == 0


def test_results_stay_while_others_are_computed():
    tape = TapeRecorder()
    eager, recorded = models(tape)
    shapes = [(1, 200), (3, 120), (4, 120), (1, 200), (3, 120)]
    mels = [random_mel(batch, frames, seed) for seed, (batch, frames) in enumerate(shapes)]
    found = [recorded.encode_windows(mel, tag_spans_s=[5.0] * len(mel)) for mel in mels]
    for mel, item in zip(mels, found, strict=True):
        same(item, eager.encode_windows(mel, tag_spans_s=[5.0] * len(mel)))
    assert (tape.tried, tape.replays) == (2, 5)  # three windows and four share a recording
    assert recorded.encoder_passes == eager.encoder_passes == 12


def test_more_lengths_than_are_kept(monkeypatch):
    monkeypatch.setattr(whisper, "RECORDED_PASSES", 2)
    tape = TapeRecorder()
    eager, recorded = models(tape)
    for seed, frames in enumerate((40, 80, 120, 40, 120)):
        mel = random_mel(2, frames, seed)
        same(recorded.encode_windows(mel, tag_spans_s=[0.4, 0.0]), eager.encode_windows(mel, tag_spans_s=[0.4, 0.0]))
    assert tape.tried == 4


def test_a_pass_that_cannot_be_recorded_is_right_all_the_same(caplog):
    eager, recorded = models(TapeRecorder(refuse=1))
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            mel = random_mel(3, 80, seed)
            same(recorded.encode_windows(mel, tag_spans_s=[0.8] * 3), eager.encode_windows(mel, tag_spans_s=[0.8] * 3))
    assert len(caplog.records) == 1


def test_a_broken_window_spoils_no_other():
    _, recorded = models(TapeRecorder())
    mel = random_mel(3, 80, 0)
    expected = recorded.encode_windows(mel, tag_spans_s=[0.8] * 3)
    broken = mel.clone()
    broken[1] = float("nan")
    found = recorded.encode_windows(broken, tag_spans_s=[0.8] * 3)
    assert found.features[1].isnan().all()
    assert torch.equal(found.features[[0, 2]], expected.features[[0, 2]])
    same(recorded.encode_windows(mel, tag_spans_s=[0.8] * 3), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_graphs_of_passes_equal_eager_ones(dtype):
    eager = Model(copy.deepcopy(MODULE), device="cuda", dtype=dtype, recorder=lambda device: None)
    recorded = Model(copy.deepcopy(MODULE), device="cuda", dtype=dtype)
    shapes = [(1, 1000), (3, 400), (5, 400), (16, 1000), (1, 3000), (3, 400), (8, 1000)]
    mels = [random_mel(batch, frames, seed) for seed, (batch, frames) in enumerate(shapes)]
    found = [recorded.encode_windows(mel, tag_spans_s=[10.0] * len(mel)) for mel in mels]
    for mel, item in zip(mels, found, strict=True):
        expected = eager.encode_windows(mel, tag_spans_s=[10.0] * len(mel))
        same(item, expected, atol=1e-3 if dtype == torch.float32 else 0.1)
    assert len(recorded._graphs) == 5
