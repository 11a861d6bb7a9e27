"""The tokens that `nano` uses, renumbered densely for training, and token sequences with their targets.

Of Whisper's 51,864 English tokens some 200 are used: those of the vocabulary's words, five special ones and every
twentieth timestamp. Training numbers them 0..n-1 (words, specials, timestamps); `used` maps back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from whisper.tokenizer import get_tokenizer

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.words import vocabulary
from streamer.recipes.synthesis.clips import TimedWord

N_VOCAB = 51864  # tokens of Whisper's English models
COARSE = 20  # encoder frames between two timestamps: 0.4 s, about as exactly as a model of this size knows
TIMESTAMPS = 76  # <|0.00|> to <|30.00|>
FRAME = SAMPLE_RATE // 50  # samples of one encoder frame and of one timestamp step of Whisper's
IGNORED = -100
SEGMENT = 3  # words between two timestamps
POSITIONS = 448  # of Whisper's decoder
LEAST_PAST = 100  # frames before a late window in which somebody may have spoken


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Dense numbers of the used tokens. `words`: each word's dense tokens; `used` int64 [n]: Whisper's numbers."""

    words: dict[str, tuple[int, ...]]
    used: NDArray[np.int64]
    pieces: int
    eot: int
    sot: int
    previous: int
    no_speech: int
    no_timestamps: int
    first_timestamp: int

    @property
    def unused(self) -> int:
        """How many of Whisper's tokens are never used."""
        return N_VOCAB - len(self.used)

    def text(self, tokens: Sequence[int]) -> list[str]:
        """The words that dense `tokens` spell; specials and timestamps are left out, unknown joins become `?`."""
        by_tokens = {value: word for word, value in self.words.items()}
        words, rest = [], [token for token in tokens if token < self.pieces]
        while rest:
            length = next((n for n in (3, 2, 1) if tuple(rest[:n]) in by_tokens), 0)
            words.append(by_tokens[tuple(rest[:length])] if length else "?")
            rest = rest[max(length, 1) :]
        return words


def used_tokens() -> Vocabulary:
    """The vocabulary of `nano`, from openai-whisper's English tokenizer."""
    tokenizer = get_tokenizer(multilingual=False)
    spelled = {word: tuple(tokenizer.encode(" " + word)) for word in vocabulary()}
    pieces = sorted({token for tokens in spelled.values() for token in tokens})
    number = {token: index for index, token in enumerate(pieces)}
    specials = [tokenizer.eot, tokenizer.sot, tokenizer.sot_prev, tokenizer.no_speech, tokenizer.no_timestamps]
    begin = tokenizer.timestamp_begin
    timestamps = range(begin, begin + TIMESTAMPS * COARSE, COARSE)
    first = len(pieces)
    return Vocabulary(
        words={word: tuple(number[token] for token in tokens) for word, tokens in spelled.items()},
        used=np.array([*pieces, *specials, *timestamps], np.int64),
        pieces=first,
        eot=first,
        sot=first + 1,
        previous=first + 2,
        no_speech=first + 3,
        no_timestamps=first + 4,
        first_timestamp=first + 5,
    )


@dataclass(slots=True)
class Lesson:
    """One decoder sequence: what goes in, what should come out, and where in the audio each of both is.

    `heard` and `told`: encoder frames [first, last) of the word that the target (the input) belongs to; (0, 0): none.
    """

    inputs: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    heard: list[tuple[int, int]] = field(default_factory=list)
    told: list[tuple[int, int]] = field(default_factory=list)

    def add(self, token: int, told: tuple[int, int], target: int, heard: tuple[int, int]) -> None:
        """Append one position."""
        self.inputs.append(token)
        self.targets.append(target)
        self.heard.append(heard)
        self.told.append(told)

    def behind(self, prompt: Sequence[int]) -> "Lesson":
        """The same behind `prompt`, which is read and not learned."""
        nothing = [(0, 0)] * len(prompt)
        return Lesson(
            [*prompt, *self.inputs], [IGNORED] * len(prompt) + self.targets, nothing + self.heard, nothing + self.told
        )


@dataclass(frozen=True, slots=True)
class Faults:
    """How often a training prefix is disturbed, so that free decoding recovers from mistakes.

    `prompts`: it begins with previous text; `past`: a late window's own begins with text of the time before it.
    """

    items: float = 0.4
    replaced: float = 0.12
    dropped: float = 0.03
    doubled: float = 0.03
    prompts: float = 0.25
    past: float = 0.7


