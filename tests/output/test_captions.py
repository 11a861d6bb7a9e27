"""Cues are legible, in order, and true to the words, however the words arrive."""

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from streamer.events import UNCLEAR, Event, Sound, Span, Tags, Transcript, Word
from streamer.output.captions import HURRIED_MS, LINE_CELLS, MAX_LINES, MIN_MS, Cue, CueMaker, srt_cue, vtt_cue
from streamer.output.plain_text import clean


def spoken(
    words: list[Word], segment: int = 1, final: bool = False, audio_t: float = 0.0, text: str | None = None
) -> Event:
    return Transcript(
        session="s",
        seq=1,
        audio_t=max(audio_t, words[-1].end if words else 0.0),
        segment=segment,
        start=words[0].start if words else 0.0,
        end=words[-1].end if words else 0.0,
        text=" ".join(word.word for word in words) if text is None else text,
        partial="" if final else "and so",
        final=final,
        words=tuple(words),
        language="en",
        speech_probability=1.0,
    )


def sound(label: str, start: float, state: str = "start", audio_t: float | None = None) -> Event:
    end = None if state == "start" else start + 1
    at = start + 1 if audio_t is None else audio_t
    return Sound(session="s", seq=1, audio_t=at, id=1, label=label, state=state, start=start, end=end, score=0.9)


def words(text: str, start: float = 0.0, each: float = 0.3) -> list[Word]:
    return [
        Word(word, round(start + each * index, 3), round(start + each * (index + 1), 3), 0.9)
        for index, word in enumerate(text.split())
    ]


def make(*events: Event) -> list[Cue]:
    maker = CueMaker()
    return [cue for event in events for cue in maker.step(event)] + maker.finish()


def unclear(*spans: tuple[float, float], said: str = "", start: float = 0.0, segment: int = 1) -> Event:
    """A segment that ends with what is said and the spans that could not be written down."""
    event = spoken(words(said, start=start), segment, True, audio_t=max(end for _, end in spans))
    assert isinstance(event, Transcript)
    return replace(event, unclear=tuple(Span(begin, end) for begin, end in spans))


def text_of(cues: list[Cue]) -> str:
    return " ".join(line for cue in cues if not cue.aside for line in cue.lines)


def test_a_short_segment_is_one_cue_of_at_least_a_second():
    assert make(spoken(words("Yes.", start=2.0), final=True)) == [Cue(2000, 3000, ("Yes.",))]


def test_what_was_unclear_is_marked_in_its_time():
    assert make(unclear((2.0, 4.5))) == [Cue(2000, 4500, (UNCLEAR,), True)]
    said = make(unclear((1.0, 1.2), (1.5, 3.5), said="That was clear."))
    assert [cue.lines[0] for cue in said] == ["That was clear.", UNCLEAR, UNCLEAR]
    assert all(before.end_ms <= after.start_ms for before, after in itertools.pairwise(said))


def test_unclear_speech_under_words_that_were_shown_is_marked_once_behind_them():
    maker = CueMaker()
    cues = maker.step(spoken(words("It was so loud there. Then all was quiet again and we went home.", each=0.6)))
    assert cues
    shown_ms = cues[-1].end_ms
    cues += maker.step(unclear((0.1, 0.5), (0.9, 1.3), said="It was so loud there.", segment=1)) + maker.finish()
    marks = [cue for cue in cues if cue.aside]
    assert [mark.lines for mark in marks] == [(UNCLEAR,)]
    assert marks[0].start_ms >= shown_ms


def test_words_that_follow_end_the_mark():
    cues = make(unclear((2.0, 3.5)), spoken(words("And on.", start=3.2), 2, final=True))
    assert [(cue.start_ms, cue.end_ms, cue.lines[0]) for cue in cues] == [
        (2000, 3200, UNCLEAR),
        (3200, 4200, "And on."),
    ]


def test_long_speech_becomes_cues_while_it_goes_on():
    said = words("one two three four five six seven eight nine ten " * 8)
    maker = CueMaker()
    early = maker.step(spoken(said[:40]))
    assert early
    assert all(len(cue.lines) <= MAX_LINES for cue in early)
    rest = maker.step(spoken(said, final=True)) + maker.finish()
    assert text_of(early + rest) == " ".join(word.word for word in said)


def test_cues_break_at_pauses_and_sentences():
    said = words("We are here now with you. And then") + words("later we go on", start=9.0)
    cues = make(spoken(said, final=True))
    assert [" ".join(cue.lines) for cue in cues] == ["We are here now with you. And then", "later we go on"]
    slow = words("We are here now with you. And then we go on", each=0.5)
    assert [" ".join(cue.lines) for cue in make(spoken(slow, final=True))] == [
        "We are here now with you.",
        "And then we go on",
    ]


def test_two_lines_are_about_equally_long():
    (cue,) = make(spoken(words("the quick brown fox jumps over the lazy dog again and", each=0.2), final=True))
    assert len(cue.lines) == 2
    assert abs(cell_len(cue.lines[0]) - cell_len(cue.lines[1])) < 12


