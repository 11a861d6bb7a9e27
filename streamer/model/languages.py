"""Which languages Whisper knows by which names, and which of them one model does."""

from collections.abc import Sequence

from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from streamer.errors import UsageError
from streamer.model.whisper import Model


def language_codes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Whisper's codes of lower-case names or codes, each once. `where`: the option, in the line of the UsageError."""
    codes = {name: TO_LANGUAGE_CODE.get(name, name) for name in names}
    for name, code in codes.items():
        if code not in LANGUAGES:
            raise UsageError(f"{where}: {name!r} is no language that Whisper knows; give en, de, French, …")
    return tuple(dict.fromkeys(codes.values()))


def check_languages(codes: Sequence[str], model: Model, where: str) -> None:
    """UsageError where the model cannot be told these: an English one takes what has `en` in it, and `auto` ()."""
    name = f"the model {model.name}"
    if not model.is_multilingual:
        if codes and "en" not in codes:
            raise UsageError(f"{where}: {name} knows English only; take a multilingual one such as base")
        return
    known = model.tokenizer("en").all_language_codes
    for code in codes:
        if code not in known:
            raise UsageError(f"{where}: {name} does not know {code!r}; large-v3 and turbo know most")
