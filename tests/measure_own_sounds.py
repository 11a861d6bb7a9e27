"""How well sounds of one's own are recognised, on recordings in ../shared (a measurement, no test).

    python tests/measure_own_sounds.py MODEL THIRD [SOUNDS] [BACKGROUNDS]

Bells, beeps and barks of one third of the files (sha1 of the path modulo 3; 0 is kept for the end, what comes with
Streamer was made from the others) are taught from five re-recordings each, in rooms that learning does not draw, and
then happen eight times over recorded streets, music and talk (5 to 25 dB below). Windows are those of the live engine,
on whole seconds. Each sound's layer also hears everything else of that third, in windows of 10 s; what comes from the
same place as the sound is left out there, since it may be the same bell. Recall and false alarms an hour are means.
"""

import csv
import hashlib
import os
import sys
from pathlib import Path

import numpy as np

from streamer.audio.files import read_audio
from streamer.audio.fine_spectrum import fine_spectrum
from streamer.errors import InputError
from streamer.model.choice import load_model
from streamer.model.own_sounds import JUDGED_STEPS, bundled_background
from streamer.training.moments import moment_of
from streamer.training.own_sounds import encoder_of, learn, scene_windows

RATE = 16_000
SHARED = Path(os.environ.get("STREAMER_SHARED", Path(__file__).resolve().parents[2] / "shared"))
KINDS = (
    *("doorbell", "neg_bell", "neg_beep", "neg_phone_ring", "neg_alarm_clock", "neg_phone_alarm", "dog_bark"),
    *("clock_alarm", "church_bells", "dog", "smoke_alarm"),
)
CLIPS, OCCURRENCES = 5, 8


def recordings(third):
    """(path, kind) of all files of a third."""
    found = []
    for row in csv.DictReader((SHARED / "real/manifest.csv").open()):
        parts = row["path"].split("/")
        kind = parts[1] if parts[0] in ("sounds", "more") else "speech"
        found.append((SHARED / "real" / row["path"], row["path"], kind))
    for row in csv.DictReader((SHARED / "data/manifest.csv").open()):
        if row["kind"] == "sound":
            found.append((SHARED / "data" / row["path"], row["path"], row["category"]))
    return [(path, kind) for path, name, kind in found if int(hashlib.sha1(name.encode()).hexdigest(), 16) % 3 == third]


def chosen(files, count):
    """So many of the wanted kinds, one of each in turn."""
    by_kind = {kind: [path for path, other in files if other == kind] for kind in KINDS}
    order = [
        paths[turn]
        for turn in range(max(map(len, by_kind.values())))
        for paths in by_kind.values()
        if turn < len(paths)
    ]
    return order[:count]


def place_of(path):
    """Recordings of one device or source: the folder, and the beginning of the name."""
    return path.parent.name, path.stem.split("_")[0].rsplit("-", 2)[0].split(".")[0]


def loudest(samples):
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    return float(np.sqrt(np.square(frames).mean(1).max() + 1e-12))


