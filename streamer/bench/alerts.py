"""How well alarms are heard: recall, latency and false alarms of the cadence detector and the alert rules.

    main()                     the judging set: other seeds and wider ranges than the detector was built on
    main(development=True)     the set to build on

Backgrounds are speech, sounds and music: from a directory with `manifest.csv` (columns path, kind, split) if there is
one, else synthesised. SNR: RMS of the alarm while it is on, to the RMS of the whole background.
"""

import csv
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr

from streamer.bench import sounds
from streamer.bench.sounds import DEVELOPMENT, JUDGING, Generator, Samples, Spread
from streamer.events import SAMPLE_RATE, Alert
from streamer.sound.alerts import AlertChange, AlertEngine, AlertInput
from streamer.sound.cadence import CadenceDetector

RULE_OF = {"t3": "smoke_alarm", "t4": "co_alarm", "wail": "siren", "yelp": "siren", "hilo": "siren"}
SNRS_DB = (20, 10, 0, -10)
LEVEL = 0.05  # RMS of the background: -26 dBFS
LEAD_S, ALARM_S, TAIL_S = 8.0, 24.0, 11.0
HOP = 8_000
SENTENCES = (
    "The meeting starts at nine, please bring the papers with you.",
    "Have you seen where I put the keys? I think they were on the kitchen table.",
    "Tomorrow it will be sunny in the north, with a little rain in the west.",
    "We could take the early train and be there before lunch, if that suits you.",
    "She said seven or eight people would come, so we need more chairs.",
)

Listener = Callable[[Samples], list[AlertChange]]


@dataclass(frozen=True, slots=True)
class Trial:
    """One alarm in one background; times in seconds. `latency_s` None: missed. `offset_s` after the last tone."""

    kind: str
    background: str
    snr_db: int
    period_s: float
    latency_s: float | None
    offset_s: float | None
    confused: bool


@dataclass(slots=True)
class Pools:
    """Recordings to compose backgrounds from; empty pools fall back on what can be synthesised."""

    speech: list[Samples] = field(default_factory=list)
    sounds: list[Samples] = field(default_factory=list)

    def background(self, kind: str, rng: Generator, seconds: float, spread: Spread) -> Samples:
        """`speech`, `household` or `music` of that length with an RMS of 1."""
        if kind == "speech" and self.speech:
            return _strung(rng, self.speech, seconds, pause_s=0.4)
        if kind == "household" and self.sounds and rng.random() < 0.7:
            return _strung(rng, self.sounds, seconds, pause_s=0.0)
        maker = sounds.music if kind == "music" else sounds.household
        return maker(rng, seconds, spread).samples


