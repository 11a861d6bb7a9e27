"""The text session's promises under random speech, random hypotheses and every guard on."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events import FRAME_SAMPLES
from streamer.events.plans import Beat, Hop, Hypothesis, HypothesisWord, SegmentClosed, SegmentOpened, SpeechOver
from streamer.policy.prompt import TextModel
from streamer.policy.text_session import TextSession
from streamer.settings.config import PolicySettings, Settings, WindowSettings
from streamer.vad.planner import Planner, VoiceFrame

MODEL = TextModel(encode=lambda text: tuple(text.encode()), fixed_language="en", carries_prompt=True)
FRAME = np.full(FRAME_SAMPLES, 0.1, np.float32)
AGREEMENT = PolicySettings(name="agreement")
VOCABULARY = ["one", "two", "three.", "Four,", "five"]


def hypothesis(words, logprob=-0.2, no_speech=0.0, ratio=1.0):
    return Hypothesis(tuple(words), "en", 1.0, no_speech, logprob, ratio, True)


def word(text, start, end, probability=0.99):
    mark = text[-1] if text[-1] in ".,?" else ""
    tokens = (len(text), ord(text[0]), *([ord(mark)] if mark else []))
    attended = max(start, end - 160)
    return HypothesisWord(f" {text}", tokens, start, end, probability, attended, mark, int(bool(mark)))


def shown(session):
    """Committed and partial text of the open segment, empty when there is none."""
    return session._segment.shown if session._segment else ("", "")


@st.composite
def speech(draw):
    """Runs of voiced and unvoiced frames, up to two minutes."""
    runs = draw(st.lists(st.integers(1, 900), min_size=1, max_size=10))
    return [index % 2 == 0 for index, run in enumerate(runs) for _ in range(run)]


def played(flags, random, stable, config):
    """The changes of a session, and the sample at which each came, with hypotheses that are drawn as it goes."""
    session, planner = TextSession(config, MODEL), Planner(config)
    changes, audio_t = [], []
    tail: list[str] = []

    def carry_out(plan):
        if isinstance(plan, SegmentOpened):
            session.open(plan)
            return plan.end_sample, []
        if isinstance(plan, SegmentClosed):
            found = session.close(plan)
            assert shown(session)[1] == ""  # the last words come out with the gate's closing, not later
            return plan.end_sample, found
        if isinstance(plan, SpeechOver):
            found = session.end(plan.end_sample)
            assert shown(session) == ("", "")
            return plan.end_sample, found
        session.hear(plan)
        start, task = session.prepare(plan.end_sample, plan.text)
        assert 0 <= start <= plan.end_sample
        assert start % 160 == 0
        assert plan.end_sample - start <= 30 * 16000 + 160
        if task is None:
            return plan.end_sample, []
        settled = [w for change in changes[-1:] for w in change.words]
        inside = [w for w in settled if w.end_sample > start]
        expected = tuple(token for w in inside for token in w.tokens)
        assert task.prefix[len(task.prefix) - len(expected) :] == expected
        if not stable or not tail:
            tail[:] = [random.choice(VOCABULARY) for _ in range(random.randint(0, 8))]
        spots = sorted(random.randint(start, plan.end_sample) for _ in range(2 * len(tail)))
        words = [word(text, *spots[2 * i : 2 * i + 2]) for i, text in enumerate(tail)]
        if stable and random.random() < 0.5:
            tail.clear()
        heard = hypothesis(words, random.choice([-0.1, -2.0]), random.choice([0.0, 0.9]))
        return plan.end_sample, session.step(heard, plan.end_sample, random.choice([None, 0.9, 0.0]))

    plans = []
    for flag in flags:
        plans += planner.step(FRAME, VoiceFrame(flag, -20))
    end = len(flags) * FRAME_SAMPLES
    for plan in [*plans, *planner.finish(np.zeros(0, np.float32)), SpeechOver(end, end)]:
        if isinstance(plan, Beat):  # for the patterns of alarms; the text knows nothing of it
            continue
        at, found = carry_out(plan)
        changes += found
        audio_t += [at] * len(found)
    return changes, audio_t


@settings(max_examples=60, deadline=None)
@given(
    speech(),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.sampled_from([5.0, 30.0]),
    st.sampled_from(["agreement", "alignatt"]),
    st.sampled_from([200, 1500]),
)
def test_promises_hold(flags, random, stable, segment_max_s, policy, pause_ms):
    config = Settings(
        window=WindowSettings(segment_max_s=segment_max_s),
        policy=PolicySettings(name=policy, segment_pause_ms=pause_ms),
    )
    check_transcripts(*played(flags, random, stable, config))


def check_transcripts(changes, audio_t):
    by_segment: dict[int, list] = {}
    for change, at in zip(changes, audio_t, strict=True):
        by_segment.setdefault(change.segment, []).append(change)
        assert change.end_sample <= at
    assert list(by_segment) == list(range(len(by_segment)))
    last_end = 0
    for states in by_segment.values():
        assert [state.final for state in states] == [False] * (len(states) - 1) + [True]
        assert states[-1].partial == ""
        for one, other in itertools.pairwise(states):
            assert other.text.startswith(one.text)
            assert other.words[: len(one.words)] == one.words
            assert other.start_sample == one.start_sample
        final = states[-1]
        assert final.text.split() == "".join(w.text for w in final.words).split()
        last_end = max(last_end, 0)
        for w in final.words:
            assert last_end <= w.start_sample <= w.end_sample
            assert final.start_sample <= w.start_sample
            assert w.end_sample <= final.end_sample
            last_end = w.end_sample


def hop(end_s, voiced=True):
    return Hop(round(end_s * 16000), np.zeros(8000, np.float32), (voiced,) * 25, True, False, False, -20)


def spoken(session, end_s, words, **about):
    session.hear(hop(end_s))
    start, task = session.prepare(round(end_s * 16000), True)
    return start, task, session.step(hypothesis(words, **about), round(end_s * 16000), None)


def test_a_stream_without_pause_or_agreement_is_committed_after_15_s():
    session = TextSession(Settings(policy=AGREEMENT), MODEL)
    session.open(SegmentOpened(960, 0))
    committed = ""
    for step in range(1, 80):
        end_s = step * 0.5
        words = [word(f"w{step}x{second}", second * 16000, second * 16000 + 8000) for second in range(int(end_s))]
        words = [w for w in words if w.start_sample >= session._committed_end]
        start, _, changes = spoken(session, end_s, words)
        assert end_s * 16000 - start <= 30 * 16000
        committed = changes[-1].text if changes else committed
    assert len(committed.split()) >= 10


def test_audio_without_words_is_given_up_so_that_the_window_stays_small():
    session = TextSession(Settings(), MODEL)
    session.open(SegmentOpened(960, 0))
    for step in range(1, 240):
        start, _, changes = spoken(session, step * 0.5, [])
        assert step * 8000 - start <= 16 * 16000
        assert changes == []


def test_a_window_starts_at_a_word_not_in_it():
    session = TextSession(Settings(policy=AGREEMENT), MODEL)
    session.open(SegmentOpened(960, 0))
    early = [word("long", 16000, 40000), word("next", 40000, 56000)]
    spoken(session, 4, early)
    spoken(session, 4.5, early)
    start, task = session.prepare(12 * 16000, True)  # 10 s back lies inside "long"
    assert start == 16000
    assert task is not None
    assert task.prefix == (4, ord("l"), 4, ord("n"))
    start, task = session.prepare(13 * 16000, True)
    assert start == 40000
    assert task is not None
    assert task.prefix == (4, ord("n"))
    assert task.prompt == (4, ord("l"))


def test_guards_explain_what_they_withhold(caplog):
    session = TextSession(Settings(), MODEL)
    session.open(SegmentOpened(960, 0))
    said = [word("thanks", 3200, 6400)]
    with caplog.at_level("DEBUG", "streamer.policy.hallucination"):
        spoken(session, 0.5, said, no_speech=0.9, logprob=-1.5)
        session.step(hypothesis(said), 8000, 0.01)
        loop = [word("ha", index * 100, index * 100 + 50) for index in range(12)]
        session.step(hypothesis(loop), 8000, 0.9)
    assert session.guards.suppressed == {"silence": 1, "speech_tag": 1, "loop": 1}
    assert "guard silence withholds words: 1, at sample 8000" in caplog.text
    assert "thanks" not in caplog.text  # what was said stands in no log


def test_an_utterance_of_which_no_window_is_likely_is_shown_and_not_committed():
    session = listening(Settings())
    for end in (40_000, 48_000, 56_000):
        session.step(hypothesis([word("fire", 1600, 8000)], logprob=-0.9), end, None)
        assert shown(session) == ("", "fire")
    session.close(SegmentClosed(72_000, 64_000))
    (final,) = session.end(88_000)
    assert (final.text, final.words, bool(final.unclear)) == ("", (), True)
    assert session.guards.suppressed["doubt"] == 1


def test_one_likely_window_is_enough_for_an_utterance_and_not_for_the_next():
    session = listening(Settings())
    session.step(hypothesis([word("one", 1600, 8000)], logprob=-0.5), 40_000, None)
    session.step(hypothesis([word("two", 20_000, 28_000)], logprob=-0.9), 56_000, None)
    assert shown(session) == ("one two", "")
    session.close(SegmentClosed(66_000, 56_000))
    session.open(SegmentOpened(70_000, 68_000))
    for step in range(9, 13):
        session.hear(hop(step * 0.5))
    session.step(hypothesis([word("three", 70_000, 78_000)], logprob=-0.9), 90_000, None)
    assert shown(session) == ("one two", "three")


@pytest.mark.parametrize(("no_speech", "logprob"), [(0.9, -0.7), (0.5, -0.7)])
def test_one_doubt_alone_withholds_nothing(no_speech, logprob):
    session = listening(Settings())
    session.step(hypothesis([word("one", 1600, 8000)], logprob=logprob, no_speech=no_speech), 64000, None)
    assert shown(session) == ("one", "")


def test_words_that_are_committed_already_are_not_written_again():
    session = listening(Settings())
    early = [word("one", 1600, 8000), word("two", 12000, 16000)]
    session.step(hypothesis(early), 32000, None)
    changes = session.step(hypothesis([*early, word("three", 24000, 32000)]), 48000, None)
    assert changes[-1].text == "one two three"
    assert session.guards.suppressed["past"] == 1


def test_a_decoder_that_loses_its_place_twice_is_shown_nothing_that_is_committed():
    session = listening(Settings())
    early = [word("one", 1600, 8000), word("two", 12000, 16000)]
    session.step(hypothesis(early), 40000, None)
    assert shown(session)[0] == "one two"
    loop = [word("ha", 32000 + 40 * index, 32000 + 40 * index + 30) for index in range(12)]
    for end, asked_afresh in ((48000, False), (56000, True)):
        session.step(hypothesis(loop), end, None)
        start, task = session.prepare(end + 8000, True)
        assert ((task.prefix, task.prompt) == ((), ())) is asked_afresh
        assert " ".join(shown(session)).startswith("one two ha")
    assert start >= 16000
    session.step(hypothesis([word("three", 48000, 52000)]), 72000, None)
    session.close(SegmentClosed(72000, 56000))
    (final,) = session.end(88000)
    assert (final.final, final.segment) == (True, 0)
    assert final.text.endswith("three.")


def test_a_full_stop_waits_for_whether_somebody_goes_on():
    session = listening(Settings())
    session.step(hypothesis([word("my", 1600, 8000), word("fellow.", 9000, 16000)]), 40000, None)
    assert shown(session) == ("my fellow", "")
    _, task = session.prepare(48000, True)
    assert task.prefix == (2, ord("m"), 7, ord("f"))  # without the mark
    comma = HypothesisWord(",", (44,), 16000, 16000, 0.9, 16000, ",", 1)
    session.step(hypothesis([comma, word("ask.", 30000, 36000)]), 64000, None)
    assert shown(session) == ("my fellow, ask", "")
    session.close(SegmentClosed(72000, 62000))
    session.open(SegmentOpened(80000, 76000))  # goes on in the same segment
    session.close(SegmentClosed(90000, 76000))
    (final,) = session.end(96000)
    assert final.text == "my fellow, ask."


def prompt_behind_a_pause(session):
    _, task = session.prepare(96_000, True)
    return task.prompt


def test_a_decoder_that_makes_up_how_a_sentence_goes_on_is_told_that_it_may_be_over():
    """ "the epoch of incredulity." "It was": without the mark the decoder goes on with "of", of little probability."""
    session = listening(Settings())
    session.step(hypothesis([word("the", 1600, 8000), word("epoch.", 9000, 16000)]), 40000, None)
    session.close(SegmentClosed(72000, 16000))
    session.open(SegmentOpened(80000, 76000))
    without = prompt_behind_a_pause(session)
    session.step(hypothesis([word("It", 80_000, 84_000)]), 84_000, None)
    assert prompt_behind_a_pause(session) == without  # a likely word is no made-up one
    session.step(hypothesis([word("of", 77_000, 80_000, 0.3), word("it", 81_000, 84_000)]), 88_000, None)
    assert prompt_behind_a_pause(session) == (*without, ord("."))
    session.step(hypothesis([word("It", 77_000, 80_000), word("was", 81_000, 84_000)]), 96_000, None)
    assert shown(session)[0].startswith("the epoch. It")
    session.close(SegmentClosed(104_000, 90_000))
    session.open(SegmentOpened(112_000, 108_000))
    assert prompt_behind_a_pause(session)[-1] != ord(".")  # the next pause is another


def test_the_mark_of_the_last_word_is_written_when_nobody_goes_on():
    session = listening(Settings())
    session.step(hypothesis([word("one", 1600, 8000), word("two.", 9000, 16000)]), 40000, None)
    (nothing_new,) = session.close(SegmentClosed(72000, 16000)) or [None]
    assert nothing_new is None
    (final,) = session.end(96000)
    assert (final.text, final.final) == ("one two.", True)
    assert [w.text for w in final.words] == [" one", " two", "."]


@pytest.mark.parametrize(
    ("said", "carries", "text"),
    [("one", True, "one."), ("1813", True, "1813."), ("一", True, "一"), ("one", False, "one"), ("why?", True, "why?")],
)
def test_a_segment_without_a_mark_gets_a_full_stop_where_its_model_writes_them(said, carries, text):
    model = TextModel(encode=lambda text: tuple(text.encode()), fixed_language="en", carries_prompt=carries)
    session = TextSession(Settings(), model)
    session.open(SegmentOpened(960, 0))
    session.step(hypothesis([word(said, 1600, 8000)]), 40_000, None)
    session.close(SegmentClosed(50_000, 8000))
    assert session.end(60_000)[-1].text == text


def test_a_long_segment_ends_with_its_sentence():
    session = listening(Settings())
    said = [word("one", 1600, 8000), word("two.", 9000, 16000), word("Three", 100_000, 110_000)]
    for step in range(9, 20):
        session.hear(hop(step * 0.5))
    changes = session.step(hypothesis(said), 160_000, None)
    assert [(change.segment, change.text, change.final) for change in changes] == [
        (0, "one two.", True),
        (1, "Three", False),
    ]


def test_speech_without_a_word_is_unclear():
    session = listening(Settings())
    session.close(SegmentClosed(72000, 64000))
    (final,) = session.end(96000)
    assert (final.text, final.final, final.unclear) == ("", True, ((0, 64000),))
    assert session.end(97000) == []


def test_a_segment_begins_where_what_is_unclear_does_though_words_follow():
    session = listening(Settings())
    assert session.close(SegmentClosed(72_000, 64_000)) == []
    session.open(SegmentOpened(80_000, 76_000))
    for end_s in (4.5, 5.0, 5.5, 6.0):
        session.hear(hop(end_s))
    changes = session.step(hypothesis([word("one", 80_000, 88_000)]), 96_000, None)
    changes += session.close(SegmentClosed(100_000, 96_000)) + session.end(110_000)
    assert changes[-1].text.startswith("one")
    assert {(change.start_sample, change.unclear) for change in changes} == {(0, ((0, 64_000),))}


def test_a_short_noise_without_a_word_is_nothing():
    session = TextSession(Settings(), MODEL)
    session.open(SegmentOpened(960, 0))
    session.hear(hop(0.5))
    assert session.close(SegmentClosed(17000, 8000)) == []
    assert session.end(30000) == []


def test_unlikely_words_are_not_shown_before_they_are_committed():
    session = listening(Settings())
    said = [word("one", 1600, 8000), word("two", 62000, 63000, 0.9), word("guess", 63000, 63900, 0.1)]
    session.step(hypothesis(said), 64000, None)
    assert shown(session) == ("one", "two")


def listening(config):
    """A session that has heard 4 s of voice."""
    session = TextSession(config, MODEL)
    session.open(SegmentOpened(960, 0))
    for step in range(1, 9):
        session.hear(hop(step * 0.5))
    return session


def test_flush_closes_the_segment_and_goes_on():
    session = TextSession(Settings(), MODEL)
    session.open(SegmentOpened(960, 0))
    spoken(session, 0.5, [word("one", 1600, 6400)])
    change = session.flush(9000)[-1]
    assert change.final
    assert change.text == "one"
    _, _, changes = spoken(session, 1.0, [word("two", 9600, 14400)])
    assert changes[0].segment == 1


def test_an_utterance_in_a_doubtful_language_is_not_lost():
    model = TextModel(encode=lambda text: (), fixed_language=None, carries_prompt=True)
    session = TextSession(Settings(), model)
    texts = []
    for index, (language, probability) in enumerate([("en", 0.95), ("cy", 0.3)]):
        start = index * 16_000
        session.open(SegmentOpened(start + 960, start))
        said = Hypothesis((word("yes", start + 3200, start + 6400),), language, probability, 0.0, -0.2, 1.0, True)
        session.step(said, start + 8000, None)
        session.close(SegmentClosed(start + 15_000, start + 6400))
        texts += [change.text for change in session.end(start + 15_500)]
    assert texts == ["yes.", "yes."]
