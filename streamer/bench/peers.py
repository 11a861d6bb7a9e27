"""The programs we measure ourselves against, on the same weights: openai-whisper and faster-whisper.

For words the measure is openai-whisper's `transcribe` of the whole recording (`Offline`). What it read is kept on disk:
the same audio with the same weights, threads and release is looked up from then on. Temperatures, thresholds and
prompts are openai-whisper's defaults; its fallbacks draw random numbers, which are seeded.

For cost both do what their streaming wrappers do every hop: decode the window anew, padded to 30 s, greedily, 40
tokens. faster-whisper (extra `bench`) reads a converted copy of the weights in 8 bits; nothing is downloaded.

For captions the peer is whisper_streaming's loop, LocalAgreement-2 over faster-whisper (Macháček, Dabre and Bojar 2023,
github.com/ufal/whisper_streaming): every hop all audio in the buffer is transcribed anew, what two passes agree on is
committed, and a buffer of more than 15 s is cut where a committed segment ends. As published: a beam of 5 and no voice
detection. Unlike it: temperature 0 only, so that a run can be repeated, and text that scrolled off becomes the prompt
only for weights that were trained with one.
"""

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from whisper.decoding import DecodingOptions
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from streamer.bench.conversion import PeerAbsentError, convert
from streamer.events import SAMPLE_RATE, Event, Transcript, Word, seconds
from streamer.measure.recordings import TrueWord
from streamer.model.checkpoint import load_model
from streamer.model.download import cache_root
from streamer.model.whisper import Model

AGREEMENT_LOOP = "faster-whisper, LocalAgreement-2"
TRIM_S = 15.0
PROMPT_CHARACTERS = 200
EARLY_S = 0.1  # a word that starts more than this before the last committed end was committed already
NEAR_S, NGRAM = 1.0, 5  # a first word so near it may repeat up to five committed words
Samples = NDArray[np.float32]
CPU = torch.device("cpu")
MOST_TOKENS = 224  # of a text that ends by itself
PEERS = ("openai-whisper", "faster-whisper")  # that decode windows anew


class Peer(Protocol):
    """Something that decodes a window of audio anew."""

    name: str

    def decode(self, samples: Samples, tokens: int | None) -> list[int]:
        """Write exactly `tokens` tokens for samples, float32 [n] of at most 30 s; None: up to the end of text."""
        ...


class OpenAIWhisper:
    """openai-whisper's own `decode`, in its own default precision: float32 on a CPU, float16 on a GPU."""

    name = "openai-whisper"

    def __init__(self, module: Whisper, device: torch.device = CPU) -> None:
        self._module = module if device.type == "cpu" else copy.deepcopy(module).to(device)

    def decode(self, samples: Samples, tokens: int | None) -> list[int]:
        """As `Peer.decode`."""
        padded = whisper.pad_or_trim(torch.from_numpy(samples))
        mel = whisper.log_mel_spectrogram(padded, self._module.dims.n_mels)
        end = get_tokenizer(self._module.is_multilingual).eot
        options = DecodingOptions(
            language="en",
            without_timestamps=True,
            fp16=self._module.device.type != "cpu",
            sample_len=tokens,
            suppress_tokens=[-1] if tokens is None else [-1, end],
        )
        found: Any = whisper.decode(self._module, mel.to(self._module.device), options)
        return list(found.tokens)


class FasterWhisper:
    """faster-whisper's feature extractor and CTranslate2 model, greedy."""

    name = "faster-whisper"

    def __init__(
        self, module: Whisper, folder: Path, threads: int, device: torch.device = CPU, *, compute_type: str = "int8"
    ) -> None:
        """Converts `module` into `folder`. Raises PeerAbsentError: not installed, or it cannot use the device."""
        convert(module, folder)
        from faster_whisper import WhisperModel

        if device.type == "cuda" and compute_type == "int8":
            compute_type = "int8_float16"
        try:
            self.model = WhisperModel(str(folder), device=device.type, compute_type=compute_type, cpu_threads=threads)
        except (RuntimeError, ValueError) as error:
            raise PeerAbsentError(f"faster-whisper cannot use {device}: {str(error).partition(chr(10))[0]}") from None
        tokenizer = get_tokenizer(module.is_multilingual, num_languages=module.num_languages, language="en")
        self._prompt = list(tokenizer.sot_sequence_including_notimestamps)
        self._end = tokenizer.eot
        if device.type == "cuda":
            try:  # libraries that it needs there are looked for at the first use
                self.decode(np.zeros(SAMPLE_RATE, np.float32), 4)
            except RuntimeError as error:
                said = str(error).partition("\n")[0]
                raise PeerAbsentError(f"faster-whisper cannot use {device}: {said}") from None

    def decode(self, samples: Samples, tokens: int | None) -> list[int]:
        """As `Peer.decode`."""
        padded = np.zeros(whisper.audio.N_SAMPLES, np.float32)
        padded[: len(samples)] = samples
        features = self.model.feature_extractor(padded, padding=0)[:, : whisper.audio.N_FRAMES]
        found = self.model.model.generate(
            self.model.encode(features),
            [self._prompt],
            beam_size=1,
            max_length=2 * (tokens or MOST_TOKENS),  # CTranslate2 lets the text be half as long
            suppress_tokens=[-1] if tokens is None else [-1, self._end],
        )
        return list(found[0].sequences_ids[0])


