"""Makes the demo of `nano`: a minute in a kitchen, with its truth beside it (`demo_voices` makes the one with people).

People (voices of espeak-ng and flite) talk, a kettle whistles, a smoke alarm sounds, a siren passes. None of the
sentences is in the training text of `nano`; they were chosen among those that it makes out.
`python -m streamer.recipes.demo` writes demo.flac and demo.json into streamer/data.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.voices import Espeak, flite, flite_phones
from streamer.recipes.synthesis.acoustics import in_room, noise, rms
from streamer.recipes.synthesis.alarms import pattern, tone
from streamer.recipes.synthesis.clips import Audio, Clip

SECONDS = 62
SPEED_OF_SOUND = 343.0  # metres a second
SPEECH_LEVEL = 0.07  # rms
NOISE_LEVEL = 0.0012


@dataclass(frozen=True, slots=True)
class Line:
    """Something said at `at_s`: by a voice of flite, or by espeak-ng's `voice` at `pitch` and `rate`."""

    at_s: float
    text: str
    voice: str
    pitch: int = 50
    rate: int = 140


LINES = (
    Line(2.0, "good morning maria", "en-gb+m7", 40, 135),
    Line(4.6, "seven three five call peter again", "en-us+f2", 50, 140),
    Line(9.4, "bus nine four seven two five", "flite:rms"),
    Line(18.0, "two eight six four zero five one", "en-us+f3", 50, 130),
    Line(23.2, "six one eight zero two", "en-us+m3", 45, 130),
    Line(28.3, "nine seven three one five zero", "flite:rms"),
    Line(34.0, "train five two nine zero four", "en-us+Andy", 45, 130),
    Line(39.0, "please call six zero four eight one", "flite:awb"),
    Line(54.2, "help is here anna", "en-gb+m7", 40, 135),
    Line(57.6, "eight six nine two four zero", "en-us+f3", 50, 130),
)
KETTLE_S = (12.6, 22.4)
SMOKE_ALARM_S = (24.8, 44.0)
SIREN_S = (43.0, 56.0)


def make(folder: Path) -> None:
    """Write demo.flac and demo.json into `folder`. The same machine makes the same bytes."""
    random = np.random.default_rng(2026)
    audio = np.zeros(SECONDS * SAMPLE_RATE, np.float32)
    words = [word for line in LINES for word in _say(line, audio, random)]
    mix(audio, kettle(KETTLE_S[1] - KETTLE_S[0], random), KETTLE_S[0], 0.035, random)
    mix(audio, smoke_alarm(SMOKE_ALARM_S[1] - SMOKE_ALARM_S[0]), SMOKE_ALARM_S[0], 0.045, random)
    mix(audio, passing_siren(SIREN_S[1] - SIREN_S[0], random), SIREN_S[0], 0.05, random)
    audio += noise(len(audio), np.random.default_rng(8)) * np.float32(NOISE_LEVEL)
    audio *= np.float32(0.9) / max(0.9, float(np.abs(audio).max()))
    write_flac(audio, folder / "demo.flac")
    events = [("Whistle", KETTLE_S), ("Smoke detector, smoke alarm", SMOKE_ALARM_S), ("Siren", SIREN_S)]
    truth = {
        "name": "demo",
        "seconds": SECONDS,
        "words": words,
        "events": [{"label": label, "start": start, "end": end} for label, (start, end) in events],
        "made": "python -m streamer.recipes.demo (voices: espeak-ng, flite; all sounds synthetic)",
    }
    (folder / "demo.json").write_text(json.dumps(truth, indent=1) + "\n")


def kettle(seconds: float, random: np.random.Generator) -> Audio:
    """A kettle that comes to the boil: steam, then a whistle that rises to 2.6 kHz."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    rise = 1 - 0.35 * np.exp(-time / 1.2)
    flutter = np.cumsum(random.normal(0, 1, len(time))) / np.sqrt(SAMPLE_RATE)
    phase = np.cumsum(2600 * rise * (1 + 0.003 * np.clip(flutter, -4, 4)) / SAMPLE_RATE)
    steam = np.convolve(random.normal(0, 0.08, len(time)), [1, -0.9], mode="same")
    fade = np.clip(time / 0.8, 0, 1) * np.clip((seconds - time) / 0.5, 0, 1)
    return ((np.sin(2 * np.pi * phase) + 0.2 * np.sin(4 * np.pi * phase)) * rise**4 * fade + steam * fade).astype(
        np.float32
    )


def smoke_alarm(seconds: float) -> Audio:
    """The temporal-three pattern of ISO 8201 at 3.1 kHz, from the start of a group."""
    group = [(0.5, 0.5), (0.5, 0.5), (0.5, 1.5)]
    envelope = pattern(seconds, group, random=None)
    phase = np.cumsum(np.full(len(envelope), 3100 / SAMPLE_RATE))
    return (np.sin(2 * np.pi * phase) * envelope).astype(np.float32)


def passing_siren(seconds: float, random: np.random.Generator) -> Audio:
    """A wailing siren that drives past at 15 m/s, 10 m away, with Doppler shift and distance."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    distance = np.hypot(15 * (time - seconds * 0.55), 10)
    heard = time - distance / SPEED_OF_SOUND + 1
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(len(time) + 2 * SAMPLE_RATE) / SAMPLE_RATE / 3.2)
    phase = np.cumsum(650 * (1500 / 650) ** sweep / SAMPLE_RATE)
    source = tone(phase, random)
    wave = np.interp(heard * SAMPLE_RATE, np.arange(len(source)), source) * 10 / distance
    fade = np.clip(time / 0.5, 0, 1) * np.clip((seconds - time) / 0.8, 0, 1)
    return (wave * fade).astype(np.float32)


def write_flac(audio: Audio, path: Path) -> None:
    """float32 [n] in -1..1 as 16 bit FLAC, mono, 16 kHz."""
    samples = np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)[None]
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", options={"compression_level": "12"})
        for start in range(0, samples.shape[1], 4096):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 4096]), "s16", "mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@lru_cache
def _espeak() -> Espeak:
    return Espeak()


def _speak(line: Line) -> Clip:
    words = line.text.split()
    if line.voice.startswith("flite:"):
        clip = flite(words, line.voice.removeprefix("flite:"), flite_phones, stretch=1.1)
    else:
        clip = _espeak().speak(words, line.voice, pitch=line.pitch, spread=50, rate=line.rate)
    if clip is None:
        raise InputError(f"{line.voice} gives no word times for {line.text!r}: choose another voice")
    return clip


def _say(line: Line, audio: Audio, random: np.random.Generator) -> list[dict[str, str | float]]:
    """Mix one line into `audio`; its words with start and end in seconds."""
    clip = _speak(line)
    mix(audio, clip.audio, line.at_s, SPEECH_LEVEL, random)
    return [
        {
            "word": word.text,
            "start": round(line.at_s + word.start / SAMPLE_RATE, 3),
            "end": round(line.at_s + word.end / SAMPLE_RATE, 3),
        }
        for word in clip.words
    ]


def mix(audio: Audio, wave: Audio, at_s: float, level: float, random: np.random.Generator) -> None:
    """Add `wave`, as it sounds in a room, to `audio` from `at_s` on; `level`: rms where it sounds."""
    start = int(at_s * SAMPLE_RATE)
    wet = 0.7 * wave + 0.3 * in_room(wave, random)
    loud = rms(wet[np.abs(wet) > 0.05 * np.abs(wet).max()])
    wet = (wet * (level / loud))[: len(audio) - start]
    audio[start : start + len(wet)] += wet.astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m streamer.recipes.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data")
    make(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