def load(path: Path) -> Samples:
    """An audio file as float32 mono at 16 kHz."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    samples = np.concatenate(parts).astype(np.float32)
    return samples if rate == SAMPLE_RATE else np.asarray(soxr.resample(samples, rate, SAMPLE_RATE), np.float32)


def read_pools(data: Path | None, development: bool) -> Pools:
    """Speech and sounds: the train split and espeak-ng's voices to build on, the test split to judge."""
    pools = Pools()
    if data is not None and (data / "manifest.csv").exists():
        split = "train" if development else "test"
        with (data / "manifest.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        loud = {"siren", "clock_alarm"}  # true alarms would be right to raise
        pools.sounds = [
            load(data / row["path"]) for row in rows if row["kind"] != "speech" and row["category"] not in loud
        ]
        if not development:
            pools.speech = [load(data / row["path"]) for row in rows if row["kind"] == "speech"]
    if not pools.speech and shutil.which("espeak-ng"):
        pools.speech = [_espoken(text, voice) for text in SENTENCES for voice in ("en", "en-us+f3", "en+m7", "en+f5")]
    return pools


def listen(samples: Samples) -> list[AlertChange]:
    """What the default rules raise and clear on this audio by the signal's patterns alone."""
    engine, detector, changes = AlertEngine(), CadenceDetector(), []
    for end in range(HOP, samples.size + 1, HOP):
        states = detector.step(samples[end - HOP : end], end)
        changes += engine.step(AlertInput(end_sample=end, cadence=tuple(states)))
    return changes + engine.finish(samples.size // HOP * HOP)


def engine_listener(name: str = "nano") -> Listener:
    """The whole engine with this model: patterns and tagging head together. Slower by far."""
    import streamer

    model = streamer.load_model(name)

    def whole(samples: Samples) -> list[AlertChange]:
        stream = streamer.Stream(model)
        events = [*stream.push(samples), *stream.finish()]
        return [_change(event) for event in events if isinstance(event, Alert)]

    return whole


def compose(
    kind: str, background: str, snr_db: float, rng: Generator, pools: Pools, spread: Spread
) -> tuple[Samples, sounds.Sound]:
    """A scene: background throughout, the alarm from LEAD_S on, in a room; float32 below full scale."""
    sound = sounds.ALARMS[kind](rng, ALARM_S, spread)
    wet = sounds.room(rng, sound.samples, rng.uniform(0, spread.rt60_s))
    scene = pools.background(background, rng, LEAD_S + ALARM_S + TAIL_S, spread) * LEVEL
    start = round(LEAD_S * SAMPLE_RATE)
    scene[start : start + wet.size] += wet * np.float32(LEVEL * 10 ** (snr_db / 20))
    return (scene * np.float32(min(1.0, 0.9 / np.abs(scene).max()))).astype(np.float32), sound


def attempt(
    kind: str, background: str, snr_db: int, rng: Generator, pools: Pools, spread: Spread, listener: Listener
) -> Trial:
    """Compose one scene, listen, and compare with the truth."""
    scene, sound = compose(kind, background, snr_db, rng, pools, spread)
    changes = listener(scene)
    raised = [change for change in changes if change.state == "raised" and change.at_sample > LEAD_S * SAMPLE_RATE]
    own = [
        change
        for change in raised
        if change.rule == RULE_OF[kind] and change.at_sample <= (LEAD_S + sound.end_s + 1) * SAMPLE_RATE
    ]
    other = {rule for rule in RULE_OF.values() if rule != RULE_OF[kind]}
    end_s = LEAD_S + sound.end_s
    ids = {change.id for change in own}
    ends = [
        change.at_sample / SAMPLE_RATE - end_s for change in changes if change.id in ids and change.state == "cleared"
    ]
    return Trial(
        kind=kind,
        background=background,
        snr_db=snr_db,
        period_s=sound.period_s,
        latency_s=own[0].at_sample / SAMPLE_RATE - LEAD_S if own else None,
        offset_s=ends[-1] if ends else None,
        confused=any(change.rule in other for change in raised),
    )


def recall_table(
    kinds: Sequence[str], trials: int, seed: int, pools: Pools, spread: Spread, listener: Listener = listen
) -> list[dict[str, Any]]:
    """One row per kind, background and SNR."""
    rows = []
    for kind in kinds:
        for background in ("speech", "household", "music"):
            for snr in SNRS_DB:
                rng = np.random.default_rng([seed, list(sounds.ALARMS).index(kind), snr + 100, len(background)])
                rows.append(_row([attempt(kind, background, snr, rng, pools, spread, listener) for _ in range(trials)]))
    return rows


def distractor_table(
    seconds_each: float, seed: int, pools: Pools, spread: Spread, listener: Listener = listen
) -> list[dict[str, Any]]:
    """Critical alerts that each distractor raises; half of the time there is speech around it."""
    rows = []
    for number, (name, maker) in enumerate(sounds.DISTRACTORS.items()):
        rng, heard, raised = np.random.default_rng([seed, 7, number]), 0.0, []
        while heard < seconds_each:
            scene = sounds.room(rng, maker(rng, 60.0, spread).samples, rng.uniform(0, spread.rt60_s)) * LEVEL
            if rng.random() < 0.5:
                scene = scene + pools.background("speech", rng, 60.0, spread) * np.float32(LEVEL * rng.uniform(0.1, 1))
            raised += _critical(listener(scene.astype(np.float32)))
            heard += 60.0
        rows.append({"sound": name, "minutes": heard / 60, "critical": len(raised), "rules": sorted(set(raised))})
    return rows


def false_alarms(hours: float, seed: int, pools: Pools, spread: Spread, listener: Listener = listen) -> dict[str, Any]:
    """Critical alerts per hour of speech, household sounds and music without any alarm, with the 95 % Poisson bound."""
    rng, heard, raised = np.random.default_rng([seed, 11]), 0.0, []
    while heard < hours * 3600:
        kind = ("speech", "household", "music")[int(rng.integers(3))]
        scene = pools.background(kind, rng, 120.0, spread) * np.float32(LEVEL)
        if rng.random() < 0.5:
            scene = scene + pools.background("household", rng, 120.0, spread) * np.float32(LEVEL * rng.uniform(0.1, 1))
        raised += [(kind, rule) for rule in _critical(listener(scene.astype(np.float32)))]
        heard += 120.0
    return {
        "hours": heard / 3600,
        "critical": len(raised),
        "what": raised,
        "bound_per_hour": _poisson_bound(len(raised)) / (heard / 3600),
    }


def main(
    *,
    development: bool = False,
    trials: int = 10,
    hours: float = 1.0,
    seed: int = 20_261_123,
    data: Path | None = Path("../shared/data"),
    kinds: Sequence[str] = tuple(sounds.ALARMS),
    listener: Listener = listen,
) -> dict[str, Any]:
    """All tables. `listener`: the patterns alone, or `engine_listener()`."""
    spread = DEVELOPMENT if development else JUDGING
    pools = read_pools(data, development)
    seed = 1 if development else seed
    return {
        "set": "development" if development else "judging",
        "listener": listener.__qualname__,
        "recall": recall_table(kinds, trials, seed, pools, spread, listener),
        "distractors": distractor_table(hours * 600, seed, pools, spread, listener),
        "false_alarms": false_alarms(hours, seed, pools, spread, listener),
    }


def _row(done: Sequence[Trial]) -> dict[str, Any]:
    first = done[0]
    latencies = [trial.latency_s for trial in done if trial.latency_s is not None]
    offsets = [trial.offset_s for trial in done if trial.offset_s is not None]
    in_time = [
        trial.latency_s is not None and trial.period_s > 0 and trial.latency_s <= 1.5 * trial.period_s for trial in done
    ]
    return {
        "kind": first.kind,
        "background": first.background,
        "snr_db": first.snr_db,
        "trials": len(done),
        "recall": len(latencies) / len(done),
        "in_1.5_periods": sum(in_time) / len(done),
        "latency_p50_s": _quantile(latencies, 0.5),
        "latency_p95_s": _quantile(latencies, 0.95),
        "offset_p95_s": _quantile(offsets, 0.95),
        "confused": sum(trial.confused for trial in done) / len(done),
    }


def _change(event: Alert) -> AlertChange:
    def samples(seconds: float) -> int:
        return round(seconds * SAMPLE_RATE)

    return AlertChange(
        at_sample=samples(event.audio_t),
        id=event.id,
        rule=event.rule,
        severity=event.severity,
        state=event.state,
        start_sample=samples(event.start),
        end_sample=None if event.end is None else samples(event.end),
        score=event.score,
        labels=event.labels,
        heard=event.heard,
        text=event.text,
    )


def _critical(changes: Sequence[AlertChange]) -> list[str]:
    return [change.rule for change in changes if change.state == "raised" and change.severity == "critical"]


def _quantile(values: Sequence[float], q: float) -> float | None:
    return round(float(np.quantile(values, q)), 2) if values else None


def _poisson_bound(count: int) -> float:
    """Upper 95 % bound of a Poisson mean after `count` events (one-sided, exact, by bisection)."""
    low, high = 0.0, 10.0 + 3 * count
    for _ in range(60):
        middle = (low + high) / 2
        terms = np.cumprod(np.concatenate([[1.0], middle / np.arange(1, count + 1)]))
        low, high = (middle, high) if np.exp(-middle) * terms.sum() > 0.05 else (low, middle)
    return high


def _strung(rng: Generator, clips: Sequence[Samples], seconds: float, pause_s: float) -> Samples:
    """Clips one after the other with random pauses, each at about the same level; RMS of 1."""
    wanted, parts, have = round(seconds * SAMPLE_RATE), [], 0
    while have < wanted:
        clip = clips[int(rng.integers(len(clips)))]
        level = float(np.sqrt(np.mean(clip**2))) + 1e-6
        pause = np.zeros(round(rng.exponential(pause_s) * SAMPLE_RATE) if pause_s else 0, np.float32)
        parts += [clip * np.float32(rng.uniform(0.6, 1.2) / level), pause]
        have += clip.size + pause.size
    out = np.concatenate(parts)[:wanted].astype(np.float32)
    return out / max(float(np.sqrt(np.mean(out**2))), 1e-6)


def _espoken(text: str, voice: str) -> Samples:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True, capture_output=True)
        return load(path)
