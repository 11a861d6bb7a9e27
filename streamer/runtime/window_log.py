"""What the model found in the windows of one recording, kept in a file, so that a run that was interrupted goes on.

A line of JSON for each window behind a first line that says what was read with which model and settings. A line counts
when it is whole: whatever kills the program, the file is good up to the last finished window. Tags' scores are float32,
base64.
"""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from streamer.errors import UsageError
from streamer.plans import HypothesisWord, SpanScores
from streamer.policy.seeking import WindowText
from streamer.runtime.offline import WindowResult
from streamer.sound.labels import LABEL_COUNT

Header = Mapping[str, Any]


class WindowLog:
    """The results of one recording. `results`: those that an earlier run left under the same header."""

    def __init__(self, path: Path, header: Header) -> None:
        """Opens the file; what belongs to another header is thrown away. Raises UsageError: it cannot be written."""
        self._path = path
        first = json.dumps(header, sort_keys=True) + "\n"
        try:
            lines = (
                path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
            )
            self.results = _results(lines[1:]) if lines[:1] == [first] else []
            self._file = path.open("r+" if self.results else "w", encoding="utf-8")
            if self.results:
                self._file.seek(sum(len(line.encode()) for line in lines[: 1 + len(self.results)]))
                self._file.truncate()
            else:
                self._write(first)
        except OSError as error:
            raise UsageError(f"--output {path.parent}: cannot be written: {error.strerror}") from None

    def append(self, result: WindowResult) -> None:
        """Keep the result of the next window. Raises UsageError where the disk is full."""
        record = {
            "text": asdict(result.text),
            "language": result.language,
            "words": [[asdict(word) for word in words] for words in result.words],
            "judgements": [[_packed(span) for span in spans] for spans in result.judgements],
        }
        try:
            self._write(json.dumps(record, separators=(",", ":")) + "\n")
        except OSError as error:
            raise UsageError(f"--output {self._path.parent}: cannot be written any more: {error.strerror}") from None

    def close(self, *, done: bool) -> None:
        """Close the file; where the recording is done it is of no more use and goes."""
        self._file.close()
        if done:
            self._path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())


def _results(lines: list[str]) -> list[WindowResult]:
    """The results of all lines up to the first that is cut off or damaged."""
    found = []
    for line in lines:
        try:
            record = json.loads(line)
            found.append(
                WindowResult(
                    text=WindowText(**{**record["text"], "tokens": tuple(record["text"]["tokens"])}),
                    language=str(record["language"]),
                    words=tuple(tuple(_word(word) for word in words) for words in record["words"]),
                    judgements=tuple(tuple(_unpacked(span) for span in spans) for spans in record["judgements"]),
                )
            )
        except (ValueError, TypeError, KeyError):
            break
        if not line.endswith("\n"):
            found.pop()
    return found


def _word(record: dict[str, Any]) -> HypothesisWord:
    return HypothesisWord(**{**record, "tokens": tuple(record["tokens"])})


def _packed(span: SpanScores) -> list[Any]:
    return [span.start_sample, span.end_sample, base64.b64encode(span.scores.astype("<f4").tobytes()).decode()]


def _unpacked(record: list[Any]) -> SpanScores:
    start, end, packed = record
    scores = np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float32)
    if scores.shape != (LABEL_COUNT,):
        raise ValueError("scores were cut off")
    return SpanScores(start, end, scores)
