"""Languages as people write them, in settings and in messages: `en`, `English`, `en,de`, `[en, German]` or `auto`.

Which names there are, and which of them a model knows, is for `streamer.model.languages` to say: that needs Whisper.
"""

import re
from collections.abc import Sequence

AUTO = "auto"  # any language: it is detected
FORMS = "must be a language such as en or English, several of them (en,de), or auto"


def named_languages(given: object) -> tuple[str, ...]:
    """The codes and names in lower case, each once; () for any language. ValueError says what would be right."""
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(FORMS)
    names = tuple(dict.fromkeys(" ".join(part.split()).lower() for part in parts))
    if names in ((), (AUTO,)):
        return ()
    if not all(re.fullmatch(r"[a-z ]{2,30}", name) for name in names) or AUTO in names:
        raise ValueError(FORMS)
    return names


def shown_languages(languages: Sequence[str]) -> str:
    """As one writes them in a setting or a message: `en`, `en,de`, `auto`."""
    return ",".join(languages) or AUTO
