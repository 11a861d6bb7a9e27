"""Which language is spoken in windows: what the decoder puts behind the start of a transcript, among all languages.

On the worker's thread. One step of one token over the windows that are asked alone. It is not recorded on a GPU: it is
rare (at the beginning of an utterance, then every few seconds) and would need a kind of its own for each size.
"""

import torch
from whisper.tokenizer import Tokenizer

from streamer.decoding.decoder import Decoder
from streamer.decoding.kv_cache import KVCache
from streamer.model.transfer import send


def spoken_languages(decoder: Decoder, cache: KVCache, tokenizer: Tokenizer, count: int) -> list[tuple[str, float]]:
    """The language of each of the first `count` windows of the cache, and its probability among all languages.

    The cache is left as it was opened. A probability is not finite where the decoder's output is not.
    """
    if not count:
        return []
    with cache.first(count):
        hidden = decoder.step(cache, [[tokenizer.sot]] * count)[:, 0]
    known = send(tokenizer.all_language_tokens, hidden.device)
    logits = decoder.exact_logits(hidden, known.expand(count, -1))
    probabilities, best = logits.softmax(dim=-1).max(dim=-1)
    codes = tokenizer.all_language_codes
    return [(codes[int(place)], value) for place, value in torch.stack([best.float(), probabilities], dim=1).tolist()]