def test_sounds_have_cues_of_their_own_between_the_words():
    said = words("one two three four five six", each=0.5)
    maker = CueMaker()
    cues = maker.step(spoken(said[:4])) + maker.step(sound("Siren", 1.2, audio_t=2.0))
    cues += maker.step(spoken(said, final=True)) + maker.step(sound("Siren", 1.2, "end")) + maker.finish()
    assert [cue.lines for cue in cues] == [("one two three",), ("[Siren]",), ("four five six",)]
    assert cues[1].start_ms == 1500


def test_a_short_phrase_is_not_torn_apart_by_a_sound():
    said = words("four nine one", each=0.4)
    cues = make(spoken(said[:2]), sound("Thunder", 0.5, audio_t=1.2), spoken(said, final=True))
    assert [cue.lines for cue in cues] == [("four nine one",), ("[Thunder]",)]


def test_a_sound_waits_for_words_that_are_being_decoded():
    maker = CueMaker()
    tick = Tags(session="s", seq=2, audio_t=5.0, start=0.0, end=5.0, tags=())
    early = maker.step(spoken([], audio_t=1.0)) + maker.step(sound("Siren", 1.2)) + maker.step(tick)
    assert early == []
    said = words("one two three", start=0.2)
    cues = maker.step(spoken(said, final=True, audio_t=5.5)) + maker.finish()
    assert [cue.lines for cue in cues] == [("one two three",), ("[Siren]",)]


def test_a_sound_in_silence_is_shown_soon():
    maker = CueMaker()
    assert maker.step(sound("Siren", 5.0)) == []
    tick = Tags(session="s", seq=2, audio_t=8.0, start=0.0, end=8.0, tags=())
    assert maker.step(tick) == [Cue(5000, 6500, ("[Siren]",), True)]


def test_languages_without_spaces_and_endless_words():
    said = [Word(char, index * 0.2, index * 0.2 + 0.2, 0.9) for index, char in enumerate("今日は天気がいいですね" * 6)]
    cues = make(spoken(said, final=True, text="".join(word.word for word in said)))
    assert "".join(line for cue in cues for line in cue.lines) == "今日は天気がいいですね" * 6
    assert all(cell_len(line) <= LINE_CELLS for cue in cues for line in cue.lines)
    cues = make(spoken([Word("a" * 500, 0.0, 8.0, 0.9)], final=True))
    assert "".join(line for cue in cues for line in cue.lines) == "a" * 500


def test_text_without_word_times_is_not_lost():
    event = spoken([], final=True, text="hello there", audio_t=3.0)
    assert text_of(make(event)) == "hello there"


def test_no_empty_cues_and_no_control_characters():
    assert make(spoken([Word("\x1b", 0.0, 0.1, 1.0), Word("  ", 0.1, 0.2, 1.0)], final=True)) == []
    assert make(sound("\n\n", 1.0)) == []
    (cue,) = make(spoken([Word("a\n\nb\x1b[2J\u202e", 0.0, 1.0, 1.0)], final=True))
    assert cue.lines == ("a b [2J",)


WORD_TEXT = st.text(st.sampled_from("abcdefgh.!?,-今<>&"), min_size=1, max_size=50)
SPEECH = st.lists(
    st.tuples(st.sampled_from(["word", "word", "word", "final", "sound", "show"]), WORD_TEXT, st.integers(0, 4000)),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(script=SPEECH)
def test_any_speech_gives_legible_cues_in_order(script):
    """Words with random times, committed in random portions, among random sounds: nothing is lost or out of order."""
    maker, cues, said, segment, now = CueMaker(), [], [], 1, 0
    all_words: list[str] = []
    for what, text, step_ms in script:
        start, now = now, now + step_ms
        if what == "word":
            said.append(Word(text, start / 1000, now / 1000, 0.5))
            all_words.append(text)
        elif what == "final":
            cues += maker.step(spoken(said, segment, True, now / 1000))
            said, segment = [], segment + 1
        elif what == "sound":
            cues += maker.step(sound("Siren", max(0, now - 1500) / 1000, audio_t=now / 1000))
        else:
            cues += maker.step(spoken(said, segment, False, now / 1000))
    cues += maker.step(spoken(said, segment, True, now / 1000)) + maker.finish()
    for cue in cues:
        assert cue.start_ms < cue.end_ms
        assert 1 <= len(cue.lines) <= MAX_LINES
        assert all(line.strip() and cell_len(line) <= LINE_CELLS for line in cue.lines)
    for before, after in itertools.pairwise(cues):
        assert before.end_ms <= after.start_ms
        assert before.end_ms - before.start_ms >= min(MIN_MS, HURRIED_MS)
    assert text_of(cues).replace(" ", "") == clean(" ".join(all_words)).replace(" ", "")
    assert sum(cue.aside for cue in cues) == sum(what == "sound" for what, _, _ in script)


def test_exact_blocks():
    cue = Cue(3_723_004, 3_725_000, ("a & b <i> -->", "second"))
    assert srt_cue(cue, 7) == "7\n01:02:03,004 --> 01:02:05,000\na & b <i> →\nsecond\n\n"
    assert vtt_cue(cue, 7) == "01:02:03.004 --> 01:02:05.000\na &amp; b &lt;i&gt; --&gt;\nsecond\n\n"
