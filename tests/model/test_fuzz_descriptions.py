"""The JSON beside weights, whoever wrote it: read, or one line that names the file."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.errors import CheckpointError
from streamer.model.checkpoint import ModelDescription
from streamer.model.formats import _Aligned, _Index, _TransformersConfig
from streamer.model.head import HeadDescription
from streamer.model.tensor_files import read_description

KINDS = (ModelDescription, HeadDescription, _TransformersConfig, _Aligned, _Index)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def refusal(kind, text: str) -> str | None:
    with TemporaryDirectory() as name:
        path = Path(name) / "config.json"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            read_description(path, kind)
        except CheckpointError as error:
            return str(error).replace(str(path), "the file")
    return None


@settings(max_examples=60, derandomize=True)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), rest=ANYTHING)
def test_known_fields_with_anything_in_them(kind, data, rest):
    given = data.draw(st.dictionaries(st.sampled_from(list(kind.model_fields)), ANYTHING, max_size=3))
    for content in (given, rest):
        said = refusal(kind, json.dumps(content))
        assert said is None or ("the file" in said and "\n" not in said and len(said) < 1000)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, derandomize=True)
@given(text=st.text(max_size=40))
@example(text="[" * 50_000)
@example(text="9" * 5000)
@example(text='{"a":' + "9" * 5000 + "}")
@example(text="\ud800")
@example(text='{"alignment_heads":[[1,' + "9" * 4000 + "]]}")
def test_any_text(kind, text):
    said = refusal(kind, text)
    assert said is None or ("the file" in said and "\n" not in said and len(said) < 5000)
