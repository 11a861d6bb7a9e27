import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import ApplyTimestampRules, SuppressBlank, SuppressTokens
from whisper.tokenizer import get_tokenizer

from streamer.model.decoding.filters import LogitFilters

TOKENIZER = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
BEGIN = TOKENIZER.timestamp_begin
VOCABULARY = 51_865
START = 3  # tokens of the start of the transcript

tokens = st.one_of(st.integers(0, 50_000), st.integers(BEGIN, BEGIN + 1500))


def reference(logits: torch.Tensor, written: list[int], timestamps: bool) -> torch.Tensor:
    context = torch.tensor([[1] * START + written])
    special = ("transcribe", "translate", "sot", "sot_prev", "sot_lm", "no_speech")
    forbidden = [*TOKENIZER.non_speech_tokens, *(getattr(TOKENIZER, name) for name in special)]
    filters = [SuppressBlank(TOKENIZER, START), SuppressTokens(forbidden)]
    if timestamps:
        filters.append(ApplyTimestampRules(TOKENIZER, START, 50))
    expected = logits.clone()[None]
    for item in filters:
        item.apply(expected, context)
    return expected[0]


@given(
    rows=st.lists(st.tuples(st.lists(tokens, max_size=6), st.booleans()), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_filtered_as_by_openai_whisper(rows, seed):
    logits = 4 * torch.randn(len(rows), VOCABULARY, generator=torch.Generator().manual_seed(seed))
    expected = [reference(row, written, marked) for row, (written, marked) in zip(logits, rows, strict=True)]
    LogitFilters(TOKENIZER, torch.device("cpu")).apply(
        logits, [written for written, _ in rows], [marked for _, marked in rows]
    )
    assert torch.equal(logits, torch.stack(expected))
