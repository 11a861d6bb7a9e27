from streamer.policy.language import ASK_SAMPLES, SURE_AMONG_FEW, LanguageHold


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


def test_only_the_languages_that_are_allowed_are_ever_in_force():
    hold = LanguageHold(("en", "de"))
    assert (hold.current, hold.forced, hold.allowed) == ("", None, ("en", "de"))
    assert not hold.step("fr", 1.0)
    assert hold.step("de", SURE_AMONG_FEW - 0.01)
    assert hold.forced is None
    assert hold.step("de", SURE_AMONG_FEW)
    assert hold.forced == "de"
    assert not any(hold.insists("fr", 1.0) for _ in range(9))
    hold.utterance()
    assert not any(hold.step("fr", 1.0) for _ in range(9))
    assert hold.current == "de"


def test_what_is_withheld_twice_in_a_row_has_the_next_window_asked():
    hold = LanguageHold()
    hold.step("en", 0.9)
    hold.prepare(ASK_SAMPLES)
    asked = []
    for number, everything in enumerate([True, False, True, True, True, False, False]):
        hold.withheld(everything)
        asked.append(hold.prepare(ASK_SAMPLES + 8000 * (number + 1)))
        hold.insists("en", 0.9 if number == 5 else 0.6)
    assert asked == [False, False, False, True, True, True, False]
    assert hold.forced == "en"


def test_windows_of_an_utterance_are_asked_until_one_is_very_sure():
    hold = LanguageHold()
    hold.step("en", 0.6)
    assert hold.forced == "en"
    assert all(hold.prepare(end) for end in (8000, 16_000, 24_000))
    assert not hold.insists("en", 0.9)
    assert not hold.prepare(32_000)
    hold.utterance()
    hold.step("en", 0.5)
    assert hold.prepare(40_000)
    assert not hold.insists("de", 0.9)
    assert hold.prepare(48_000)
    assert not hold.insists("de", 0.9)
    assert hold.prepare(56_000)
    assert hold.insists("de", 0.9)


def test_a_language_that_may_stay_stays_and_is_asked_about():
    hold = LanguageHold(("en",))
    for allowed in ((), ("de", "en")):
        assert not hold.ends_with(allowed)
        hold.restrict(allowed)
        assert (hold.current, hold.forced) == ("en", "en")
        assert hold.prepare(1)
        hold.insists("en", 0.9)
        assert not hold.prepare(2)


def test_a_language_that_may_not_stay_goes():
    hold = LanguageHold(("en",))
    assert hold.ends_with(("de",))
    hold.restrict(("de",))
    assert (hold.current, hold.forced) == ("de", "de")
    assert hold.ends_with(("fr", "es"))
    hold.restrict(("fr", "es"))
    assert (hold.current, hold.forced) == ("", None)
    assert not hold.ends_with(("de",))
