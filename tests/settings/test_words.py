"""Languages as people write them, and what Whisper and single models make of them."""

import pytest
from random_whisper import ENGLISH, MULTILINGUAL, random_model

from streamer.errors import ConfigError, UsageError
from streamer.model.whisper import check_languages, language_codes
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings, validate
from streamer.settings.words import named_languages, shown_languages


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ()),
        ("auto", ()),
        ([], ()),
        ("EN", ("en",)),
        ("en, German ,en", ("en", "german")),
        (["de", "Haitian  Creole"], ("de", "haitian creole")),
    ],
)
def test_a_name_several_or_any(given, names):
    assert named_languages(given) == names
    assert named_languages(shown_languages(names)) == names


@pytest.mark.parametrize("given", ["", "e9", "en,", "en;de", "auto,en", "x" * 31, False, 7, ["en", False], {"en": 1}])
def test_everything_else_is_refused_with_what_is_right(given):
    with pytest.raises(ValueError, match="such as en or English, several of them"):
        named_languages(given)
    with pytest.raises(ConfigError, match=r"^speech.language: must be a language such as en"):
        validate({"speech": {"language": given}})


def test_settings_hold_one_or_several():
    one, several, none = (validate({"speech": {"language": given}}).speech for given in ("DE", ["en", "de"], "auto"))
    assert (one.language, one.languages) == ("de", ("de",))
    assert (several.language, several.languages) == (("en", "de"), ("en", "de"))
    assert (none.language, none.languages) == (None, ())
    again = validate({"speech": {"language": "en,de"}})
    assert again.speech == several
    assert again.with_languages(("fr",)).speech.language == "fr"


def test_names_become_codes_and_unknown_ones_are_named():
    assert language_codes(("english", "de", "german", "castilian"), "--language") == ("en", "de", "es")
    with pytest.raises(UsageError, match=r"^--language: 'klingon' is no language that Whisper knows"):
        language_codes(("en", "klingon"), "--language")


def test_an_english_model_takes_lists_with_english_in_them():
    english, multilingual = random_model(0, vocabulary=ENGLISH), random_model(0, vocabulary=MULTILINGUAL)
    for codes in ((), ("en",), ("de", "en")):
        check_languages(codes, english, "language")
    with pytest.raises(UsageError, match="language: the model random knows English only"):
        check_languages(("de", "fr"), english, "language")
    check_languages(("de", "en"), multilingual, "language")
    with pytest.raises(UsageError, match="the model random does not know 'yue'"):
        check_languages(("en", "yue"), multilingual, "language")


def test_a_stream_takes_names_and_refuses_what_its_model_does_not_know():
    model = random_model(0, vocabulary=ENGLISH)
    Stream(model, Settings(speech={"language": "German,English"}))
    with pytest.raises(UsageError, match=r"^speech.language: the model random knows English only"):
        Stream(model, Settings(speech={"language": "German"}))
