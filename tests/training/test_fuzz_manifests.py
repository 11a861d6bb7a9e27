"""Tables that others wrote: clips and recordings, or one line that names the file; damaged ones too."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.errors import InputError
from streamer.measure.recordings import read_recordings
from streamer.training.manifests import ManifestSettings, read_manifest

CELLS = st.sampled_from(["a.wav", "0", "-1", "nan", "1e400", "Speech", "Speech|Bark", "7", '"', "\x00", ""]) | st.text(
    max_size=10
)
HEADS = st.sampled_from(
    [
        "path,labels",
        "path,text,set,language",
        "path,labels,split,start,end,category",
        "filename,fold,category",
        "# YTID, start, end, labels",
        "path",
        "",
    ]
)
TABLES = st.builds(
    lambda head, rows: "\n".join([head, *(",".join(row) for row in rows)]),
    HEADS,
    st.lists(st.lists(CELLS, max_size=6), max_size=4),
)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
)
NAMES = st.sampled_from(["path", "labels", "split", "start", "end", "text", "fold", "kind"])
LINES = st.lists(st.dictionaries(NAMES, VALUES, max_size=5).map(json.dumps), min_size=1, max_size=3).map("\n".join)


def refusal(read) -> str | None:
    """The line that refuses it; None: it is taken."""
    try:
        read()
    except InputError as error:
        return str(error)
    return None


@settings(max_examples=250, derandomize=True)
@given(text=TABLES | LINES | st.text(max_size=60), audio=st.booleans(), stem=st.sampled_from(["x", "eval"]))
@example(text='path,labels\n"a\x00b",7', audio=False, stem="x")
@example(text="path,labels\n" + "x" * 200_000 + ",7", audio=False, stem="x")
@example(text='# YTID\nabc, 0, 1, "a\nb"', audio=True, stem="x")
@example(text='# YTID\nabc, 0, 1, "', audio=True, stem="x")
@example(text="filename,fold,category\nx", audio=False, stem="x")
@example(text='{"path":"a","start":' + "9" * 400 + "}", audio=False, stem="x")
@example(text='{"path":"a","labels":' + "9" * 5000 + "}", audio=False, stem="x")
@example(text='{"path":' + "[" * 50_000, audio=False, stem="x")
@example(text='{"path":"a","labels":[[1]]}', audio=False, stem="x")
@example(text='{"path":"a","labels":[null]}', audio=False, stem="x")
@example(text="path,text\na\x00b,hello", audio=False, stem="x")
@example(text='path,text\n"' + "y" * 200_000, audio=False, stem="x")
def test_any_table_is_clips_or_one_line_that_names_the_file(text, audio, stem):
    with TemporaryDirectory() as name:
        path = Path(name) / f"{stem}.csv"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        for read in (
            lambda: read_manifest(ManifestSettings(path=path, audio=Path(name) if audio else None)),
            lambda: read_recordings(path),
        ):
            said = refusal(read)
            assert said is None or (str(path) in said and "\n" not in said and len(said) < 1000)
