"""The manifest that the bundled heads are taught from: recordings, sounds of Debian packages, and synthesised signals.

    python -m streamer.recipes.ears.collect OUT --recordings REAL/manifest.csv --esc50 DATA/manifest.csv
        --debian FOLDER   (packages unpacked there: `apt-get download NAME; dpkg -x NAME.deb FOLDER/NAME`)

Rows with labels say all that matters for alert rules; what rows without labels hold, the teacher says.
"""

import argparse
import csv
import hashlib
import re
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from streamer.audio.files import read_audio
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.recipes.ears import chimes, sounders
from streamer.recipes.synthesis import alarms, household
from streamer.recipes.synthesis.alarms import ALARM, SMOKE
from streamer.sound.labels import labels

# Folders of `../shared/real` by what sounds in them.
SETS = {
    "siren": ("Siren", "Emergency vehicle"),
    "smoke_alarm": ("Smoke detector, smoke alarm", "Alarm"),
    "baby_cry": ("Baby cry, infant cry", "Crying, sobbing"),
    "dog_bark": ("Dog", "Bark"),
    "door_knock": ("Knock",),
    "doorbell": ("Doorbell",),
    "glass_break": ("Glass", "Shatter"),
    "neg_car_horn": ("Vehicle horn, car horn, honking",),
    "neg_alarm_clock": ("Alarm clock", "Alarm"),
    "neg_phone_ring": ("Telephone", "Telephone bell ringing"),
    "neg_beep": ("Beep, bleep",),
    "neg_bell": ("Bell",),
    "neg_music": ("Music",),
    "neg_whistle": ("Whistle",),
}
SPOKEN = ("en_short", "en_spontaneous", "fleurs_", "lj_single", "prompts_single", "more/lj", "multi_short")
# Sounds of Debian packages that are what their name says; the others go to the teacher without labels.
NAMED = {
    r"mammals/dogs/dog|Animal/Dog\d|/wolf_\d": ("Dog", "Bark"),
    r"BabyCry": ("Baby cry, infant cry", "Crying, sobbing"),
    r"Glass_Break|default_break_glass": ("Glass", "Shatter"),
    r"oldphone-mono|Phone-Ring|phone-incoming": ("Telephone", "Telephone bell ringing"),
    r"alarm-clock-elapsed": ("Alarm clock", "Alarm"),
    r"BellToll|ships_bell|chapel": ("Bell", "Church bell"),
    r"Human/Scream|Influencer_Scream": ("Screaming",),
    r"animals/(bird|duck)|Animal/(Bird|Goose|Duck|Owl)|/duck_\d": ("Bird",),
    r"Animal/(Cat|Meow|Kitten)": ("Cat", "Meow"),
    r"gunshot|minigun|shotgunfire": ("Gunshot, gunfire",),
    r"/[Mm]usic/|/moh/|Music Loops|opsound|ambience": ("Music",),
}
PACKAGES = {  # Debian package: at most so many of its sounds
    "bambam": 40,
    "freedroidrpg-data": 150,
    "hedgewars-data": 120,
    "lincity-ng-data": 150,
    "lmms-common": 150,
    "minetest-data": 110,
    "linphone-common": 10,
    "oxygen-sounds": 50,
    "scratch": 120,
    "searchandrescue-data": 60,
    "sonic-pi-samples": 170,
    "sound-theme-freedesktop": 30,
    "torcs-data": 50,
    "tuxpaint-stamps-default": 110,
    "unknown-horizons": 50,
    "wesnoth-1.16-data": 250,
    "widelands-data": 150,
    "asterisk-moh-opsound-g722": 5,
}
SPEAKS = re.compile(r"/[Vv]oices?/|voice_samples|_desc|alphabets|symbols|tux_ingame|_[a-z]{2}(_[A-Z]{2})?\.\w+$|Vocals")
FONT = "fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2"
LONGEST_S, LEAST_RMS = 60.0, 1e-3
SYNTHESISED = 60  # clips of each kind
SYNTHETIC = "synthesised"  # the category by which `training.scenes` knows them

Row = dict[str, str]


def group_of(name: str) -> str:
    """What several recordings have in common: the freesound recording that UrbanSound8K cut, or the crying child."""
    sliced = re.search(r"us8k_(\d+)-", name)
    child = re.search(r"/([0-9A-Fa-f]{8}-[0-9A-Fa-f-]{27})-", name)
    return sliced.group(1) if sliced else child.group(1).lower() if child else name


