"""The whole engine on a small random model with a random head: chunking, cuts, losses, silence, PROTOCOL's promises."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from protocol import check_session
from random_whisper import random_whisper

from streamer.audio.block import AudioBlock, empty
from streamer.errors import InputError
from streamer.events import Alert, Event
from streamer.events.plans import AudioLost, StateChanged
from streamer.model.head import HeadKind, HeadModule, HeadShape, TaggingHead
from streamer.model.whisper import Model
from streamer.recipes.synthesis.sounds import ALARMS, DEVELOPMENT
from streamer.runtime.stream import Listener, Stream
from streamer.settings.config import GuardSettings, Settings, VadSettings, WindowSettings
from streamer.settings.rules import AlertRule, AlertRules

RATE = 16_000
OPEN_GUARDS = GuardSettings(silence=False, speech_tag=False, loops=False)
BUZZ = VadSettings(speech_probability=0)  # webrtcvad alone takes it for a voice
SETTINGS = Settings(guards=OPEN_GUARDS, vad=BUZZ)


@functools.cache
def model(head: bool = True) -> Model:
    torch.manual_seed(1)
    random_head = TaggingHead("random", HeadModule(HeadShape(HeadKind.TL_TR, layers=2, width=64, classes=527)))
    for parameter in random_head.module.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return Model(
        random_whisper(3, vocabulary=51864, ending=2.0),
        name="random",
        head=random_head if head else None,
        dtype=torch.float32,
        variable_context=True,
        min_context_s=1.0,
    )


@functools.cache
def voices(seed: int = 0, seconds: float = 9.0) -> NDArray[np.float32]:
    """Bursts of a buzzing tone with a changing pitch, which webrtcvad takes for a voice, with pauses between."""
    generator = np.random.default_rng(seed)
    count = round(seconds * RATE)
    t = np.arange(count) / RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t) + 10 * generator.standard_normal()
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    buzz = sum(np.sin(order * phase) / order for order in range(1, 25))
    on = (np.sin(2 * np.pi * 0.31 * t + generator.uniform(0, 6)) > -0.4) * (np.sin(2 * np.pi * 3 * t) > -0.6)
    return (0.1 * buzz * on + 0.0005 * generator.standard_normal(count)).astype(np.float32)


def run(samples: NDArray[np.float32], config: Settings = SETTINGS, cuts: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    stream = Stream(model(), config)
    events = []
    for piece in np.split(samples, sorted(cut % (len(samples) + 1) for cut in cuts)):
        events += stream.push(piece)
    return [event.to_dict() for event in events + stream.finish()]


@functools.cache
def whole() -> list[dict[str, Any]]:
    return run(voices())


def test_there_is_something_to_compare():
    kinds = [event["type"] for event in whole()]
    assert kinds.count("tags") == 9
    assert kinds.count("transcript") > 3
    assert any(event["type"] == "transcript" and event["words"] for event in whole())
    check_session(whole())


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=40).map(tuple))
def test_any_chunking_gives_the_same_events(cuts):
    assert run(voices(), cuts=cuts) == whole()


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 9 * RATE))
def test_a_cut_stream_gives_the_first_events_of_the_whole(cut):
    cut_events = run(voices()[:cut])
    check_session(cut_events)
    before = [event for event in whole() if event["audio_t"] < cut / RATE]
    assert cut_events[: len(before)] == before


@pytest.mark.parametrize("hop_s", [0.2, 1.0])
def test_at_most_one_pass_a_hop(hop_s):
    counted = model()
    config = SETTINGS.model_copy(
        update={"window": WindowSettings(hop_s=hop_s), "vad": SETTINGS.vad.model_copy(update={"hangover_ms": 1000})}
    )
    before = counted.encoder_passes
    check_session(run(voices(), config))
    assert 9 <= counted.encoder_passes - before <= 9 / hop_s


@pytest.mark.parametrize("kind", ["t3", "yelp"])
def test_an_alarm_need_not_wait_for_the_hop(kind):
    """Patterns need no model: what they raise and clear comes at the next beat, however long the hop is."""
    alarm = ALARMS[kind](np.random.default_rng(3), 9.0, DEVELOPMENT).samples * np.float32(0.1)
    samples = np.concatenate([np.zeros(20_000, np.float32), alarm, np.zeros(RATE * 7, np.float32)])
    by_pattern = AlertRules(defaults=False, rules=(AlertRule(id="alarm", cadence=(kind,)),))

    def alerts(hop_s: float) -> list[tuple[Any, ...]]:
        changed = {"window": WindowSettings(hop_s=hop_s), "alerts": by_pattern}
        stream = Stream(model(head=False), SETTINGS.model_copy(update=changed))
        events = [event.to_dict() for event in [*stream.push(samples), *stream.finish()]]
        check_session(events)
        return [
            tuple(event[name] for name in ("rule", "state", "audio_t", "start", "end"))
            for event in events
            if event["type"] == "alert"
        ]

    found = alerts(0.1)
    assert [state for _, state, *_ in found] == ["raised", "cleared"]
    assert alerts(0.5) == alerts(1.0) == found


def test_digital_silence_is_not_encoded_and_the_clock_goes_on():
    counted = model()
    before = counted.encoder_passes
    events = run(np.zeros(5 * RATE, np.float32))
    assert counted.encoder_passes == before
    assert [event["tags"] for event in events if event["type"] == "tags"] == [[]] * 5
    check_session(events)


def test_faint_noise_is_heard_though_nobody_speaks():
    counted = model()
    before = counted.encoder_passes
    faint = (np.random.default_rng(0).standard_normal(5 * RATE) * 1e-4).astype(np.float32)
    events = run(faint)
    assert counted.encoder_passes - before == 5
    assert [event["end"] for event in events if event["type"] == "tags"] == [1, 2, 3, 4, 5]
    assert not [event for event in events if event["type"] == "transcript"]


def test_lost_samples_are_a_gap_with_exact_samples_and_the_clock_goes_on():
    stream = Stream(model(), SETTINGS)
    events = stream.push(voices()[:20_000])
    events += stream.lost(10_001, "the wire was cut")
    events += stream.push(voices()[20_000:40_000])
    found = [event.to_dict() for event in events + stream.finish()]
    check_session(found)
    (gap,) = [event for event in found if event["type"] == "gap"]
    assert (gap["start"], gap["end"]) == (20_000 / RATE, round(30_001 / RATE, 6))
    assert gap["reason"] == "the wire was cut"
    assert found[-1]["audio_t"] == round(50_001 / RATE, 6)


def test_lost_audio_is_not_taken_for_silence():
    quiet = AlertRule(id="quiet", silence_dbfs=-80, min_duration_s=3)
    config = SETTINGS.model_copy(update={"alerts": AlertRules(defaults=False, rules=(quiet,))})

    def states(deliver: Callable[[Stream], list[Event]]) -> list[str]:
        stream = Stream(model(head=False), config)
        stream.push(voices()[:RATE])
        return [event.state for _ in range(6) for event in deliver(stream) if isinstance(event, Alert)]

    assert states(lambda stream: stream.push(np.zeros(RATE))) == ["raised"]
    assert states(lambda stream: stream.lost(RATE, "the wire was cut")) == []
    assert states(lambda stream: stream.lost(6 * RATE, "a hole in a file")) == []
    assert states(lambda stream: stream.push(np.full(RATE, np.nan))) == []


def test_values_that_are_not_finite_become_a_gap_and_go_no_further():
    broken = voices().copy()
    broken[30_000:30_010] = np.nan
    broken[50_000] = np.inf
    events = run(broken)
    check_session(events)
    gaps = [(event["start"], event["end"]) for event in events if event["type"] == "gap"]
    assert gaps == [(30_000 / RATE, 30_010 / RATE), (50_000 / RATE, round(50_001 / RATE, 6))]


def test_a_microphone_that_is_broken_for_long_is_few_gaps_that_grow():
    broken = voices()[: 20 * RATE].copy() if len(voices()) >= 20 * RATE else np.tile(voices(), 20)[: 20 * RATE].copy()
    broken[RATE : 14 * RATE] = np.nan
    events = run(broken)
    check_session(events)
    gaps = [(event["start"], event["end"]) for event in events if event["type"] == "gap"]
    assert gaps == [(1, 2), (2, 3), (3, 5), (5, 9), (9, 14)]


def test_text_is_the_same_with_and_without_a_head():
    config = SETTINGS
    with_head = [e.to_dict() for e in _events(Stream(model(), config))]
    without = [e.to_dict() for e in _events(Stream(model(head=False), config))]
    texts = [
        [(event["text"], event["partial"]) for event in events if event["type"] == "transcript"]
        for events in (with_head, without)
    ]
    assert texts[0] == texts[1]
    assert texts[0]
    assert not [event for event in without if event["type"] in ("tags", "sound")]


def _events(stream: Stream) -> list[Any]:
    return stream.push(voices()) + stream.finish()


@pytest.mark.parametrize(
    "samples", [np.zeros((2, 3), np.float32), np.zeros(3, np.int16), [["a"]], np.zeros(4, np.complex64)]
)
def test_wrong_samples_are_refused_in_one_line(samples):
    with pytest.raises(InputError, match=r"samples: must be a float32 array of one dimension") as caught:
        Stream(model()).push(samples)
    assert "\n" not in str(caught.value)


def test_a_finished_stream_takes_no_more():
    stream = Stream(model())
    assert [event.type for event in stream.finish()] == ["status", "status"]
    with pytest.raises(InputError, match="finished"):
        stream.push(np.zeros(10, np.float32))


def test_acknowledge_and_flush_work_between_pushes():
    stream = Stream(model(), SETTINGS)
    events = stream.push(voices()[: 3 * RATE])
    events += stream.session.flush()
    events += stream.session.acknowledge(999)
    events += stream.push(voices()[3 * RATE :]) + stream.finish()
    check_session([event.to_dict() for event in events])


NEWS = {
    6_000: [AudioBlock(empty(), state="degraded", reason=why) for why in ("damaged", "damaged again")],
    9_001: [AudioBlock(empty(), 30_123, "unplugged")],
    40_000: [AudioBlock(empty(), notice="track 2 is heard")],
}


def planned(cuts: list[int]) -> list[tuple[Any, ...]]:
    """The plans of three seconds with all of NEWS in its place, the sound between in blocks that end at `cuts`."""
    listener, samples, plans = Listener(SETTINGS), voices()[: 3 * RATE], []
    edges = sorted({0, *NEWS, *(cut % len(samples) for cut in cuts), len(samples)})
    for start, end in itertools.pairwise(edges):
        for block in [*NEWS.get(start, []), AudioBlock(samples[start:end])]:
            plans += listener.hear(block)
    plans += listener.finish()
    return [
        (type(plan), *(value.tobytes() if isinstance(value, np.ndarray) else value for value in astuple(plan)))
        for plan in plans
    ]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3 * RATE), max_size=30))
def test_blocks_of_any_length_give_the_same_plans(cuts):
    assert planned(cuts) == planned([])


def test_what_is_new_of_the_source_is_planned_in_its_place():
    plans = planned([])
    frame = 320  # what is not a whole frame yet is not known
    assert [plan[1:] for plan in plans if plan[0] is StateChanged] == [
        (6_000 // frame * frame, "degraded", "damaged"),
        (6_000 // frame * frame, "degraded", "damaged again"),
        (6_000 // frame * frame, "listening", ""),
        ((40_000 + 30_123) // frame * frame, "listening", "track 2 is heard"),
    ]
    (lost,) = [plan for plan in plans if plan[0] is AudioLost]
    assert lost[2:] == (9_001, 9_001 + 30_123, "unplugged")
