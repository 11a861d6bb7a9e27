"""The clips of sounds that people teach from the pages: the few seconds that they pressed a button for, and no others.

    FOLDER/clips/my doorbell/0001.wav, 0002.wav, …        for this user only, oldest first

Full-folder rules: of more than CLIPS_KEPT of one sound the oldest goes; a sound beyond SOUNDS_KEPT is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from streamer.alerts.recorder import write_wav
from streamer.errors import InputError, UsageError
from streamer.settings.own_sounds import stored_name

CLIPS_KEPT = 10  # of one sound: as many as learning takes
SOUNDS_KEPT = 50  # with 10 clips of 6 s each 96 MB at most


class OwnClips:
    """What is kept below `folder` (`own_sounds.place()`). One thread at a time; other programs may change it too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clips"

    def names(self) -> dict[str, int]:
        """The sounds of which there are clips, in small letters, and how many."""
        folders = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        counts = {unquote(folder.name): len(list(folder.glob("*.wav"))) for folder in folders if folder.is_dir()}
        return {name: count for name, count in counts.items() if count}

    def paths(self, name: str) -> tuple[Path, ...]:
        """The clips of a sound, whatever the case of its name, oldest first."""
        return tuple(sorted((self.folder / stored_name(name)).glob("*.wav")))

    def add(self, name: str, samples: NDArray[np.float32]) -> None:
        """Keep one more, float32 [n] at 16 kHz. Raises UsageError: too many sounds; InputError: the disk."""
        there = self.paths(name)
        if not there and len(self.names()) >= SOUNDS_KEPT:
            raise UsageError(
                f"clips of {SOUNDS_KEPT} sounds are kept already; `streamer sounds forget NAME` makes room"
            )
        number = 1 + max((int(path.stem) for path in there if path.stem.isdecimal()), default=0)
        path = self.folder / stored_name(name) / f"{number:04d}.wav"
        try:
            write_wav(path, samples)
            for old in (*there, path)[:-CLIPS_KEPT]:
                old.unlink()
        except OSError as error:
            raise InputError(f"own_sounds.folder: {path}: cannot be written: {error.strerror}") from None

    def take_back(self, name: str, number: int | None = None) -> None:
        """Delete a clip: that of this number, 1 being the oldest; None: the newest. UsageError: there is none."""
        there = self.paths(name)
        if not there:
            raise UsageError(f"no clip of {name!r} is kept")
        if number is not None and number > len(there):
            raise UsageError(f"clip: there are {len(there)} of {name!r}, no number {number}")
        self._delete(name, [there[-1 if number is None else number - 1]])

    def forget(self, name: str) -> int:
        """Delete all clips of a sound; how many there were. Raises InputError."""
        there = self.paths(name)
        self._delete(name, there)
        return len(there)

    def _delete(self, name: str, paths: Sequence[Path]) -> None:
        folder = self.folder / stored_name(name)
        try:
            for path in paths:
                path.unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        except OSError as error:
            raise InputError(f"own_sounds.folder: {folder}: cannot be deleted: {error.strerror}") from None
