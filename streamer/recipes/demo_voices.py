"""Makes the bundled demo with people: two public-domain voices and a smoke alarm, with the truth beside it.

Both read for LibriVox, whose recordings are in the public domain: Linda Johnson (as LJ Speech 1.1 cut it), and the
reader of chapter 1 of Jane Austen's Sense and Sensibility (as pocketsphinx's tests cut it). The alarm is synthetic.
`python -m streamer.recipes.demo_voices RECORDINGS` writes demo_voices.ogg and .json to streamer/data; somewhere in
RECORDINGS lie the FLAC files that LINES names, 16 kHz or more.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from streamer.audio.files import read_audio
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.recipes.demo import mix, smoke_alarm
from streamer.recipes.synthesis.acoustics import noise, rms
from streamer.recipes.synthesis.clips import Audio

SECONDS = 52
SPEECH_LEVEL, ALARM_LEVEL, NOISE_LEVEL = 0.07, 0.05, 0.0008  # rms
ALARM_S = (25.0, 37.5)  # the first beep; the end of the third group
BIT_RATE = 48_000
LICENCE = "public domain (LibriVox)"
LJ = "Linda Johnson, LJ Speech 1.1"
AUSTEN = "a LibriVox volunteer, Sense and Sensibility, chapter 1 (pocketsphinx, test/data/librivox)"


@dataclass(frozen=True, slots=True)
class Line:
    """What `voice` says from `at_s` on; `file`: the recording, without suffix."""

    at_s: float
    voice: str
    file: str
    text: str


LINES = (
    Line(
        1.0,
        AUSTEN,
        "sense_and_sensibility_01_austen_64kb-0890",
        "Unless to be rather cold-hearted and rather selfish is to be ill-disposed.",
    ),
    Line(
        8.0,
        LJ,
        "LJ001-0021",
        "The earliest book printed with movable type, the aforesaid Gutenberg Bible, "
        "is printed in letters which are an exact imitation",
    ),
    Line(
        17.8,
        AUSTEN,
        "sense_and_sensibility_01_austen_64kb-0920",
        "Had he married a more amiable woman, he might have been made still more respectable than he was.",
    ),
    Line(39.0, LJ, "LJ001-0141", "The general solidity of a page is much to be sought for"),
    Line(44.4, LJ, "LJ001-0081", "type cast from his matrices is still in everyday use."),
)


def make(recordings: Path, folder: Path) -> None:
    """Write demo_voices.ogg and demo_voices.json into `folder`. InputError where a recording is missing."""
    random = np.random.default_rng(2026)
    audio = noise(SECONDS * SAMPLE_RATE, np.random.default_rng(8)) * np.float32(NOISE_LEVEL)
    said = []
    for line in LINES:
        voice = read_audio(str(_found(recordings, line.file)))
        start = round(line.at_s * SAMPLE_RATE)
        loud = rms(voice[np.abs(voice) > 0.05 * np.abs(voice).max()])
        audio[start : start + len(voice)] += (voice * (SPEECH_LEVEL / loud)).astype(np.float32)
        said.append(
            {
                "text": line.text,
                "start": line.at_s,
                "end": round(line.at_s + len(voice) / SAMPLE_RATE, 2),
                "recording": line.file,
                "voice": line.voice,
                "licence": LICENCE,
            }
        )
    mix(audio, smoke_alarm(ALARM_S[1] - ALARM_S[0]), ALARM_S[0], ALARM_LEVEL, random)
    audio *= np.float32(0.9) / max(0.9, float(np.abs(audio).max()))
    _write_opus(audio, folder / "demo_voices.ogg")
    alarm = {
        "label": "Smoke detector, smoke alarm",
        "start": ALARM_S[0],
        "end": ALARM_S[1],
        "source": "synthetic: three beeps of 3.1 kHz and a pause (ISO 8201)",
        "licence": "MIT, as the code",
    }
    truth = {
        "name": "demo_voices",
        "seconds": SECONDS,
        "segments": said,
        "events": [alarm],
        "made": "python -m streamer.recipes.demo_voices",
    }
    (folder / "demo_voices.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _found(recordings: Path, stem: str) -> Path:
    path = next(recordings.rglob(f"{stem}.flac"), None)
    if path is None:
        raise InputError(f"{recordings}: {stem}.flac is not there; the docstring of this module says where to get it")
    return path


def _write_opus(audio: Audio, path: Path) -> None:
    """float32 [n] in -1..1 as Opus, mono."""
    samples = np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)[None]
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = BIT_RATE
        for start in range(0, samples.shape[1], 320):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 320]), "s16", "mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m streamer.recipes.demo_voices", description=__doc__)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data")
    given = parser.parse_args(arguments)
    make(given.recordings, given.out)


if __name__ == "__main__":
    main()
