"""Engines of random weights that record their work or do not, their windows, and what equal results are."""

import numpy as np
import pytest
import torch
from random_whisper import noise_frames, random_whisper

from streamer.events.plans import DecodeTask, StepRequest
from streamer.model.engine import Engine
from streamer.model.head import HeadKind, HeadModule, HeadShape, TaggingHead
from streamer.model.whisper import Model

SECOND = 16_000
SPANS = (2.0, 5.0, 10.0)


def engine(recorder, seed: int = 0, *, min_context_s: float = 1.0, **options) -> Engine:
    torch.manual_seed(seed + 1000)
    head = TaggingHead("random", HeadModule(HeadShape(HeadKind.TL_TR, width=64)).eval())
    module = random_whisper(seed, ending=2.0)
    return Engine(
        Model(module, head=head, variable_context=True, min_context_s=min_context_s, recorder=recorder, **options),
        context="fit",
    )


def work(count: int, length_s: float):
    return [
        (
            noise_frames(place, length_s),
            StepRequest(
                0,
                round(length_s * SECOND),
                SPANS[: place + 1],
                DecodeTask(language="en", prefix=tuple(range(400, 400 + 30 * place)), max_new_tokens=12),
            ),
        )
        for place in range(count)
    ]


def same(ours, theirs):
    for left, right in zip(ours, theirs, strict=True):
        said = [[(word.tokens, word.start_sample) for word in item.hypothesis.words] for item in (left, right)]
        assert said[0] == said[1]
        assert left.hypothesis.mean_logprob == pytest.approx(right.hypothesis.mean_logprob, abs=1e-4)
        for one, other in zip(left.judgement, right.judgement, strict=True):
            assert (one.start_sample, one.end_sample) == (other.start_sample, other.end_sample)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
