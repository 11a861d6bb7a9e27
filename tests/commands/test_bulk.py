"""What `streamer transcribe --cluster` takes: files, folders, lists."""

from pathlib import Path

import pytest

from streamer.commands.bulk import listed, transcribe_spread
from streamer.errors import UsageError
from streamer.settings.config import Settings


def test_folders_and_lists_stand_for_their_files(tmp_path: Path):
    for name in ("rooms/b.flac", "rooms/a.WAV", "rooms/deep/c.mp3", "rooms/notes.txt", "other/d.ogg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path,set\nother/d.ogg,x\n")
    given = [tmp_path / "rooms", tmp_path / "list.csv", tmp_path / "single.bin"]
    found = [path.relative_to(tmp_path).as_posix() for path in listed(given)]
    assert found == ["rooms/a.WAV", "rooms/b.flac", "rooms/deep/c.mp3", "other/d.ogg", "single.bin"]


@pytest.mark.parametrize(
    ("text", "line"), [("name\nx\n", "a column `path` is needed"), (None, "cannot be read: No such file")]
)
def test_a_list_that_is_none_gives_one_line(tmp_path: Path, text, line):
    path = tmp_path / "list.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=line):
        listed([path])


def test_nothing_to_do_and_nowhere_to_put_it_are_said(tmp_path: Path):
    with pytest.raises(UsageError, match="no audio or video"):
        listed([tmp_path])
    with pytest.raises(UsageError, match="--cluster: needs --output FOLDER"):
        transcribe_spread(Settings(), [tmp_path / "a.wav"], "srt", None, resume=False)
