"""The tokens that `nano` uses, renumbered densely for training, and token sequences with their targets.

Of Whisper's 51,864 English tokens some 1,600 are used: those of the vocabulary's words, five special ones and the 1,501
timestamps. Training numbers them 0..n-1 (words, specials, timestamps); `used` maps back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from whisper.tokenizer import get_tokenizer

from streamer.events import SAMPLE_RATE
from streamer.training.nano.clips import TimedWord
from streamer.training.nano.words import vocabulary

N_VOCAB = 51864  # tokens of Whisper's English models
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|>, 0.02 s apart
FRAME = SAMPLE_RATE // 50  # samples of one encoder frame and of one timestamp step
IGNORED = -100


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
    timestamps = range(tokenizer.timestamp_begin, tokenizer.timestamp_begin + TIMESTAMPS)
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


@dataclass(frozen=True, slots=True)
class Faults:
    """How often a training prefix is disturbed, so that free decoding recovers from mistakes."""

    items: float = 0.4
    replaced: float = 0.12
    dropped: float = 0.03
    doubled: float = 0.03
    prompts: float = 0.2


def lesson(
    vocabulary: Vocabulary,
    turns: Sequence[Sequence[TimedWord]],
    *,
    timestamps: bool,
    open_end: bool,
    random: np.random.Generator,
    faults: Faults | None,
) -> Lesson:
    """The sequence for a window. `open_end`: the last utterance is cut; with timestamps only its start is written.

    `faults` None: nothing is disturbed and no prompt is given.
    """
    result = Lesson()
    if faults and random.random() < faults.prompts:
        for token in _prompt(vocabulary, random, timestamps=timestamps):
            result.add(token, (0, 0), IGNORED, (0, 0))
    sequence = _timed(vocabulary, turns, open_end) if timestamps else _plain(vocabulary, turns)
    start = vocabulary.no_timestamps
    if timestamps:
        start = sequence.pop(0)[0] if turns else vocabulary.first_timestamp
    result.add(vocabulary.sot, (0, 0), start if turns else vocabulary.no_speech, (0, 0))
    last_end = max((word.end for turn in turns for word in turn), default=0) // FRAME
    sequence.append((vocabulary.eot, (last_end, last_end + 12) if last_end else (0, 0)))
    disturbed = faults is not None and random.random() < faults.items
    token, told = start, (0, 0)
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
    return result


def _plain(vocabulary: Vocabulary, turns: Sequence[Sequence[TimedWord]]) -> list[tuple[int, tuple[int, int]]]:
    return [
        (token, (word.start // FRAME, max(-(-word.end // FRAME), word.start // FRAME + 1)))
        for turn in turns
        for word in turn
        for token in vocabulary.words[word.text]
    ]


def _timed(
    vocabulary: Vocabulary, turns: Sequence[Sequence[TimedWord]], open_end: bool
) -> list[tuple[int, tuple[int, int]]]:
    """`<|start|> words <|end|>` for each utterance; a first one later than 1 s starts at <|0.00|>, as Whisper asks."""
    sequence: list[tuple[int, tuple[int, int]]] = []
    for index, turn in enumerate(turns):
        start = turn[0].start // FRAME
        if index == 0 and start > SAMPLE_RATE // FRAME:
            start = 0
        sequence.append((vocabulary.first_timestamp + min(start, TIMESTAMPS - 1), (0, 0)))
        if open_end and index == len(turns) - 1 and index > 0:
            break
        sequence += _plain(vocabulary, [turn])
        sequence.append((vocabulary.first_timestamp + min(turn[-1].end // FRAME, TIMESTAMPS - 1), (0, 0)))
    return sequence


def _prompt(vocabulary: Vocabulary, random: np.random.Generator, *, timestamps: bool) -> list[int]:
    """Some previous text: words in random order, with timestamps now and then."""
    names = list(vocabulary.words)
    tokens = [vocabulary.previous]
    for _ in range(int(random.integers(1, 5))):
        words = [
            names[i] for i in random.integers(0, len(names) if random.random() < 0.5 else 10, random.integers(1, 8))
        ]
        text = [token for word in words for token in vocabulary.words[word]]
        if timestamps and random.random() < 0.7:
            first, last = sorted(random.integers(0, TIMESTAMPS, 2))
            text = [vocabulary.first_timestamp + int(first), *text, vocabulary.first_timestamp + int(last)]
        tokens += text
    return tokens
