"""Windows of composed audio with exact truth: words with times, sounds with activity.

A window is cut from a longer timeline, so words and sounds at its edges are cut as they are in a stream. A cut word
counts when at least 70 % of it can be heard.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.bank import Bank
from streamer.recipes.synthesis import alarms
from streamer.recipes.synthesis.acoustics import (
    filtered,
    formants_moved,
    in_room,
    noise,
    resampled,
    rms,
    stretched,
    through_line,
)
from streamer.recipes.synthesis.clips import GRID, Audio, Clip, SoundClip, TimedWord

HEARD = 0.7  # the share of a word that must lie in the window for it to be written
CLASSES = 527
SPEECH = 0
MARGIN = int(0.7 * SAMPLE_RATE)  # of the timeline on both sides of the window


@dataclass(frozen=True, slots=True)
class Recipe:
    """How often things happen in a window.

    `dense`: somebody talks nearly all the time; `plain`: its voices are as they were recorded, without other pitch,
    microphone or room; `recorded`: the share of utterances that are recordings of people. `drowned_db`: least SNR of
    windows without speech. `flite`: the share of flite among the voices of continuous speech; below 0: as they come.
    """

    speech: float = 0.86
    alarm: float = 0.25
    sound: float = 0.45
    noisy: float = 0.75
    digital_silence: float = 0.03
    dense: float = 0.6
    plain: float = 0.12
    recorded: float = 0.38
    drowned_db: float = -25.0
    flite: float = -1.0


@dataclass(frozen=True, slots=True)
class Window:
    """One composed window.

    `audio` float32 [n]; `turns`: its words, grouped into utterances, times in samples of the window; `activity`
    bool [steps of 0.1 s, 527]: which classes can be heard when; `cut`: the last utterance goes on after the end.
    """

    audio: Audio
    turns: tuple[tuple[TimedWord, ...], ...]
    activity: NDArray[np.bool_]
    cut: bool


def compose(bank: Bank, count: int, random: np.random.Generator, recipe: Recipe) -> Window:
    """A window of `count` samples."""
    total = count + 2 * MARGIN
    audio = np.zeros(total, np.float32)
    activity = np.zeros((-(-total // GRID), CLASSES), bool)
    plain = random.random() < recipe.plain
    level = 10 ** (random.uniform(-34, -14) / 20) if not plain else 10 ** (random.uniform(-25, -19) / 20)
    turns: list[tuple[TimedWord, ...]] = []
    if random.random() < recipe.speech:
        turns = _add_speech(bank, audio, level, replace(recipe, plain=float(plain)), random)
    elif random.random() < recipe.digital_silence / (1 - recipe.speech + 1e-6):
        return Window(np.zeros(count, np.float32), (), np.zeros((-(-count // GRID), CLASSES), bool), False)
    if random.random() < recipe.sound:
        for _ in range(1 + int(random.poisson(total / SAMPLE_RATE / 8))):
            _add_sound(bank.sounds[random.integers(0, len(bank.sounds))], audio, activity, level, random)
    if random.random() < recipe.alarm:
        _add_alarm(audio, activity, level, random)
    if random.random() < recipe.noisy:
        snr_db = random.uniform(0, 35) if turns else random.uniform(recipe.drowned_db, 30)
        audio += noise(total, random) * level * 10 ** (-snr_db / 20)
    elif random.random() < 0.8:
        audio += noise(total, random) * 10 ** (-random.uniform(60, 90) / 20)
    window = audio[MARGIN : MARGIN + count]
    window = window if plain else through_line(window, random)
    if not plain and random.random() < 0.25:
        window = window * 10 ** (random.uniform(-25, 15) / 20)
    heard, cut = _cut(turns, count)
    for turn in turns:
        for word in turn:
            activity[word.start // GRID : -(-word.end // GRID), SPEECH] = True
    steps = -(-count // GRID)
    return Window(np.clip(window, -1, 1).astype(np.float32), heard, activity[MARGIN // GRID :][:steps], cut)


def _cut(turns: list[tuple[TimedWord, ...]], count: int) -> tuple[tuple[tuple[TimedWord, ...], ...], bool]:
    """The turns as the window [MARGIN, MARGIN + count) has them, and whether the last one goes on after it."""
    heard, cut = [], False
    for turn in turns:
        words = []
        for word in turn:
            start, end = max(word.start - MARGIN, 0), min(word.end - MARGIN, count)
            if end - start >= HEARD * (word.end - word.start):
                words.append(TimedWord(word.text, start, end))
        if words:
            heard.append(tuple(words))
            cut = turn[-1].end - MARGIN > count
    return tuple(heard), cut


def _add_speech(
    bank: Bank, audio: Audio, level: float, recipe: Recipe, random: np.random.Generator
) -> list[tuple[TimedWord, ...]]:
    """Fill the timeline with turns; the times of the returned words are on the timeline."""
    turns: list[tuple[TimedWord, ...]] = []
    dense = random.random() < recipe.dense
    place = int(random.uniform(0, 0.6 if dense else 5.0) * SAMPLE_RATE)
    room, plain = random.random() < 0.5, random.random() < recipe.plain
    while place < len(audio):
        clip = _turn(bank, random, len(audio) - place, recipe)
        wave = clip.audio
        if not plain:
            clip = _changed(clip, len(audio) - place, random)
            synthetic = ":" in clip.voice
            wave = filtered(clip.audio, random, narrow=0.35 if synthetic else 0.1)
            wave = in_room(wave, random) if room else wave
        wave = wave * (level * 10 ** (random.normal(0, 2.5) / 20) / rms(wave))
        end = min(len(audio), place + len(wave))
        audio[place:end] += wave[: end - place]
        words = tuple(TimedWord(word.text, word.start + place, word.end + place) for word in clip.words)
        turns.append(tuple(word for word in words if word.start < len(audio)))
        pause = 0.7 + random.exponential(0.2 if dense else 2.0)
        place += len(wave) + int(pause * SAMPLE_RATE)
    return [turn for turn in turns if turn]


def _turn(bank: Bank, random: np.random.Generator, room: int, recipe: Recipe) -> Clip:
    """One utterance by one voice; what lies after `room` samples is left out."""
    kind, recorded = random.random(), recipe.recorded
    if kind < recorded:
        clip = _digit_run(bank.speakers[random.integers(0, len(bank.speakers))], random, room)
    elif kind < recorded + 0.2 * (1 - recorded):
        clip = _digit_run(bank.voices[random.integers(0, len(bank.voices))], random, room)
    else:
        sentences = bank.sentences
        if recipe.flite >= 0:
            sentences = (bank.flite if random.random() < recipe.flite else bank.espeak) or sentences
        clip = sentences[random.integers(0, len(sentences))]
    return Clip(clip.audio[:room], clip.words, clip.voice)


def _changed(clip: Clip, room: int, random: np.random.Generator) -> Clip:
    """The same by another voice: pitch, formants and tempo moved, more so for the few recorded speakers."""
    spread = 0.08 if ":" in clip.voice else 0.12
    if random.random() < 0.8:
        clip = resampled(clip, float(np.clip(np.exp(random.normal(0, spread)), 0.72, 1.38)))
    if random.random() < 0.35:
        clip = formants_moved(clip, float(np.clip(np.exp(random.normal(0, 0.1)), 0.8, 1.25)))
    if random.random() < 0.35:
        clip = stretched(clip, float(random.uniform(0.75, 1.35)))
    return Clip(clip.audio[:room], clip.words, clip.voice)


def _digit_run(words: dict[str, tuple[Clip, ...]], random: np.random.Generator, room: int) -> Clip:
    """Digits of one voice, spoken alone, one after the other."""
    parts, timed, place = [], [], 0
    names = sorted(words)
    tight = random.uniform(0.03, 0.25)
    for _ in range(int(random.integers(1, 10))):
        clips = words[names[random.integers(0, len(names))]]
        clip = clips[random.integers(0, len(clips))]
        wave = clip.audio * np.float32(0.1 * 10 ** (random.normal(0, 2) / 20) / rms(clip.audio))
        gap = np.zeros(int(min(random.exponential(tight), 0.6) * SAMPLE_RATE) + 160, np.float32)
        parts += [wave, gap]
        timed.append(TimedWord(clip.words[0].text, place, place + len(wave)))
        place += len(wave) + len(gap)
        if place > 1.5 * room + SAMPLE_RATE // 4:
            break
    return Clip(np.concatenate(parts), tuple(timed), clip.voice)


def _add_sound(
    clip: SoundClip, audio: Audio, activity: NDArray[np.bool_], level: float, random: np.random.Generator
) -> None:
    wave, active = clip.audio, clip.active
    if random.random() < 0.6:
        factor = float(np.exp(random.normal(0, 0.09)))
        changed = resampled(Clip(wave, (), ""), factor).audio
        index = np.minimum((np.arange(-(-len(changed) // GRID)) * factor).astype(int), len(active) - 1)
        wave, active = changed, active[index]
    if random.random() < 0.6:
        wave = filtered(wave, random, narrow=0.1)
    if random.random() < 0.25:
        wave = in_room(wave, random)
    heard = rms(wave[np.repeat(active, GRID)[: len(wave)]]) if active.any() else rms(wave)
    wave = wave * (level * 10 ** (random.uniform(-12, 8) / 20) / heard)
    _place(wave, active, clip.labels, int(random.integers(-len(wave) // 2, len(audio))), audio, activity)


def _add_alarm(audio: Audio, activity: NDArray[np.bool_], level: float, random: np.random.Generator) -> None:
    kind = alarms.OFTEN[random.integers(0, len(alarms.OFTEN))]
    whole = random.random() < 0.4
    seconds = len(audio) / SAMPLE_RATE if whole else random.uniform(1.5, max(4.0, len(audio) / SAMPLE_RATE))
    clip = alarms.make(kind, seconds, random)
    wave = filtered(clip.audio, random, narrow=0.1) if random.random() < 0.6 else clip.audio
    wave = in_room(wave, random) if random.random() < 0.5 else wave
    loud = rms(wave[np.abs(wave) > 0.05 * np.abs(wave).max()])
    wave = wave * (level * 10 ** (random.uniform(-12, 9) / 20) / loud)
    if random.random() < 0.3:
        first, last = random.uniform(0.15, 1, 2).tolist()
        wave = wave * np.linspace(first, last, len(wave)).astype(np.float32)
    start = 0 if whole else int(random.integers(-len(wave) // 2, len(audio)))
    _place(wave, clip.active, clip.labels, start, audio, activity)


def _place(
    wave: Audio,
    active: NDArray[np.bool_],
    labels: tuple[int, ...],
    start: int,
    audio: Audio,
    activity: NDArray[np.bool_],
) -> None:
    """Add `wave` to the timeline at `start` (which may lie before it) and mark what can be heard."""
    start = start // GRID * GRID
    skip = max(0, -start)
    start += skip
    wave, active = wave[skip:], active[skip // GRID :]
    end = min(len(audio), start + len(wave))
    audio[start:end] += wave[: end - start]
    active = active[: len(activity) - start // GRID]
    for label in labels:
        activity[start // GRID : start // GRID + len(active), label] |= active
