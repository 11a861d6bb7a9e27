"""The engine on a device that records its work: the same results, and nothing to record once it has warmed up."""

import logging

import pytest
import torch
from graph_tape import TapeRecorder
from random_whisper import random_whisper
from recorded_engines import engine, same, work

from streamer.errors import EngineError
from streamer.model import whisper
from streamer.model.decoding import kv_cache
from streamer.model.engine import Engine
from streamer.model.graphs import BATCH_BUCKETS
from streamer.model.whisper import Model


@pytest.mark.usefixtures("short_warm_up")
def test_after_the_warm_up_common_steps_are_replayed_with_the_same_results():
    tape = TapeRecorder()
    recorded, eager = engine(tape), engine(lambda device: None)
    recorded.warm_up()
    assert recorded.model.encoder_passes == 0
    tried = tape.tried
    for count, length_s in ((1, 2.4), (3, 1.0), (4, 2.4), (2, 2.37), (1, 1.3)):
        same(recorded.step(work(count, length_s)), eager.step(work(count, length_s)))
    assert tape.tried == tried
    assert recorded.model.encoder_passes == eager.model.encoder_passes == 11


@pytest.mark.usefixtures("short_warm_up")
def test_windows_of_several_lengths_share_a_recorded_pass_with_the_results_of_their_own_length():
    tape = TapeRecorder()
    recorded, eager = engine(tape), engine(lambda device: None)
    lengths_s = (1.21, 2.0, 1.7, 2.4, 1.0, 2.39)  # five of them pass at 240 frames, more than go together
    mixed = [work(place + 1, length_s)[place] for place, length_s in enumerate(lengths_s[:3])]
    mixed += [work(1, length_s)[0] for length_s in lengths_s[3:]]
    seen = []
    encode = recorded.model.encode_windows

    def watched(mel, **options):
        seen.append(tuple(mel.shape[::2]))
        return encode(mel, **options)

    recorded.model.encode_windows = watched
    same(recorded.step(mixed), eager.step(mixed))
    assert seen == [(1, 120), (4, 240), (1, 240)]


@pytest.mark.usefixtures("short_warm_up")
def test_a_window_longer_than_any_before_drops_nothing_that_was_recorded():
    tape = TapeRecorder()
    recorded = engine(tape)
    recorded.warm_up()
    recorded.step(work(1, 6.0))  # longer than the warm-up's: more blocks of audio
    tried = tape.tried
    recorded.step(work(3, 1.0))
    recorded.step(work(4, 2.4))
    assert tape.tried == tried


def test_the_warm_up_records_every_kind_of_live_windows_and_all_are_kept():
    passes, steps = len(whisper.PASS_FRAMES) * len(BATCH_BUCKETS), len(kv_cache.AUDIO_ENDS)
    assert len(list(engine(TapeRecorder())._kinds())) == steps + passes
    padded = Engine(Model(random_whisper(0), recorder=TapeRecorder()), context="padded")
    assert len(list(padded._kinds())) == 1 + len(BATCH_BUCKETS)  # all of 30 s
    assert passes <= whisper.RECORDED_PASSES
    assert steps * (len(kv_cache.TEXT_ENDS) + 1) * len(BATCH_BUCKETS) <= kv_cache.RECORDED_STEPS


def test_the_warm_up_has_a_window_for_every_length_of_passes(monkeypatch):
    made, seen = engine(TapeRecorder()), set()
    monkeypatch.setattr(made, "_step", lambda work: seen.update(made._window(*item).total_frames for item in work))
    for kind in made._kinds():
        if kind.func == made._step:
            kind()
    assert sorted(map(made.model.pass_frames, seen)) == list(whisper.PASS_FRAMES)
    assert all(frames // 2 % 8 == 0 for frames in whisper.PASS_FRAMES[:-1])


@pytest.mark.usefixtures("short_warm_up")
def test_short_windows_in_a_longer_context_are_recorded_too():
    tape = TapeRecorder()
    recorded, eager = engine(tape, min_context_s=6.0), engine(lambda device: None, min_context_s=6.0)
    recorded.warm_up()
    tried = tape.tried
    for count, length_s in ((2, 2.4), (1, 0.7)):
        same(recorded.step(work(count, length_s)), eager.step(work(count, length_s)))
    assert tape.tried == tried


@pytest.mark.usefixtures("short_warm_up")
def test_a_device_that_cannot_record_serves_all_the_same(caplog):
    class Refusing(TapeRecorder):
        def record(self, work):
            raise RuntimeError("CUDA error: operation not supported")

    refused = engine(Refusing())
    with caplog.at_level(logging.WARNING):
        refused.warm_up()
        warned = len(caplog.records)
        same(refused.step(work(2, 2.4)), engine(lambda device: None).step(work(2, 2.4)))
    assert len(caplog.records) == warned > 0


@pytest.mark.usefixtures("short_warm_up")
def test_what_fails_while_recording_is_a_failed_warm_up():
    broken = engine(TapeRecorder())
    broken.search.decoder.embedding = torch.zeros(60_000, 3)
    with pytest.raises(EngineError, match="the warm-up failed: ") as error:
        broken.warm_up()
    assert "\n" not in str(error.value)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_warmed_up_steps_record_nothing_more(dtype):
    recorded = engine(lambda device: None, device="cuda", dtype=dtype)
    plain = recorded.step(work(3, 4.0))
    recorded = Engine(Model(random_whisper(0, ending=2.0), device="cuda", dtype=dtype, variable_context=True))
    recorded.warm_up()
    passes, steps = len(recorded.model._graphs), len(recorded.search._cache.graphs)
    assert passes >= 5
    assert steps >= 20
    found = recorded.step(work(3, 4.0))
    assert len(recorded.search._cache.graphs) == steps
    if dtype == torch.float32:
        for left, right in zip(found, plain, strict=True):
            assert [word.tokens for word in left.hypothesis.words] == [word.tokens for word in right.hypothesis.words]