def lesson(
    vocabulary: Vocabulary,
    turns: Sequence[Sequence[TimedWord]],
    *,
    timestamps: bool,
    open_end: bool,
    random: np.random.Generator,
    faults: Faults | None,
    first: int = 0,
) -> Lesson:
    """The sequence for a window. `open_end`: the last utterance is cut; with timestamps only its start is written.

    `faults` None: nothing is disturbed and no prompt is given. `first`: the window's place in the 30 s, in encoder
    frames; timestamps count from their beginning.
    """
    result, prompt = Lesson(), list[int]()
    if faults and random.random() < faults.prompts:
        until = TIMESTAMPS - 1 if timestamps and random.random() < 0.7 else None
        prompt = _utterances(vocabulary, random, int(random.integers(1, 9)), until)
    start, past = vocabulary.no_timestamps, list[int]()
    if timestamps:
        if faults and turns and first > LEAST_PAST and random.random() < faults.past:
            past = _utterances(vocabulary, random, int(random.integers(1, 2 + first // 200)), first // COARSE)
        sequence = _timed(vocabulary, turns, open_end, first, whole=not past)
        start = sequence.pop(0)[0] if turns else vocabulary.first_timestamp
    else:
        sequence = _plain(vocabulary, turns)
    given = [vocabulary.sot, *past]
    for token in given[:-1]:
        result.add(token, (0, 0), IGNORED, (0, 0))
    result.add(given[-1], (0, 0), start if turns else vocabulary.no_speech, (0, 0))
    last_end = max((word.end for turn in turns for word in turn), default=0) // FRAME
    sequence.append((vocabulary.eot, (last_end, last_end + 12) if last_end else (0, 0)))
    _write(result, start, sequence, vocabulary, random, faults)
    return result.behind([vocabulary.previous, *prompt[-(POSITIONS - 1 - len(result.inputs)) :]] if prompt else [])


def _write(
    result: Lesson,
    token: int,
    sequence: list[tuple[int, tuple[int, int]]],
    vocabulary: Vocabulary,
    random: np.random.Generator,
    faults: Faults | None,
) -> None:
    """Append `sequence` behind `token`, some of its inputs disturbed."""
    told = (0, 0)
    disturbed = faults is not None and random.random() < faults.items
    for index, (target, heard) in enumerate(sequence):
        result.add(token, told, target, heard)
        token, told = target, heard
        if disturbed and faults and target < vocabulary.pieces and index + 1 < len(sequence):
            chance = random.random()
            if chance < faults.replaced:
                token = int(random.integers(0, vocabulary.pieces))
            elif chance < faults.replaced + faults.doubled:
                result.add(token, told, *sequence[index + 1])
            elif chance < faults.replaced + faults.doubled + faults.dropped:
                token, told = result.inputs[-1], result.told[-1]


def _plain(vocabulary: Vocabulary, turns: Sequence[Sequence[TimedWord]]) -> list[tuple[int, tuple[int, int]]]:
    return [
        (token, (word.start // FRAME, max(-(-word.end // FRAME), word.start // FRAME + 1)))
        for turn in turns
        for word in turn
        for token in vocabulary.words[word.text]
    ]


def _timed(
    vocabulary: Vocabulary,
    turns: Sequence[Sequence[TimedWord]],
    open_end: bool,
    first: int,
    *,
    whole: bool,
) -> list[tuple[int, tuple[int, int]]]:
    """`<|start|> words <|end|>`, at most three words each, of a window whose first frame is the `first` of the 30 s.

    Two decoder layers cannot count which "seven" of ten they are at; a timestamp every third word tells them. In a
    `whole` sequence a first utterance later than 1 s starts at <|0.00|>, as Whisper asks.
    """
    sequence: list[tuple[int, tuple[int, int]]] = []
    turns = [turn[place : place + SEGMENT] for turn in turns for place in range(0, len(turn), SEGMENT)]
    last = 0
    for index, turn in enumerate(turns):
        start = max(last, (first + turn[0].start // FRAME) // COARSE)
        if whole and index == 0 and start * COARSE > SAMPLE_RATE // FRAME:
            start = 0
        sequence.append((vocabulary.first_timestamp + min(start, TIMESTAMPS - 1), (0, 0)))
        if open_end and index == len(turns) - 1 and index > 0:
            break
        sequence += _plain(vocabulary, [turn])
        last = min(max(start + 1, -(-(first + turn[-1].end // FRAME) // COARSE)), TIMESTAMPS - 1)
        sequence.append((vocabulary.first_timestamp + last, (0, 0)))
    return sequence


def _utterances(vocabulary: Vocabulary, random: np.random.Generator, count: int, until: int | None) -> list[int]:
    """Text that nobody hears: `count` utterances of words in random order.

    `until`: each stands between timestamps, which rise from the first to at most this one; None: without them.
    """
    names = list(vocabulary.words)
    times = np.sort(random.integers(0, (until or 0) + 1, 2 * count))
    tokens: list[int] = []
    for index in range(count):
        known = len(names) if random.random() < 0.5 else 10
        words = [names[i] for i in random.integers(0, known, random.integers(1, 8))]
        text = [token for word in words for token in vocabulary.words[word]]
        if until is not None:
            start = 0 if index == 0 else int(times[2 * index])
            text = [vocabulary.first_timestamp + start, *text, vocabulary.first_timestamp + int(times[2 * index + 1])]
        tokens += text
    return tokens