def peers_at_hand(
    wanted: Sequence[str], module: Whisper, folder: Path, threads: int, device: torch.device
) -> tuple[list[Peer], dict[str, str]]:
    """Those of PEERS that are wanted and run here, on the weights of `module`; of the others why not, by name.

    `folder`: for converted weights.
    """
    makers: dict[str, Callable[[], Peer]] = {
        "openai-whisper": lambda: OpenAIWhisper(module, device),
        "faster-whisper": lambda: FasterWhisper(module, folder, threads, device),
    }
    peers, absent = [], {}
    for name in PEERS:
        if name not in wanted:
            absent[name] = "not asked for"
            continue
        try:
            peers.append(makers[name]())
        except PeerAbsentError as error:
            absent[name] = str(error)
    return peers, absent


@dataclass(frozen=True, slots=True)
class OfflineText:
    """What `transcribe` wrote, the processor seconds it took, and where its words end (empty: not asked for)."""

    text: str
    processor_s: float
    words: tuple[TrueWord, ...] = ()


class Offline:
    """One model's offline readings. `folder`: where they are kept; float32 on the CPU, whatever streams beside it."""

    def __init__(
        self, module: Whisper, *, name: str = "whisper", previous_text: bool = True, folder: Path | None = None
    ) -> None:
        """`previous_text`: the weights were trained with earlier text before the transcript."""
        self.module, self.name = module, name
        self._previous_text = previous_text
        self._folder = folder or cache_root() / "bench" / "offline"
        self._weights = _digest(module)

    @classmethod
    def of(cls, name_or_path: str, folder: Path | None = None) -> "Offline":
        """That of a model as `load_model` takes it. Raises what it raises."""
        model = load_model(name_or_path, head=None, device="cpu", dtype="float32")
        return cls(float32_module(model), name=model.name, previous_text=model.previous_text, folder=folder)

    def read(self, samples: NDArray[np.float32], language: str | None, *, words: bool = False) -> OfflineText:
        """Of samples, float32 [n] at 16 kHz; from disk where they were read before. `language` None: detected."""
        if not self.module.is_multilingual:
            language = "en"
        path = self._folder / f"{self._key(samples, language, words)}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return OfflineText(kept["text"], kept["processor_s"], tuple(TrueWord(**word) for word in kept["words"]))
        except (OSError, ValueError, KeyError, TypeError):
            found = self._transcribe(samples, language, words)
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.part")
        fresh.write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")
        os.replace(fresh, path)
        return found

    def _key(self, samples: NDArray[np.float32], language: str | None, words: bool) -> str:
        asked = (
            version("openai-whisper"),
            self._weights,
            language,
            words,
            self._previous_text,
            torch.get_num_threads(),
        )
        return hashlib.sha256(repr(asked).encode() + samples.tobytes()).hexdigest()

    def _transcribe(self, samples: NDArray[np.float32], language: str | None, words: bool) -> OfflineText:
        torch.manual_seed(0)
        before = time.process_time()
        found = whisper.transcribe(
            self.module,
            samples,
            language=language,
            fp16=False,
            word_timestamps=words,
            condition_on_previous_text=self._previous_text,
        )
        took = time.process_time() - before
        ends = [
            TrueWord(str(word["word"]).strip(), float(word["end"]))
            for segment in found["segments"]
            for word in segment.get("words", ())
        ]
        return OfflineText(str(found["text"]).strip(), took, tuple(ends))


def float32_module(model: Model) -> Whisper:
    """openai-whisper's own module with a model's weights in float32 on the CPU, for its own code to run."""
    module = Whisper(model.dims)
    module.load_state_dict({name: value.float().cpu() for name, value in model.module.state_dict().items()})
    module.register_buffer("alignment_heads", model.module.alignment_heads.cpu(), persistent=False)
    return module.eval()


def _digest(module: Whisper) -> str:
    """Of the weights and of the heads that give words their times."""
    found = hashlib.sha256(repr(module.alignment_heads.indices().tolist()).encode())
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


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
