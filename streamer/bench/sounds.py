"""`streamer bench sounds`: what recordings raise and score, alone and under speech and music, beside YAMNet.

Alone: 3 s of faint noise, the recording (120 s at most), 6 s of faint noise. Mixed: the same under speech and under
music that last throughout, so much quieter than the recording (dB of mean power) as the table says. A rule that ought
to be raised is timed from the recording's start, by the audio that was needed. All other alerts are false, and so are
those before the start, but for rules that a set may raise too and for rules that are not about sounds. Which rules
belong to a recording says its manifest (column `alert`), else the name of its set; `ref` `S?` marks a doubtful one,
which is counted apart. What is measured of these is in `streamer.bench.sound_scores`.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.bench.sound_scores import ALONE, LABELS, Heard, Raised, expected, summary
from streamer.bench.yamnet import YamNet
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Alert, Event, Tags
from streamer.measure.recordings import (
    AFTER_S,
    BEFORE_S,
    NO_RULE,
    SOUNDS,
    Recording,
    in_a_quiet_room,
    without_extensions,
)
from streamer.model.machine_facts import load, machine_facts
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings
from streamer.sound.labels import labels

LONGEST_S = 120.0  # of a recording
PUSHED_SAMPLES = SAMPLE_RATE // 2  # at most one judgement each
UNDER = ("speech", "music")
MIXED_DB = (20, 10, 0)
Samples = NDArray[np.float32]


class Listener(Protocol):
    """What hears sounds and raises alerts; `listen` is told of each recording afresh."""

    name: str

    def listen(self, room: Samples) -> tuple[list[Raised], dict[str, Samples]]:
        """Alerts on samples, float32 [n] at 16 kHz, timed from the first of them; and by rule a score each second."""
        ...


class Ours:
    """The whole engine. The scores of a rule: the best of its labels in `tags`, before the least ones are left out."""

    name = "streamer"

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model, self._settings = model, settings
        places = {label.name: label.index for label in labels()}
        self._places = {rule: [places[name] for name in names] for rule, names in LABELS.items()}

    def listen(self, room: Samples) -> tuple[list[Raised], dict[str, Samples]]:
        """As `Listener.listen`; no scores without a head."""
        stream = Stream(self._model, self._settings)
        count = -(-len(room) // SAMPLE_RATE)
        scores = {rule: np.zeros(count, np.float32) for rule in self._places}
        events: list[Event] = []
        for start in range(0, len(room), PUSHED_SAMPLES):
            fresh = stream.push(room[start : start + PUSHED_SAMPLES])
            found = stream.session._scores  # of all classes: the event tells of ten
            for event in fresh:
                second = round(event.audio_t) - 1
                if isinstance(event, Tags) and found is not None and 0 <= second < count:
                    for rule, places in self._places.items():
                        scores[rule][second] = found[places].max()
            events += fresh
        raised = [
            Raised(event.rule, event.severity, event.audio_t, round(event.score, 3), event.labels)
            for event in (*events, *stream.finish())
            if isinstance(event, Alert) and event.state == "raised"
        ]
        return raised, scores if self._model.head else {}


def measure(
    model: Model,
    settings: Settings,
    recordings: Sequence[Recording],
    peer: Path | None = None,
    beds: Sequence[Recording] = (),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Hear every recording, and where there are `beds`, each of `sounds/…` under speech and music.

    Raises InputError for a rule that there is not and for beds without speech or music, UsageError for the peer.
    """
    rules = {rule.id: rule.severity for rule in settings.alerts.rules if rule.enabled}
    wanted = [expected(recording, rules) for recording in recordings]
    listeners: list[Listener] = [Ours(model, settings)]
    if peer:
        listeners.append(YamNet(peer, rules))
    result = {
        "bench": "sounds",
        "machine": machine_facts(torch.get_num_threads(), model.device),
        "model": model.name,
        "head": model.head.name if model.head else None,
        "dtype": model.precision,
        "peer": str(peer) if peer else None,
    }
    grounds = Beds(beds) if beds else None
    heard, known = [], set()
    for number, (recording, own) in enumerate(zip(recordings, wanted, strict=True), 1):
        name = without_extensions(recording.name)
        if name in known:  # the same in another format
            continue
        known.add(name)
        samples = recording.samples()[: round(LONGEST_S * SAMPLE_RATE)]
        for condition, room in _rooms(recording, samples, number, grounds):
            for listener in listeners:
                raised, scores = listener.listen(room)
                heard.append(_judge(listener.name, condition, recording, own, raised, scores, len(samples)))
                said = ", ".join(f"{one.rule} {one.at_s:.1f} s" for one in heard[-1].raised)
                say(f"sounds: {number} of {len(recordings)}, {recording.name}, {condition}: {said or 'none'}")
    return {**result, **summary(heard, rules), "load_after": load()}


