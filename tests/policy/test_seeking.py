"""How a recording is cut into windows and passages; openai-whisper's own loop is the judge in tests/runtime."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.policy.seeking import (
    COMPRESSION_MOST,
    LOGPROB_LEAST,
    Passage,
    Seeker,
    Slice,
    WindowText,
    is_silence,
    must_try_again,
    slices,
)

FIRST = 1000  # the mark at 0; below it, tokens are the code points of characters


def said(text: str) -> tuple[int, ...]:
    """`<3.2>` is a time mark, everything else a token a character."""
    tokens: list[int] = []
    for part in text.split("<"):
        mark, closed, rest = part.partition(">")
        tokens += [FIRST + round(float(mark) * 50)] if closed else []
        tokens += map(ord, rest if closed else part)
    return tuple(tokens)


def decode(tokens):
    return "".join(chr(token) for token in tokens if token < FIRST)


def written(text, temperature=0.0, logprob=-0.3, no_speech=0.0, compression=1.0):
    return WindowText(said(text), temperature, logprob, no_speech, compression)


def seeker(seconds, **options):
    return Seeker(round(seconds * 100), FIRST, decode, **{"carries": True, **options})


@pytest.mark.parametrize(
    ("text", "found", "following"),
    [
        ("<0.0>a<1.0><1.0>b<2.5><2.5>", [(0, 3, 0, 100), (3, 6, 100, 250)], 250),  # a pair at the end
        ("<0.0>a<1.0><1.4>b<2.5>", [(0, 3, 0, 100), (3, 6, 140, 250)], None),  # one mark: nobody speaks behind it
        ("<0.0>a<1.0><1.0>bc", [(0, 3, 0, 100)], 100),  # unfinished: heard again
        ("<0.0>abc", [(0, 4, 0, None)], None),
        ("<0.2>abc<7.0>", [(0, 5, 0, 700)], None),
        ("", [(0, 0, 0, None)], None),
    ],
)
def test_tokens_are_cut_where_two_marks_meet(text, found, following):
    assert slices(said(text), FIRST) == (tuple(Slice(*one) for one in found), following)


def test_the_next_window_begins_at_the_last_pair_and_reads_what_was_kept():
    one = seeker(50)
    assert (one.window().start, one.window().end, one.window().earlier) == (0, 3000, ())
    passages = one.step(written("<0.0>hello<4.0><5.0>you<20.0><21.0>un"))
    assert passages == [Passage(0, 0, 400, "hello"), Passage(1, 500, 2000, "you")]
    window = one.window()
    assert (window.start, window.end) == (2000, 5000)
    assert window.earlier == said("<0.0>hello<4.0><5.0>you<20.0>")
    assert one.step(written("<1.0>until<3.0>"))[0] == Passage(0, 2000, 2300, "until")
    assert one.window() is None


def test_silence_is_skipped_whole_and_nothing_of_it_is_read_later():
    one = seeker(70)
    one.step(written("<0.0>a<30.0>"))
    assert one.step(written("<0.0>thank you<2.0>", logprob=-1.2, no_speech=0.7)) == []
    assert one.window().start == 6000
    assert decode(one.window().earlier) == "a"


def test_text_that_is_sure_is_kept_whatever_the_silence():
    assert seeker(30).step(written("<0.0>a<2.0>", logprob=-0.9, no_speech=0.9))


def test_what_was_drawn_at_a_high_temperature_is_not_read_again():
    one = seeker(90)
    one.step(written("<0.0>a<30.0>", temperature=0.4))
    assert (decode(one.window().earlier), one.window().first) == ("a", True)
    one.step(written("<0.0>b<30.0>", temperature=0.6))
    assert (one.window().earlier, one.window().first) == ((), False)


def test_without_carrying_no_window_reads_the_last_one():
    one = seeker(90, carries=False)
    one.step(written("<0.0>a<30.0>"))
    assert (one.window().earlier, one.window().first) == ((), False)


def test_passages_of_nothing_are_left_out_and_end_where_the_recording_ends():
    one = seeker(5)
    assert one.step(written("<0.0> <1.0><1.0>b<1.0><1.0>c<9.0><9.0>")) == [Passage(2, 100, 500, "c")]
    assert one.window() is None


@pytest.mark.parametrize(
    ("text", "again"),
    [
        (written("a"), False),
        (written("a", compression=COMPRESSION_MOST + 0.01), True),
        (written("a", logprob=LOGPROB_LEAST - 0.01), True),
        (written("a", logprob=LOGPROB_LEAST - 0.01, no_speech=0.61), False),  # silence, then
        (written("a", compression=COMPRESSION_MOST + 0.01, no_speech=0.61), True),
    ],
)
def test_when_a_window_is_decoded_again(text, again):
    assert must_try_again(text) is again
    assert not (again and is_silence(text))


TEXTS = st.lists(st.tuples(st.integers(1, 700), st.text("ab ", max_size=3)), max_size=6)


@given(texts=st.lists(TEXTS, min_size=1, max_size=20), open_end=st.booleans(), seconds=st.floats(0.01, 100))
def test_every_window_gets_further_and_passages_stand_in_order(texts, open_end, seconds):
    one, before, at = seeker(seconds), 0, 0
    for pieces in texts * 60:
        if one.window() is None:
            break
        tokens, clock = [FIRST], 0
        for step, text in pieces:
            clock = min(clock + step, 1500)
            tokens += [*map(ord, text or "a"), FIRST + clock, FIRST + clock]
        tokens = tokens[: -1 if open_end else None] or [FIRST]
        for passage in one.step(WindowText(tuple(tokens), 0.0, -0.5, 0.0, 1.0)):
            assert before <= passage.start <= passage.end <= round(seconds * 100)
            before = passage.end
        assert one.seek > at
        at = one.seek
