"""Languages and lists of words as people write them in settings and messages.

Languages: `en`, `English`, `en,de`, `[en, German]` or `auto`; which there are, and which of them a model knows, is for
`streamer.model.whisper` to say: that needs Whisper. Lists: hot words for the decoder, and words that nobody is to
read. The checks raise ValueError with the end of a line (`must be …`); the settings put the key before it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

AUTO = "auto"  # any language: it is detected
LANGUAGE_FORMS = "must be a language such as en or English, several of them (en,de), or auto"
HOT_WORDS_MAX = 100
HOT_WORD_LENGTH = 60  # characters
MASK_WORDS_MAX = 5000
MASK_WORD_LENGTH = 40
MASK_FILE_BYTES = 1_000_000
MASK_FORMS = "must be true (a short English list), false, a list such as [damn, hell] or a file with one word a line"

# What English subtitles usually mask, less what is also a name or a bird; a list of one's own does for other tastes.
ENGLISH = """
    arse arsehole arseholes ass asses asshole assholes bastard bastards bitch bitches bitching bollocks bullshit
    cocksucker cocksuckers cunt cunts damn damned dickhead dickheads dumbass faggot faggots fuck fucked fucker fuckers
    fuckin fucking fucks goddamn goddamned jackass motherfucker motherfuckers motherfucking nigger niggers piss pissed
    shit shite shits shitting shitty slut sluts twat twats wanker wankers whore whores
"""


def named_languages(given: object) -> tuple[str, ...]:
    """The codes and names in lower case, each once; () for any language. ValueError says what would be right."""
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(LANGUAGE_FORMS)
    names = tuple(dict.fromkeys(" ".join(part.split()).lower() for part in parts))
    if names in ((), (AUTO,)):
        return ()
    if not all(re.fullmatch(r"[a-z ]{2,30}", name) for name in names) or AUTO in names:
        raise ValueError(LANGUAGE_FORMS)
    return names


def shown_languages(languages: Sequence[str]) -> str:
    """As one writes them in a setting or a message: `en`, `en,de`, `auto`."""
    return ",".join(languages) or AUTO


def without_marks(text: str) -> str:
    """The text itself; ValueError where it holds Whisper's own marks, which no speaker says."""
    if re.search(r"<\|.*\|>", text):
        raise ValueError("must be plain text, without marks such as <|endoftext|>")
    return text


def hot_words(given: object) -> tuple[str, ...]:
    """Names and phrases, each once, from a list or from text with commas between them."""
    parts = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    if not isinstance(parts, list | tuple):
        raise ValueError("must be a list of words and phrases, such as [Kubernetes, Anna Schmidt]")
    found = dict.fromkeys(_hot_word(part) for part in parts)
    if len(found) > HOT_WORDS_MAX:
        raise ValueError(f"must be at most {HOT_WORDS_MAX} words and phrases, are {len(found)}")
    return tuple(found)


def _hot_word(given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise ValueError(f"must be words and phrases (in quotes where YAML reads something else), has {given!r}")
    word = " ".join(str(given).split())
    if not word or len(word) > HOT_WORD_LENGTH or not word.isprintable():
        raise ValueError(f"must be words and phrases of 1 to {HOT_WORD_LENGTH} readable characters, has {word!r}")
    return without_marks(word)


def masked_words(given: object) -> tuple[str, ...]:
    """Words to be masked, each once: of the bundled list (True), none (False), of a list, or of a file (a path).

    In a file, `#` begins a comment and empty lines count for nothing.
    """
    if isinstance(given, bool):
        return tuple(ENGLISH.split()) if given else ()
    if isinstance(given, str):
        return _checked(_words_in(Path(given).expanduser()))
    if isinstance(given, list | tuple):
        return _checked(given)
    raise ValueError(MASK_FORMS)


def _words_in(path: Path) -> Sequence[str]:
    try:
        if path.stat().st_size > MASK_FILE_BYTES:
            raise ValueError(f"{path} is larger than {MASK_FILE_BYTES} bytes; {MASK_FORMS}")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ValueError(f"{path} cannot be read ({reason}); {MASK_FORMS}") from None
    return [word for line in lines if (word := line.partition("#")[0].strip())]


def _checked(given: Iterable[object]) -> tuple[str, ...]:
    found = dict.fromkeys(_masked_word(word) for word in given)
    if len(found) > MASK_WORDS_MAX:
        raise ValueError(f"must be at most {MASK_WORDS_MAX} words, are {len(found)}")
    return tuple(found)


def _masked_word(given: object) -> str:
    word = unicodedata.normalize("NFC", given.strip()) if isinstance(given, str) else ""
    if not 2 <= len(word) <= MASK_WORD_LENGTH or len(word.split()) > 1 or not any(map(str.isalnum, word)):
        quotes = "in quotes where YAML reads something else"
        raise ValueError(f"must be single words of 2 to {MASK_WORD_LENGTH} characters ({quotes}), has {given!r}")
    return word
