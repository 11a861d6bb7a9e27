"""The programs we measure ourselves against, on the same weights: openai-whisper and faster-whisper.

For cost both do what their streaming wrappers do every hop: decode the window anew, padded to 30 s, greedily, 40
tokens. faster-whisper (extra `bench`) reads a converted copy of the weights in 8 bits; nothing is downloaded.

For quality the peer is whisper_streaming's loop, LocalAgreement-2 over faster-whisper (Macháček, Dabre and Bojar 2023,
github.com/ufal/whisper_streaming): every hop all audio in the buffer is transcribed anew, what two passes agree on is
committed, and a buffer of more than 15 s is cut where a committed segment ends. As published: a beam of 5 and no voice
detection. Unlike it: temperature 0 only, so that a run can be repeated, and text that scrolled off becomes the prompt
only for weights that were trained with one.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from whisper.decoding import DecodingOptions
from whisper.model import MultiHeadAttention, Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from streamer.errors import StreamerError
from streamer.events import SAMPLE_RATE, Event, Transcript, Word, seconds

AGREEMENT_LOOP = "faster-whisper, LocalAgreement-2"
TRIM_S = 15.0
PROMPT_CHARACTERS = 200
EARLY_S = 0.1  # a word that starts more than this before the last committed end was committed already
NEAR_S, NGRAM = 1.0, 5  # a first word so near it may repeat up to five committed words
Samples = NDArray[np.float32]
CPU = torch.device("cpu")
MOST_TOKENS = 224  # of a text that ends by itself
PEERS = ("openai-whisper", "faster-whisper")  # that decode windows anew


class PeerAbsentError(StreamerError):
    """A peer that is not installed, or cannot run here."""


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


def convert(module: Whisper, folder: Path) -> None:
    """Write openai-whisper's weights as a model folder of CTranslate2, with the tokenizer beside it.

    Raises PeerAbsentError when CTranslate2 or faster-whisper is not installed.
    """
    try:
        import faster_whisper  # noqa: F401
        from ctranslate2.specs import WhisperSpec
    except ImportError:
        raise PeerAbsentError("faster-whisper is not installed: pip install 'streamer[bench]'") from None
    dims = module.dims
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    _encoder(spec.encoder, module.encoder)
    _decoder(spec.decoder, module.decoder)
    tokenizer = get_tokenizer(module.is_multilingual, num_languages=module.num_languages)
    words = vocabulary(tokenizer, dims.n_vocab)
    spec.register_vocabulary(words)
    spec.config.suppress_ids = sorted(
        {*tokenizer.non_speech_tokens, tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev}
        | {tokenizer.sot_lm, tokenizer.no_speech}
    )
    spec.config.suppress_ids_begin = [*tokenizer.encode(" "), tokenizer.eot]
    spec.config.lang_ids = list(tokenizer.all_language_tokens) if module.is_multilingual else []
    spec.config.alignment_heads = [[int(a), int(b)] for a, b in module.alignment_heads.indices().T.tolist()]
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    (folder / "tokenizer.json").write_text(json.dumps(hugging_face(tokenizer, words)), encoding="utf-8")
    facts = {"feature_size": dims.n_mels, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400, "chunk_length": 30}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts), encoding="utf-8")


def vocabulary(tokenizer: Tokenizer, size: int) -> list[str]:
    """All tokens in the order of their numbers, bytes written as GPT-2 writes them."""
    letters = _byte_letters()
    encoding = tokenizer.encoding
    ranks = {number: word for word, number in encoding._mergeable_ranks.items()}
    special = {number: word for word, number in encoding._special_tokens.items()}
    return [
        "".join(letters[byte] for byte in ranks[number])
        if number in ranks
        else special.get(number, f"<|unused{number}|>")
        for number in range(size)
    ]


def hugging_face(tokenizer: Tokenizer, words: Sequence[str]) -> dict[str, Any]:
    """The tokenizer in the format of the `tokenizers` package, which faster-whisper reads."""
    ranks = tokenizer.encoding._mergeable_ranks
    letters = _byte_letters()
    merges = []
    for word, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(word) > 1 and (halves := _merged_from(ranks, word, rank)):
            merges.append(["".join(letters[byte] for byte in half) for half in halves])
    first_special = len(ranks)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": words[number], "special": True, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False}
            for number in range(first_special, len(words))
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {words[number]: number for number in range(first_special)},
            "merges": merges,
        },
    }  # fmt: skip


def _merged_from(ranks: dict[bytes, int], word: bytes, rank: int) -> list[bytes]:
    """The two parts that byte-pair encoding joins last to make `word`; empty when there are not two."""
    parts = [bytes([byte]) for byte in word]
    while len(parts) > 2:
        joined = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= rank:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts if len(parts) == 2 else []


def _byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte (openai/gpt-2, src/encoder.py): printable ones stand for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(plain)))
    return letters


def _encoder(spec: Any, module: Any) -> None:
    for number in (1, 2):
        convolution = getattr(module, f"conv{number}")
        _put(getattr(spec, f"conv{number}"), convolution.weight, convolution.bias)
    spec.position_encodings.encodings = _array(module.positional_embedding)
    _norm(spec.layer_norm, module.ln_post)
    for layer, block in zip(spec.layer, module.blocks, strict=True):
        _block(layer, block)


def _decoder(spec: Any, module: Any) -> None:
    spec.embeddings.weight = _array(module.token_embedding.weight)
    spec.projection.weight = _array(module.token_embedding.weight)
    spec.position_encodings.encodings = _array(module.positional_embedding)
    _norm(spec.layer_norm, module.ln)
    for layer, block in zip(spec.layer, module.blocks, strict=True):
        _block(layer, block)
        _norm(layer.attention.layer_norm, block.cross_attn_ln)
        _attention(layer.attention, block.cross_attn, ([0], [1, 2]))


def _block(layer: Any, block: Any) -> None:
    _norm(layer.self_attention.layer_norm, block.attn_ln)
    _attention(layer.self_attention, block.attn, ([0, 1, 2],))
    _norm(layer.ffn.layer_norm, block.mlp_ln)
    _put(layer.ffn.linear_0, block.mlp[0].weight, block.mlp[0].bias)
    _put(layer.ffn.linear_1, block.mlp[2].weight, block.mlp[2].bias)


def _attention(spec: Any, module: MultiHeadAttention, groups: Sequence[Sequence[int]]) -> None:
    """Query, key and value joined in `groups`, then the output; Whisper's keys have no bias: zeros."""
    parts = (module.query, module.key, module.value)
    for linear, group in zip(spec.linear, groups, strict=False):
        chosen = [parts[index] for index in group]
        biases = [part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in chosen]
        _put(linear, torch.cat([part.weight for part in chosen]), torch.cat(biases))
    _put(spec.linear[-1], module.out.weight, module.out.bias)


def _norm(spec: Any, module: Any) -> None:
    spec.gamma, spec.beta = _array(module.weight), _array(module.bias)


def _put(spec: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    spec.weight = _array(weight)
    if bias is not None:
        spec.bias = _array(bias)


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy().copy()


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