def _rooms(recording: Recording, samples: Samples, number: int, beds: "Beds | None") -> Iterator[tuple[str, Samples]]:
    """The conditions that a recording is heard in, by name."""
    room = in_a_quiet_room(samples)
    yield ALONE, room
    if beds is None or not recording.set.startswith(SOUNDS) or not samples.any():
        return
    for kind in UNDER:
        bed = beds.bed(kind, number, len(room), recording.path)
        for quieter_db in MIXED_DB:
            yield f"{kind}, {quieter_db} dB", mixed(room, bed, _power(samples), quieter_db)


class Beds:
    """Recordings to mix with. Raises InputError where there is no speech or no music."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        music = [each for each in recordings if "music" in each.set.rpartition("/")[2]]
        speech = [each for each in recordings if not each.set.startswith(SOUNDS) and each not in music]
        self._kinds = dict(zip(UNDER, (speech, music), strict=True))
        for kind, found in self._kinds.items():
            if not found:
                raise InputError(f"--under: no {kind}: speech is what is not in sounds/…, music a set named …music")

    def bed(self, kind: str, number: int, length: int, without: Path) -> Samples:
        """So many samples, float32, of recordings one after the other from the `number`-th on, `without` left out.

        Raises InputError where nothing else is there to be heard.
        """
        found = [each for each in self._kinds[kind] if each.path != without]
        parts: list[Samples] = []
        for place in range(len(found)):
            parts.append(found[(number + place) % len(found)].samples())
            if sum(map(len, parts)) >= length:
                break
        if not any(part.any() for part in parts):
            raise InputError(f"--under: no {kind} but silence and {without.name} itself")
        return np.resize(np.concatenate(parts), length)


def mixed(room: Samples, bed: Samples, power: float, quieter_db: float) -> Samples:
    """The room with the bed so many dB below `power`, both quieter where their sum would clip; float32 [n]."""
    level = np.sqrt(power / (_power(bed) * 10 ** (quieter_db / 10)))
    both = room + np.float32(level) * bed
    return (both / max(1.0, float(np.abs(both).max()))).astype(np.float32)


def _power(samples: Samples) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def _judge(
    listener: str,
    condition: str,
    recording: Recording,
    rules: Sequence[str],
    raised: Sequence[Raised],
    scores: dict[str, Samples],
    length: int,
) -> Heard:
    """What a listener made of one room, on the recording's own clock."""
    seconds = length / SAMPLE_RATE
    first = round(BEFORE_S)
    return Heard(
        listener=listener,
        condition=condition,
        recording=recording.name,
        set=recording.set,
        seconds=seconds,
        exposed_s=seconds if condition == ALONE else seconds + BEFORE_S + AFTER_S,
        wanted=None if rules[0] == NO_RULE else rules[0],
        allowed=tuple(rules),
        doubtful=recording.doubtful,
        raised=tuple(one.since(BEFORE_S) for one in raised),
        scores={rule: values[first : first + max(1, -(-length // SAMPLE_RATE))] for rule, values in scores.items()},
    )
