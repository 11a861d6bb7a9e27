"""The clips that people keep from the pages: how many, whose, and that they go."""

import stat

import numpy as np
import pytest

from streamer.alerts import own_clips
from streamer.alerts.own_clips import OwnClips
from streamer.audio.files import read_audio
from streamer.errors import InputError, UsageError

TONE = (0.5 * np.sin(np.arange(16_000) / 5)).astype(np.float32)


def test_clips_are_kept_in_order_for_this_user_only(tmp_path):
    clips = OwnClips(tmp_path / "sounds")
    assert clips.names() == {}
    for level in (0.1, 0.2, 0.3):
        clips.add("My Bell", level * TONE)
    assert clips.names() == {"my bell": 3}
    paths = clips.paths("MY bell")
    np.testing.assert_allclose(read_audio(str(paths[1])), 0.2 * TONE, atol=1e-4)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (*paths, paths[0].parent)] == [0o600] * 3 + [0o700]
    clips.take_back("my bell", 2)
    clips.take_back("my bell")
    assert clips.paths("my bell") == paths[:1]
    clips.add("my bell", TONE)
    assert clips.forget("my bell") == 2
    assert list(clips.folder.iterdir()) == []


def test_of_more_than_ten_the_oldest_goes(tmp_path):
    clips = OwnClips(tmp_path)
    for _ in range(12):
        clips.add("kettle", TONE)
    assert [path.stem for path in clips.paths("kettle")] == [f"{number:04d}" for number in range(3, 13)]


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(own_clips, "SOUNDS_KEPT", 1)
    clips = OwnClips(tmp_path)
    with pytest.raises(UsageError, match="no clip of 'kettle' is kept"):
        clips.take_back("kettle")
    clips.add("kettle", TONE)
    with pytest.raises(UsageError, match="there are 1 of 'kettle', no number 2"):
        clips.take_back("kettle", 2)
    with pytest.raises(UsageError, match="clips of 1 sounds are kept already"):
        clips.add("dog", TONE)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"own_sounds\.folder: .*: cannot be written"):
        OwnClips(tmp_path / "file").add("kettle", TONE)