def kept(name: str) -> bool:
    """Whether a recording of `../shared/real` is kept for judging: a third of the groups."""
    return int(hashlib.sha1(group_of(name).encode()).hexdigest(), 16) % 3 == 0


def recordings(manifest: Path) -> Iterator[Row]:
    """The rows of `../shared/real` that may teach: the licence allows it and they are not kept for judging."""
    for row in csv.DictReader(manifest.open(encoding="utf-8")):
        name, group = row["path"], row["set"]
        if row["train"] != "yes" or kept(name) or row["ref"] == "S?":
            continue
        path = str((manifest.parent / name).resolve())
        if group.startswith("sounds/"):
            found = SETS.get(group.removeprefix("sounds/"), ())
            yield _row(path, found, "music" if group.endswith("music") else "sound", row["licence"])
        elif group == "more/baby":
            yield _row(path, SETS["baby_cry"], "sound", row["licence"])
        elif group == "more/sonyc":
            yield _row(path, (), "sound", row["licence"])
        elif group.startswith(SPOKEN):
            yield _row(path, ("Speech",), "speech", row["licence"])


def esc50(manifest: Path) -> Iterator[Row]:
    """The train part of ESC-50's clips in the project's own manifest format."""
    for row in csv.DictReader(manifest.open(encoding="utf-8")):
        if row["kind"] == "sound" and row["split"] == "train":
            path = str((manifest.parent / row["path"]).resolve())
            yield {"path": path, "labels": row["labels"], "kind": "sound", "source": "ESC-50, CC BY-NC 3.0"}


def packages(folder: Path, out: Path) -> Iterator[Row]:
    """Sounds of unpacked Debian packages, cut to a minute; silent or unreadable ones are left out."""
    for package, most in PACKAGES.items():
        files = [
            path
            for path in sorted((folder / package).rglob("*"))
            if path.suffix.lower() in (".ogg", ".oga", ".wav", ".mp3", ".flac", ".g722")
            and not SPEAKS.search(str(path))
        ]
        files.sort(key=lambda path: hashlib.sha1(path.name.encode()).hexdigest())
        for path in files[:most]:
            audio = _decoded(path)
            if audio is None:
                continue
            name = f"{package}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}_{path.stem}"
            target = _write(out / "debian", name, audio)
            found = next((value for key, value in NAMED.items() if re.search(key, str(path))), ())
            yield _row(target, found, "music" if found == ("Music",) else "sound", f"Debian {package}")


