"""Which language is spoken in windows: what the decoder puts behind the start of a transcript, among the languages that
come into question.

On the worker's thread. One step of one token over the windows that are asked alone. It is not recorded on a GPU: it is
rare (at the beginning of an utterance, then every few seconds) and would need a kind of its own for each size.
"""

from collections.abc import Sequence

import torch
from whisper.tokenizer import Tokenizer

from streamer.errors import EngineError
from streamer.model.decoding.decoder import Decoder
from streamer.model.decoding.kv_cache import KVCache
from streamer.model.transfer import send

Allowed = tuple[str, ...]  # language codes; empty: all that the model knows


def spoken_languages(
    decoder: Decoder, cache: KVCache, tokenizer: Tokenizer, allowed: Sequence[Allowed]
) -> list[tuple[str, float]]:
    """The language of each of the first windows of the cache, and its probability among those `allowed` for it.

    The cache is left as it was opened. A probability is not finite where the decoder's output is not. Raises
    EngineError where the model knows none of a window's languages.
    """
    if not allowed:
        return []
    codes = tokenizer.all_language_codes
    closed = [[int(bool(among) and code not in among) for code in codes] for among in allowed]
    for among, row in zip(allowed, closed, strict=True):
        if all(row):
            raise EngineError(f"languages {', '.join(among)}: the model knows none of them; give codes such as 'en'")
    with cache.first(len(allowed)):
        hidden = decoder.step(cache, [[tokenizer.sot]] * len(allowed))[:, 0]
    known = send(tokenizer.all_language_tokens, hidden.device)
    logits = decoder.exact_logits(hidden, known.expand(len(allowed), -1))
    if any(allowed):
        logits = logits.masked_fill(send(closed, hidden.device).bool(), -torch.inf)
    probabilities, best = logits.softmax(dim=-1).max(dim=-1)
    return [(codes[int(place)], value) for place, value in torch.stack([best.float(), probabilities], dim=1).tolist()]
