from streamer.policy.language import LanguageHold


def test_a_fixed_language_is_never_changed():
    hold = LanguageHold(("en",))
    assert hold.step("de", 1.0)
    assert (hold.current, hold.forced) == ("en", "en")


def test_the_first_sure_detection_is_held_for_the_utterance():
    hold = LanguageHold()
    assert hold.forced is None
    assert hold.step("de", 0.3)
    assert hold.forced is None
    assert hold.step("de", 0.9)
    assert (hold.current, hold.forced) == ("de", "de")


def test_another_language_must_insist():
    hold = LanguageHold()
    hold.step("de", 0.9)
    hold.utterance()
    assert not hold.step("fr", 0.9)
    assert not hold.step("fr", 0.9)
    assert hold.current == "de"
    assert hold.step("fr", 0.9)
    assert (hold.current, hold.forced) == ("fr", "fr")


def test_the_held_language_ends_the_doubt():
    hold = LanguageHold()
    hold.step("de", 0.9)
    hold.utterance()
    assert not hold.step("fr", 0.9)
    assert hold.step("de", 0.4)
    assert hold.forced == "de"


def test_a_doubtful_detection_is_decoded_again_in_the_held_language():
    hold = LanguageHold()
    hold.step("de", 0.9)
    hold.utterance()
    assert hold.forced is None
    assert not hold.step("fr", 0.7)
    assert hold.forced == "de"
    assert hold.step("de", 0.6)