def synthesised(out: Path, font: Path, seed: int = 7) -> Iterator[Row]:
    """Signals from standards and habits (`recipes.synthesis`), which recordings are too few of."""
    for number, kind in enumerate(alarms.KINDS):
        if kind == "slow_clock":  # who could tell it from a smoke alarm that beeps evenly
            continue
        for index in range(SYNTHESISED):
            random = np.random.default_rng([seed, number, index])
            clip = alarms.make(kind, float(random.uniform(5, 11)), random)
            yield _clip_row(out, f"{kind}_{index}", clip.audio * 0.5, clip.labels)
    for index in range(4 * SYNTHESISED):
        random = np.random.default_rng([seed, 99, index])
        yield _clip_row(out, f"fire_{index}", 0.5 * _fire_alarm(float(random.uniform(5, 11)), random), (SMOKE, ALARM))
    for number, (kind, (indices, make, count)) in enumerate(sounders.KINDS.items()):
        for index in range(count):
            random = np.random.default_rng([seed, 1000 + number, index])
            wave = make(float(random.uniform(5, 11)), random)
            audio = (0.5 * wave / max(float(np.abs(wave).max()), 1e-9)).astype(np.float32)
            yield _clip_row(out, f"{kind}_{index}", audio, indices)
    for name, play, names in (
        ("chime", chimes.door_chime, ("Doorbell", "Ding-dong")),
        ("ringtone", chimes.ringtone, ("Telephone", "Ringtone")),
    ):
        for index in range(2 * SYNTHESISED):
            wave = chimes.played(*play(np.random.default_rng([seed, 77, index])), font)
            path = _write(out / "synthesised", f"{name}_{index}", wave / max(float(np.abs(wave).max()), 1e-6) * 0.5)
            yield _row(path, names, "sound", "fluid-soundfont-gm") | {"category": SYNTHETIC}
    for clip_number, clip in enumerate(
        (*household.household(SYNTHESISED // 2, seed), *household.others(SYNTHESISED // 2, seed + 1))
    ):
        yield _clip_row(out, f"{clip.category}_{clip_number}", clip.audio, clip.labels)


def _fire_alarm(seconds: float, random: np.random.Generator) -> np.ndarray:
    """Alarms that are no clean T3: even beeps, a slow whoop (DIN 33404), two tones in turn (EN 54-3), a steady horn."""
    kind = str(random.choice(["t3", "even", "whoop", "turns", "steady", "old"]))
    count = int(seconds * SAMPLE_RATE)
    pitch = np.full(count, random.uniform(2800, 3550))
    envelope = np.ones(count)
    if kind == "t3":
        on, pause = random.uniform(0.4, 0.6), random.uniform(1.0, 2.2)
        envelope = alarms.pattern(seconds, [(on, on * random.uniform(0.5, 1.1))] * 2 + [(on, pause)], random)
    elif kind == "even":
        on = random.uniform(0.35, 1.2)
        envelope = alarms.pattern(seconds, [(on, on * random.uniform(0.2, 1.0))], random)
    elif kind == "old":  # a quick flutter, on and off a few times a second
        on = random.uniform(0.06, 0.2)
        envelope = alarms.pattern(seconds, [(on, on * random.uniform(0.3, 1.0))], random)
        pitch = np.full(count, random.uniform(3000, 3500))
    elif kind == "whoop":
        period = random.uniform(0.8, 4.0)
        place = (np.arange(count) / SAMPLE_RATE / period + random.uniform()) % 1
        pitch = random.uniform(500, 900) + random.uniform(400, 1800) * place
        envelope = (place < random.uniform(0.85, 1.0)).astype(float)
    elif kind == "turns":
        low = random.uniform(550, 1000) if random.random() < 0.5 else random.uniform(2300, 2900)
        hold = random.uniform(0.1, 0.6)
        place = (np.arange(count) / SAMPLE_RATE / hold) % 2
        pitch = np.where(place < 1, low, low * random.uniform(1.1, 1.5))
    signal = alarms.tone(np.cumsum(pitch / SAMPLE_RATE), random) * envelope
    return np.asarray(signal / max(float(np.abs(signal).max()), 1e-9), np.float32)


def _clip_row(out: Path, name: str, audio: np.ndarray, indices: tuple[int, ...]) -> Row:
    path = _write(out / "synthesised", name, audio)
    return _row(path, tuple(labels()[index].name for index in indices) or ("Silence",), "sound", "synthesised") | {
        "category": SYNTHETIC
    }


def _row(path: str, names: tuple[str, ...], kind: str, source: str) -> Row:
    return {"path": path, "labels": "|".join(names), "kind": kind, "source": source}


def _decoded(path: Path) -> np.ndarray | None:
    try:
        if path.suffix == ".g722":
            with av.open(str(path), format="g722") as container:
                pieces = [frame.to_ndarray().reshape(-1).astype(np.float32) for frame in container.decode(audio=0)]
            audio = np.concatenate(pieces) / np.float32(32768)
        else:
            audio = read_audio(str(path))
    except (InputError, av.error.FFmpegError, ValueError):
        return None
    audio = audio[: int(LONGEST_S * SAMPLE_RATE)]
    return audio if len(audio) > SAMPLE_RATE // 10 and float(np.sqrt(np.mean(audio**2))) > LEAST_RMS else None


def _write(folder: Path, name: str, audio: np.ndarray) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"[^\w.-]", "_", name) + ".wav")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return str(path.resolve())


def main() -> None:
    """Write OUT/manifest.csv and the sounds that it names beside it."""
    parser = argparse.ArgumentParser(description="the manifest that the bundled heads are taught from")
    parser.add_argument("out", type=Path)
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--esc50", type=Path, required=True)
    parser.add_argument("--debian", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [*recordings(options.recordings), *esc50(options.esc50)]
    rows += [*packages(options.debian, options.out), *synthesised(options.out, options.debian / FONT)]
    with (options.out / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "labels", "kind", "category", "source"], restval="")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
