import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.tokenizer import get_tokenizer

from streamer.recipes.nano.vocabulary import COARSE, IGNORED, TIMESTAMPS, Faults, lesson, used_tokens
from streamer.recipes.nano.words import vocabulary
from streamer.recipes.synthesis.clips import TimedWord

WORDS = used_tokens()
TURNS = (
    (TimedWord("seven", 8_000, 16_000), TimedWord("maria", 16_000, 24_000)),
    (TimedWord("one", 48_000, 56_000),),
)


def whisper_text(tokens):
    return get_tokenizer(multilingual=False).decode_with_timestamps([int(WORDS.used[token]) for token in tokens])


def plan(**options):
    options = {"timestamps": False, "open_end": False, "random": np.random.default_rng(0), "faults": None} | options
    return lesson(WORDS, options.pop("turns", TURNS), **options)


def test_words_are_spelled_as_whisper_spells_them():
    tokenizer = get_tokenizer(multilingual=False)
    for word in vocabulary():
        assert [int(WORDS.used[token]) for token in WORDS.words[word]] == tokenizer.encode(" " + word)
    assert len(WORDS.used) + WORDS.unused == 51864
    assert WORDS.text([*WORDS.words["maria"], *WORDS.words["six"], WORDS.eot]) == ["maria", "six"]


def test_plain_text_follows_no_timestamps_and_ends_with_end_of_text():
    item = plan()
    assert whisper_text(item.inputs) == "<|startoftranscript|><|notimestamps|> seven maria one"
    assert whisper_text(item.targets) == "<|notimestamps|> seven maria one<|endoftext|>"
    assert item.heard[1] == (25, 50)
    assert item.told[2] == (25, 50)


def test_timestamps_frame_each_utterance():
    item = plan(timestamps=True)
    assert whisper_text(item.targets) == "<|0.40|> seven maria<|1.60|><|2.80|> one<|3.60|><|endoftext|>"
    assert item.inputs[1:] == item.targets[:-1]


def test_a_late_first_utterance_starts_at_zero_as_whisper_demands():
    assert whisper_text(plan(turns=TURNS[1:], timestamps=True).targets).startswith("<|0.00|> one<|3.60|>")


def test_of_an_utterance_that_goes_on_only_its_start_is_written():
    item = plan(timestamps=True, open_end=True)
    assert whisper_text(item.targets) == "<|0.40|> seven maria<|1.60|><|2.80|><|endoftext|>"


def test_silence_asks_for_no_speech_and_then_the_end():
    for timestamps in (False, True):
        item = plan(turns=(), timestamps=timestamps)
        assert item.targets == [WORDS.no_speech, WORDS.eot]
        assert item.heard == [(0, 0), (0, 0)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), timestamps=st.booleans())
def test_faults_disturb_inputs_but_never_what_is_asked_for(seed, timestamps):
    faults = Faults(items=1.0, replaced=0.3, dropped=0.1, doubled=0.1, prompts=0.5)
    item = plan(random=np.random.default_rng(seed), timestamps=timestamps, faults=faults)
    clean = plan(timestamps=timestamps)
    start = item.inputs.index(WORDS.sot)
    assert all(target == IGNORED for target in item.targets[:start])
    asked = item.targets[start:]
    assert set(asked) == set(clean.targets)
    assert asked[-1] == WORDS.eot
    assert len(item.inputs) == len(item.targets) == len(item.heard) == len(item.told)


def test_a_late_window_has_the_times_of_its_place_in_the_thirty_seconds():
    item = plan(turns=TURNS[1:], timestamps=True, first=500)
    assert whisper_text(item.targets) == "<|0.00|> one<|13.60|><|endoftext|>"
    assert item.heard[1] == (150, 175)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), first=st.integers(101, 1400))
def test_text_of_the_time_before_a_late_window_is_read_and_not_asked_for(seed, first):
    faults = Faults(items=0.0, prompts=0.0, past=1.0)
    item = plan(random=np.random.default_rng(seed), timestamps=True, faults=faults, first=first)
    asked = [target for target in item.targets if target != IGNORED]
    given_before = item.inputs[: len(item.inputs) - len(asked) + 1]
    assert asked[0] == WORDS.first_timestamp + min((first + 25) // COARSE, TIMESTAMPS - 1)
    times = [token - WORDS.first_timestamp for token in given_before if token >= WORDS.first_timestamp]
    assert given_before[0] == WORDS.sot
    assert len(times) % 2 == 0
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] <= first // COARSE


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100_000), count=st.integers(0, 120))
def test_a_sequence_never_outgrows_the_decoder(seed, count):
    turns = [[TimedWord("seven", 4_000 * i, 4_000 * i + 3_000)] for i in range(count)]
    faults = Faults(items=0.0, prompts=1.0)
    item = plan(turns=turns, random=np.random.default_rng(seed), timestamps=True, faults=faults)
    assert len(item.inputs) <= 448
    assert item.inputs[0] == WORDS.previous


@settings(max_examples=60, deadline=None)
@given(gaps=st.lists(st.integers(1, 12_000), min_size=1, max_size=30), first=st.integers(0, 700))
def test_timestamps_never_go_back_and_no_segment_is_empty(gaps, first):
    ends = np.cumsum(gaps)
    turn = [TimedWord("one", int(end) - gap, int(end)) for gap, end in zip(gaps, ends, strict=True)]
    item = plan(turns=[turn], timestamps=True, first=first)
    times = [token - WORDS.first_timestamp for token in item.targets if token >= WORDS.first_timestamp]
    assert times == sorted(times)
    assert all(0 <= time < TIMESTAMPS for time in times)
    assert all(end > start or end == TIMESTAMPS - 1 for start, end in zip(times[::2], times[1::2], strict=True))
    assert all(text.count("one") <= 3 for text in whisper_text(item.targets).split("<|"))
