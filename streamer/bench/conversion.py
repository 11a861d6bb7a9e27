"""openai-whisper's weights as a model folder of CTranslate2, which faster-whisper reads; nothing is downloaded."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from whisper.model import MultiHeadAttention, Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from streamer.errors import StreamerError


class PeerAbsentError(StreamerError):
    """A peer that is not installed, or cannot run here."""


def convert(module: Whisper, folder: Path) -> None:
    """Write openai-whisper's weights as a model folder of CTranslate2, with the tokenizer beside it.

    Raises PeerAbsentError when CTranslate2 or faster-whisper is not installed.
    """
    try:
        import faster_whisper  # noqa: F401
        from ctranslate2.specs import WhisperSpec
    except ImportError:
        raise PeerAbsentError("faster-whisper is not installed: pip install '.[bench]' in Streamer's folder") from None
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
