"""A change of language while somebody goes on speaking: noticed, cheap, and never at the cost of committed text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events.plans import DecodeTask, Hop, Hypothesis, HypothesisWord, SegmentClosed, SegmentOpened
from streamer.policy.language import ASK_SAMPLES, DOUBT_SAMPLES, TIMES, VERY_SURE, LanguageHold
from streamer.policy.prompt import TextModel
from streamer.policy.text_session import TextChange, TextSession
from streamer.settings.config import PolicySettings, Settings, SpeechSettings

MODEL = TextModel(encode=lambda text: (), fixed_language=None, carries_prompt=False)
HOP = 8000
Spoken = Callable[[float], str]  # which language is spoken at a second


@dataclass
class Talk:
    """What came of somebody who talks without a pause, a word a second, in one language or another."""

    changes: list[tuple[float, TextChange]] = field(default_factory=list)
    tasks: list[tuple[int, int, DecodeTask]] = field(default_factory=list)  # start and end of the window, and its task

    @property
    def asked(self) -> list[int]:
        return [end for _, end, task in self.tasks if task.detect]

    @property
    def finals(self) -> list[TextChange]:
        return [change for _, change in self.changes if change.final]


def talk(
    spoken: Spoken,
    seconds: float,
    *,
    policy: str = "alignatt",
    speech_score: float | None = None,
    believed: Callable[[str, str], bool] = lambda written, spoken: True,
    wishes: Mapping[float, tuple[str, ...]] | None = None,
    **speech,
) -> Talk:
    """The decoder writes each word in the language it is told; the window's language is what most of it is in.

    `believed`: whether a window in one language may be written in another without every word being withheld. `wishes`:
    which languages a client sets, and at which second.
    """
    session = TextSession(Settings(policy=PolicySettings(name=policy), speech=SpeechSettings(**speech)), MODEL)
    session.open(SegmentOpened(960, 0))
    found = Talk()
    for end in range(HOP, round(seconds * 16_000) + 1, HOP):
        if (wish := (wishes or {}).get((end - HOP) / 16_000)) is not None:
            changes = session.set_language(wish, end - HOP)
            found.changes += [((end - HOP) / 16_000, change) for change in changes]
        session.hear(Hop(end, np.zeros(HOP, np.float32), (True,) * 25, True, False, False, -20))
        start, task = session.prepare(end, True)
        assert task is not None
        found.tasks.append((start, end, task))
        times = np.arange(start, end, 1600) / 16_000
        names = [spoken(second) for second in times]
        names = [name for name in names if not task.languages or name in task.languages] or [*task.languages[:1]]
        most = max(sorted(set(names)), key=names.count)
        share = names.count(most) / len(names)
        written = task.language or most
        words = [
            HypothesisWord(f" {written}{n}", (n,), n * 16_000 + 1600, n * 16_000 + 12_800, 0.99, n * 16_000 + 8000)
            for n in range(len(found.tasks))
            if n * 16_000 + 1600 >= session._committed_end and n * 16_000 + 12_800 <= end
        ]
        said = (most, share)
        heard = Hypothesis(
            tuple(words),
            written,
            1.0 if task.language else share,
            0.0,
            -0.1 if believed(written, most) else -5.0,
            1.0,
            True,
            spoken_language=said if task.detect else None,
        )
        found.changes += [(end / 16_000, change) for change in session.step(heard, end, speech_score)]
    end = round(seconds * 16_000)
    last = session.close(SegmentClosed(end, end)) + session.end(end)
    found.changes += [(seconds, change) for change in last]
    return found


@pytest.mark.parametrize("policy", ["alignatt", "agreement"])
def test_a_change_in_continuous_speech_is_noticed_and_holds_from_the_next_segment_on(policy):
    found = talk(lambda second: "en" if second < 70 else "de", 150, policy=policy)
    languages = [change.language for change in found.finals]
    assert languages == sorted(languages, reverse=True)
    assert set(languages) == {"en", "de"}
    (changed, _) = next((at, change) for at, change in found.changes if change.language == "de")
    assert 70 < changed < 90
    committed = [word.text.strip() for change in found.finals for word in change.words]
    assert [word[2:] for word in committed] == [str(number) for number in range(150)]
    for change in found.finals:
        assert {word.text.strip()[:2] for word in change.words} == {change.language}


def test_committed_text_of_the_old_language_is_shown_to_no_later_window():
    found = talk(lambda second: "en" if second < 40 else "de", 80)
    switched = next(index for index, (_, _, task) in enumerate(found.tasks) if task.language == "de")
    last = next(change for change in reversed(found.finals) if change.language == "en")
    _, _, task = found.tasks[switched]
    assert (task.prefix, task.prompt, task.draft) == ((), (), ())
    assert all(start >= last.words[-1].end_sample for start, _, _ in found.tasks[switched:])


def test_asking_is_rare():
    steady = talk(lambda second: "en", 120)
    assert all(np.diff(steady.asked) >= ASK_SAMPLES)
    assert len(steady.asked) >= 20
    changing = talk(lambda second: ("en", "de")[int(second) // 20 % 2], 120)
    assert all(np.diff(changing.asked) >= DOUBT_SAMPLES)


def test_what_is_withheld_makes_the_change_quick():
    found = talk(lambda second: "en" if second < 40 else "de", 80, believed=lambda written, spoken: written == spoken)
    (changed, _) = next((at, change) for at, change in found.changes if change.language == "de")
    slow = talk(lambda second: "en" if second < 40 else "de", 80)
    assert changed < next(at for at, change in slow.changes if change.language == "de") - 3
    assert min(np.diff(found.asked)) == HOP


def test_no_language_but_those_of_the_settings_is_ever_written():
    languages = ("en", "de")
    found = talk(lambda second: ("en", "fr", "de", "es")[int(second) // 20 % 4], 120, language=["en", "de"])
    assert all(task.languages == languages for _, _, task in found.tasks)
    assert {task.language for _, _, task in found.tasks} <= {None, *languages}
    assert {change.language for _, change in found.changes} == set(languages)


def test_a_client_changes_the_language_at_the_next_window_and_what_is_committed_stays():
    found = talk(lambda second: "de", 20, language="en", wishes={10.0: ("de",)})
    windows = {end: task for _, end, task in found.tasks}
    assert (windows[160_000].language, windows[168_000].language) == ("en", "de")
    assert (windows[168_000].prefix, windows[168_000].draft) == ((), ())
    ended = next(change for at, change in found.changes if change.final)
    assert (ended.language, ended.partial) == ("en", "")
    assert [at for at, change in found.changes if change.final] == [10.0, 20.0]
    committed = [word.text.strip() for change in found.finals for word in change.words]
    assert [word[2:] for word in committed] == [str(number) for number in range(20)]
    assert {word[:2] for word in committed[:9]} == {"en"}
    assert {word[:2] for word in committed[10:]} == {"de"}
    for change in found.finals:
        assert {word.text.strip()[:2] for word in change.words} == {change.language}


def test_a_wish_that_holds_already_changes_nothing():
    plain = talk(lambda second: "en", 20, language="en")
    wished = talk(lambda second: "en", 20, language="en", wishes={10.0: ("en",)})
    assert wished.changes == plain.changes


def test_a_client_may_have_the_language_detected_again():
    found = talk(lambda second: "de", 30, language="en", wishes={10.0: ()})
    assert found.asked[0] == 168_000
    assert next(at for at, change in found.changes if change.language == "de") < 17
    assert not any(change.final for at, change in found.changes if at <= 10.5)


def test_a_client_may_set_the_language_while_nobody_speaks():
    session = TextSession(Settings(speech=SpeechSettings(language="en")), MODEL)
    assert session.set_language(("de", "fr"), 16_000) == []
    session.open(SegmentOpened(20_000, 18_000))
    _, task = session.prepare(24_000, True)
    assert task is not None
    assert (task.language, task.languages) == (None, ("de", "fr"))


def test_a_few_foreign_words_change_nothing():
    found = talk(lambda second: "fr" if 50 <= second < 54 else "en", 100)
    assert {change.language for _, change in found.changes} == {"en"}


def test_what_is_heard_in_noise_is_no_language():
    found = talk(lambda second: "en" if second < 30 else "cy", 60, speech_score=0.1)
    assert all(task.language in (None, "en") for _, _, task in found.tasks)


def test_a_language_of_the_settings_is_never_asked_about():
    found = talk(lambda second: "en" if second < 30 else "de", 60, language="en")
    assert found.asked == []
    assert {change.language for _, change in found.changes} == {"en"}


@given(
    st.lists(st.tuples(st.sampled_from(["en", "de", "fr"]), st.integers(1, 40)), min_size=1, max_size=6),
    st.sampled_from(["alignatt", "agreement"]),
)
def test_whatever_is_spoken_committed_text_only_grows_and_no_word_is_lost(turns, policy):
    names = [name for name, seconds in turns for _ in range(seconds)]
    found = talk(lambda second: names[min(int(second), len(names) - 1)], len(names), policy=policy)
    shown: dict[int, str] = {}
    for _, change in found.changes:
        assert change.text.startswith(shown.get(change.segment, ""))
        shown[change.segment] = change.text
    committed = [word.text.strip()[2:] for change in found.finals for word in change.words]
    assert committed == [str(number) for number in range(len(names))]
    assert all(np.diff(found.asked) >= DOUBT_SAMPLES)


def settled() -> LanguageHold:
    hold = LanguageHold()
    hold.step("en", 0.9)
    return hold


def test_another_language_must_insist_without_a_break():
    hold = settled()
    said = [("de", 0.9)] * (TIMES - 1) + [("en", 0.9)] + [("de", 0.9)] * (TIMES - 1)
    assert not any(hold.insists(*one) for one in said)
    assert not hold.insists("de", VERY_SURE - 0.01)
    assert not any(hold.insists("de", 0.9) for _ in range(TIMES - 1))
    assert hold.insists("de", 0.9)
    assert hold.current == "en"
    hold.change()
    assert (hold.current, hold.forced) == ("de", "de")


def test_it_is_asked_more_often_while_in_doubt():
    hold = settled()
    assert not hold.prepare(ASK_SAMPLES - 1)
    assert hold.prepare(ASK_SAMPLES)
    hold.insists("de", 0.9)
    assert not hold.prepare(ASK_SAMPLES + DOUBT_SAMPLES - 1)
    assert hold.prepare(ASK_SAMPLES + DOUBT_SAMPLES)
    hold.insists("en", 0.9)
    assert not hold.prepare(ASK_SAMPLES + 2 * DOUBT_SAMPLES)
