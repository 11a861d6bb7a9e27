"""The peer for quality: whisper_streaming's loop, LocalAgreement-2 over faster-whisper, on the same weights in 8 bits.

Macháček, Dabre and Bojar 2023 (github.com/ufal/whisper_streaming): every hop all audio in the buffer is transcribed
anew, what two passes agree on is committed, and a buffer of more than 15 s is cut where a committed segment ends. As
published: a beam of 5 and no voice detection. Unlike it: temperature 0 only, so that a run can be repeated, and text
that scrolled off becomes the prompt only for weights that were trained with one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamer.bench.peers import FasterWhisper, Samples
from streamer.events import SAMPLE_RATE, Event, Transcript, Word, seconds

NAME = "faster-whisper, LocalAgreement-2"
TRIM_S = 15.0
PROMPT_CHARACTERS = 200
EARLY_S = 0.1  # a word that starts more than this before the last committed end was committed already
NEAR_S, NGRAM = 1.0, 5  # a first word so near it may repeat up to five committed words


@dataclass(frozen=True, slots=True)
class PeerWord:
    """A word as the peer wrote it, with its times in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class PeerPass:
    """What one pass over the buffer wrote; times from the buffer's start."""

    words: tuple[PeerWord, ...]
    segment_ends_s: tuple[float, ...] = ()


Transcribe = Callable[[Samples, str], PeerPass]  # float32 [n] at 16 kHz, and the prompt


class AgreementLoop:
    """One stream of the loop. `committed` only grows; `partial` is what the last pass wrote behind it."""

    def __init__(self, transcribe: Transcribe) -> None:
        self._transcribe = transcribe
        self._buffer = np.zeros(0, np.float32)
        self._offset_s = 0.0
        self.committed: list[PeerWord] = []
        self.partial: list[PeerWord] = []

    def step(self, samples: Samples) -> None:
        """Take one hop of audio and transcribe the buffer anew."""
        self._buffer = np.concatenate([self._buffer, samples])
        found = self._transcribe(self._buffer, self._prompt())
        fresh = self._fresh(found)
        count = 0
        while count < min(len(fresh), len(self.partial)) and fresh[count].text == self.partial[count].text:
            count += 1
        self.committed += fresh[:count]
        self.partial = fresh[count:]
        if len(self._buffer) > TRIM_S * SAMPLE_RATE:
            self._trim(found.segment_ends_s)

    def finish(self) -> None:
        """The audio is over: what is left of the last pass is committed."""
        self.committed += self.partial
        self.partial = []

    def _fresh(self, found: PeerPass) -> list[PeerWord]:
        """The words behind the committed ones, on the clock of the stream."""
        last_s = self.committed[-1].end_s if self.committed else 0.0
        words = [PeerWord(w.text, w.start_s + self._offset_s, w.end_s + self._offset_s) for w in found.words]
        words = [word for word in words if word.start_s > last_s - EARLY_S]
        if words and abs(words[0].start_s - last_s) < NEAR_S:
            for length in range(1, min(len(self.committed), len(words), NGRAM) + 1):
                if [w.text for w in self.committed[-length:]] == [w.text for w in words[:length]]:
                    return words[length:]
        return words

    def _trim(self, segment_ends_s: tuple[float, ...]) -> None:
        """Cut behind the last segment but one that is committed to its end; none such, and the buffer grows."""
        if not self.committed:
            return
        ends = [end_s for end_s in segment_ends_s[:-1] if end_s + self._offset_s <= self.committed[-1].end_s]
        if ends:
            self._buffer = self._buffer[round(ends[-1] * SAMPLE_RATE) :]
            self._offset_s += ends[-1]

    def _prompt(self) -> str:
        gone = "".join(word.text for word in self.committed if word.end_s <= self._offset_s)
        return gone[-PROMPT_CHARACTERS:].strip()


class FasterTranscriber:
    """faster-whisper on `module`, an openai-whisper model that is converted into `folder`."""

    def __init__(self, module: Any, folder: Path, threads: int, *, prompts: bool) -> None:
        """`prompts`: the weights were trained with earlier text. Raises PeerAbsentError without the extra `bench`."""
        self._model = FasterWhisper(module, folder, threads).model
        self._prompts = prompts

    def in_language(self, language: str | None) -> Transcribe:
        """A transcriber for one language (a code); None: it is detected in each pass."""

        def transcribe(samples: Samples, prompt: str) -> PeerPass:
            segments, _ = self._model.transcribe(
                samples,
                language=language,
                beam_size=5,
                temperature=0.0,
                word_timestamps=True,
                condition_on_previous_text=False,
                initial_prompt=prompt if self._prompts and prompt else None,
            )
            found = list(segments)
            words = tuple(PeerWord(word.word, word.start, word.end) for one in found for word in one.words or ())
            return PeerPass(words, tuple(one.end for one in found))

        return transcribe


def captions_of(transcribe: Transcribe, audio: Samples, hop_s: float) -> list[Event]:
    """Run the loop over audio, float32 [n]; its captions as the `transcript` events of one segment."""
    loop, hop = AgreementLoop(transcribe), round(hop_s * SAMPLE_RATE)
    events: list[Event] = []
    for start in range(0, len(audio), hop):
        loop.step(audio[start : start + hop])
        events.append(_event(loop, min(start + hop, len(audio)), len(events) + 1, final=False))
    loop.finish()
    return [*events, _event(loop, len(audio), len(events) + 1, final=True)]


def _event(loop: AgreementLoop, at_sample: int, number: int, *, final: bool) -> Event:
    return Transcript(
        session="peer",
        seq=number,
        audio_t=seconds(at_sample),
        segment=0,
        start=0.0,
        end=seconds(at_sample),
        text="".join(word.text for word in loop.committed).strip(),
        partial="".join(word.text for word in loop.partial).strip(),
        final=final,
        words=tuple(Word(word.text.strip(), word.start_s, word.end_s, 0.0) for word in loop.committed),
        language="en",
        speech_probability=0.0,
    )
