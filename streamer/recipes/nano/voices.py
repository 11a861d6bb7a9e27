"""Synthetic speech with word times, from espeak-ng (its library) and flite (its program).

espeak-ng reports where each word starts; flite prints its phones' ends, which are shared out to words by each word's
number of phones when spoken alone.
"""

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis.clips import Audio, Clip, TimedWord, read_audio

ACCENTS = (
    "en-us", "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
    "en-029", "en-us-nyc",
)  # fmt: skip
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt3",
    "klatt4", "adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique",
    "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "anika", "antonio", "aunty", "belinda",
    "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "john", "linda", "marcelo", "max",
    "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph",
    "travis", "victor", "zac",
)  # fmt: skip
FLITE_VOICES = ("kal16", "slt", "rms", "awb", "kal")

_RETRIEVAL, _RATE, _PITCH, _RANGE, _WORD_GAP, _UTF8 = 2, 1, 3, 4, 7, 1
_END, _WORD = 0, 1


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The espeak-ng library of this machine. It has one global voice: use one object per process, from one thread."""

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise InputError("espeak-ng is missing: sudo apt install espeak-ng flite") from error
        self._rate = int(self._library.espeak_Initialize(_RETRIEVAL, 0, None, 0))
        self._parts: list[Audio] = []
        self._starts: list[int] = []
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if count > 0 and wave:
            self._parts.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / np.float32(32768))
        position = 0
        while events[position].type != _END:
            if events[position].type == _WORD:
                self._starts.append(events[position].sample)
            position += 1
        return 0

    def speak(
        self, words: Sequence[str], voice: str, *, pitch: int, spread: int, rate: int, gap: int = 0
    ) -> Clip | None:
        """`words` in one breath; None when the library's word events do not match the words.

        `pitch` and `spread` 0..100, `rate` in words a minute, `gap` in 10 ms steps.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            self._library.espeak_SetVoiceByName(b"en-us")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, spread), (_WORD_GAP, gap)):
            self._library.espeak_SetParameter(parameter, value, 0)
        text = " ".join(words).encode()
        self._parts.clear()
        self._starts.clear()
        self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        if len(self._starts) != len(words) or not self._parts:
            return None
        audio = soxr.resample(np.concatenate(self._parts), self._rate, SAMPLE_RATE).astype(np.float32)
        starts = [int(start * SAMPLE_RATE / self._rate) for start in self._starts]
        return _timed(audio, words, starts, f"espeak:{voice}:{pitch}:{rate}")


def random_espeak(espeak: Espeak, words: Sequence[str], random: np.random.Generator) -> Clip | None:
    """`words` by a random voice, pitch and rate of espeak-ng."""
    voice = f"{random.choice(ACCENTS)}+{random.choice(VARIANTS)}"
    pitch, spread = int(random.integers(20, 81)), int(random.integers(15, 80))
    rate, gap = int(random.integers(105, 205)), int(random.choice([0, 0, 0, 1, 3, 6]))
    return espeak.speak(words, voice, pitch=pitch, spread=spread, rate=rate, gap=gap)


def random_flite(words: Sequence[str], random: np.random.Generator, phones: Callable[[str], int]) -> Clip | None:
    """`words` by a random voice of flite, slower or faster, higher or lower."""
    voice = str(random.choice(FLITE_VOICES))
    stretch, pitch = random.uniform(0.8, 1.4), random.uniform(80, 150) * (1.6 if voice == "slt" else 1.0)
    return flite(words, voice, phones, stretch=stretch, pitch_hz=pitch)


def flite(
    words: Sequence[str], voice: str, phones: Callable[[str], int], *, stretch: float = 1.0, pitch_hz: float = 110.0
) -> Clip | None:
    """`words` by one voice of flite; None when its phones do not match the words'."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        options = ["--setf", f"duration_stretch={stretch:.2f}", "--setf", f"int_f0_target_mean={pitch_hz:.0f}"]
        printed = _flite([*options, "-voice", voice, "-psdur", "-t", " ".join(words), file.name])
        audio = read_audio(Path(file.name))
    ends = [(name, float(end)) for name, end in re.findall(r"(\w+):([\d.]+)", printed)]
    counts = [phones(word) for word in words]
    inner = [index for index, (name, _) in enumerate(ends) if name != "pau"]
    if len(inner) != sum(counts):
        return None
    firsts = np.cumsum([0, *counts[:-1]])
    starts = [int(ends[inner[first] - 1][1] * SAMPLE_RATE) if inner[first] else 0 for first in firsts]
    return _timed(audio, words, starts, f"flite:{voice}:{pitch_hz:.0f}")


def flite_phones(word: str) -> int:
    """How many phones flite speaks `word` with."""
    return sum(name != "pau" for name in _flite(["-voice", "kal", "-ps", "-t", word, "none"]).split())


def ipa(word: str) -> str:
    """The phones of `word` in American English, as IPA letters without stress and length marks."""
    printed = _run(["espeak-ng", "-q", "--ipa", "-v", "en-us", word])
    return re.sub(r"[ˈˌː\s_\u0361‍]", "", printed)


def _timed(audio: Audio, words: Sequence[str], starts: Sequence[int], voice: str) -> Clip:
    loud = np.flatnonzero(np.abs(audio) > 0.02 * np.abs(audio).max())
    last = int(loud[-1]) + 1 if len(loud) else len(audio)
    ends = [*starts[1:], max(last, starts[-1] + SAMPLE_RATE // 50)]
    timed = tuple(TimedWord(word, start, end) for word, start, end in zip(words, starts, ends, strict=True))
    return Clip(audio[: ends[-1] + SAMPLE_RATE // 20], timed, voice)


def _flite(arguments: list[str]) -> str:
    return _run(["flite", *arguments])


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{command[0]} does not run ({error}): sudo apt install espeak-ng flite") from error