def in_a_room(samples, random):
    """Early reflections and a tail, and a microphone's band."""
    lasts = random.uniform(0.15, 0.7)
    echo = random.normal(0, 1, round(lasts * RATE)) * random.uniform(0.005, 0.03)
    echo *= 10 ** (-3 * np.arange(len(echo)) / RATE / lasts)
    echo[0] = 1
    for _ in range(random.integers(4, 12)):
        echo[round(random.uniform(0.002, 0.04) * RATE)] += random.choice([-1, 1]) * random.uniform(0.1, 0.6)
    total = len(samples) + len(echo)
    pitch = np.fft.rfftfreq(total, 1 / RATE)
    band = (1 + (pitch / random.uniform(4500, 9000)) ** 6) * (1 + (random.uniform(40, 250) / np.maximum(pitch, 1)) ** 4)
    spectrum = np.fft.rfft(samples, total) * np.fft.rfft(echo, total) / np.sqrt(band)
    return np.fft.irfft(spectrum, total)[: len(samples) + len(echo) // 2].astype(np.float32)


def backdrop(size, beds, kind, random):
    """Street noise, with talk or music over it, as loud as 1 in its loudest 20 ms."""

    def cut(name):
        start = random.integers(0, len(beds[name]))
        part = np.resize(np.roll(beds[name], -start), size)
        return part / loudest(part)

    bed = cut("street")
    mixed = bed if not kind else 0.18 * bed + cut(kind)
    return mixed / loudest(mixed)


def measure(name, third, count, backgrounds=None):
    model = load_model(name, head=None)
    encode, background = encoder_of(model), bundled_background(model, backgrounds)

    def vectors_of(window):
        return background.vectors(encode(window), fine_spectrum(window))

    files = recordings(third)
    mine = chosen(files, count)
    beds = {
        "street": ("sonyc", "neg_street", "neg_home"),
        "speech": ("speech", "lj"),
        "neg_music": ("neg_music",),
    }
    beds = {
        bed: np.concatenate([read_audio(str(path)) for path, kind in files if kind in kinds])
        for bed, kinds in beds.items()
    }
    others, seconds = [], 0.0
    for path, kind in files:
        samples = read_audio(str(path))[: 60 * RATE]
        seconds += len(samples) / RATE if len(samples) < 10 * RATE else len(samples) // (10 * RATE) * 10.0
        samples = np.pad(samples, (0, -len(samples) % (10 * RATE))) if len(samples) < 10 * RATE else samples
        others += [(path, kind, vectors_of(window)) for window in scene_windows(samples)]
    print(f"{len(others)} windows, {seconds / 3600:.2f} h of other sounds", flush=True)
    rows = []
    for path in mine:
        random = np.random.default_rng(int(hashlib.sha1(path.name.encode()).hexdigest()[:8], 16))
        whole = moment_of(read_audio(str(path)), path.name).samples

        def again(kind, low_db, high_db, before, behind, random=random, whole=whole):
            samples = in_a_room(whole, random)
            bed = backdrop(before + len(samples) + behind, beds, kind, random)
            bed[before : before + len(samples)] += (
                samples / loudest(samples) * 10 ** (random.uniform(low_db, high_db) / 20)
            )
            return bed * (10 ** (random.uniform(-45, -12) / 20) / loudest(bed))

        clips = [(f"clip {number}", again("", 15, 35, RATE // 2, RATE // 2)) for number in range(CLIPS)]
        try:
            sound = learn("mine", "info", clips, encode, background)
        except InputError as error:
            print(f"{path.name[:44]:44} refused: {error}", flush=True)
            rows.append((0.0, np.nan, np.nan))
            continue
        delays = []
        for number in range(OCCURRENCES):
            at = round(random.uniform(10, 11) * RATE)
            samples = again(["", "speech", "neg_music", ""][number % 4], 5, 25, at, 4 * RATE)
            for second in range(at // RATE + 1, at // RATE + 4):
                end = second * RATE
                if end - at < 0.15 * RATE:
                    continue
                vectors = vectors_of(samples[end - 10 * RATE : end])
                if sound.logits(vectors[-JUDGED_STEPS:]).max() >= sound.threshold:
                    delays.append((end - at) / RATE)
                    break
        away = [item for item in others if place_of(item[0]) != place_of(path)]
        false = [kind for _, kind, vectors in away if sound.logits(vectors).max() >= sound.threshold]
        hours = seconds / 3600 * len(away) / len(others)
        rows.append((len(delays) / OCCURRENCES, len(false) / hours, float(np.mean(delays)) if delays else np.nan))
        recall, per_hour, after = rows[-1]
        told = f"recall {recall:.2f}, false/h {per_hour:.2f}, after {after:.1f} s"
        print(f"{path.name[:44]:44} {told}, false: {', '.join(false) or 'none'}", flush=True)
    found = np.array(rows)
    print(
        f"{name}, third {third}: {len(rows)} sounds, recall {found[:, 0].mean():.3f}, "
        f"false/h {np.nanmean(found[:, 1]):.2f} ({int((found[:, 1] > 0.5).sum())} of them above 0.5), "
        f"after {np.nanmean(found[:, 2]):.2f} s on average"
    )


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), int((*sys.argv, 20)[3]), Path(sys.argv[4]) if len(sys.argv) > 4 else None)
