"""One file of events: opened, locked, emptied when everything else works, and valid at every moment from then on."""

import logging
import os
import stat
import sys
from collections import deque

from streamer.errors import StreamerError, UsageError
from streamer.events import Event
from streamer.output.captions import Format, Layout, layout_of

log = logging.getLogger(__name__)

LIMIT_BYTES = 16 * 2**20  # that wait for a file
OWNER_ONLY = 0o600  # what was said is nobody else's business


class OutputError(StreamerError):
    """A file that was being written cannot be written any more; the message starts with its option."""


class EventFile:
    """Events in one file, valid at every moment: it only grows, by whole pieces. `-` is stdout, which is not closed.

    Where somebody moves it away or deletes it, as logrotate does, a new one goes on; an emptied one begins anew.
    When the disk is full, what was begun is taken back. `write`, `retry` and `close` raise OutputError, which names the
    option, and what was to be written waits for the next of them; what does not fit into 16 MB is `lost`. They raise
    BrokenPipeError where whoever read our stdout went away; then nothing more is written.
    """

    def __init__(self, path: str, kind: Format, option: str = "", *, onto: Layout | None = None) -> None:
        """Open the file as it is: what is in it stays until `begin`. `option`: "" for `--KIND`. Raises UsageError.

        `onto`: the layout of a file that earlier runs wrote too: what is in it stays for good. It is opened for the
        first piece; that it cannot be is as that the piece cannot be written.
        """
        self.where = f"{option or f'--{kind}'} {path}"
        self._path, self._layout = path, onto or layout_of(kind)
        self._onto = onto is not None
        self._own = path != "-"
        self._fd: int | None = None
        self._regular = self._over = False
        self._size = 0
        self._waiting: deque[bytes] = deque()  # whole pieces; of the first what is not written yet
        self._waiting_bytes = 0
        self.lost = 0  # pieces
        self._begun = False
        if not self._onto:
            self._open()

    def begin(self) -> None:
        """Empty the file. The first event does it too; later calls do nothing."""
        if self._begun:
            return
        self._begun = True
        if self._regular and self._fd is not None and not self._onto:
            os.ftruncate(self._fd, 0)
        self._append(self._layout.header)

    def write(self, event: Event) -> None:
        """Append what is settled with this event."""
        self.begin()
        self._append(self._layout.step(event))

    def close(self) -> None:
        """Append what is left and close; any number of times."""
        try:
            if self._begun:
                self._append(self._layout.finish())
                self.retry()
        finally:
            fd, self._fd, self._over = self._fd, None, True
            if fd is not None and self._own:
                os.close(fd)

    def _open(self) -> None:
        """Raises UsageError."""
        if not self._own:
            sys.stdout.flush()
            try:
                self._fd = sys.stdout.fileno()
            except OSError:
                raise UsageError(f"{self.where}: stdout is no file here; give a path") from None
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise UsageError(f"{self.where}: cannot be written: {why}; give the path of a file") from None
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        if self._regular:
            self._lock(fd)
            if self._begun:  # not the first time, or to go on in an earlier run's
                self._size = os.lseek(fd, 0, os.SEEK_END)
        self._fd = fd

    def _append(self, text: str) -> None:
        """Write one whole piece, behind those that wait."""
        if self._over or not text:
            return
        data = text.encode("utf-8", "replace")
        if self._waiting_bytes + len(data) > LIMIT_BYTES:
            self.lost += 1
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if len(self._waiting) == 1:  # else it is up to `retry`
            self.retry()

    @property
    def waits(self) -> bool:
        """Whether something could not be written yet."""
        return bool(self._waiting)

    def retry(self) -> None:
        """Write what waits."""
        if self._waiting and self._regular and self._fd is not None:
            self._follow(self._fd)
        if self._fd is None and self._waiting and not self._over:
            try:
                self._open()
            except UsageError as exc:
                raise OutputError(str(exc)) from None
            self._put_header_first()
        while self._waiting and self._fd is not None:
            data, written = memoryview(self._waiting[0]), 0
            try:
                while written < len(data):
                    written += os.write(self._fd, data[written:])
            except OSError as exc:
                if isinstance(exc, BrokenPipeError) and not self._own:
                    self._detach(self._fd)
                    raise
                written = self._taken_back(written)
                raise OutputError(f"{self.where}: cannot be written any more: {exc.strerror}") from None
            finally:
                self._size += written
                self._waiting_bytes -= written
                if written == len(data):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = bytes(data[written:])

    def _follow(self, fd: int) -> None:
        """Go on where the file's name leads: what is written into a file that was deleted is lost."""
        ours = os.fstat(fd)
        try:
            moved = not os.path.samestat(ours, os.stat(self._path))
        except OSError:
            moved = True
        if moved:
            log.warning("%s: was moved away or deleted; a new file goes on", self.where)
            os.close(fd)
            self._fd, self._size = None, 0
        elif ours.st_size < self._size:
            self._size = os.lseek(fd, 0, os.SEEK_END)
            self._put_header_first()

    def _put_header_first(self) -> None:
        """What a new file begins with, before the pieces that wait."""
        if not self._size and self._layout.header and self._waiting[0] != (header := self._layout.header.encode()):
            self._waiting.appendleft(header)
            self._waiting_bytes += len(header)

    def _taken_back(self, written: int) -> int:
        """Take the first bytes of a piece back, so that the file is valid; how many stay nevertheless."""
        if not written or not self._regular or self._fd is None:
            return written
        try:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
        except OSError:
            return written  # the rest follows
        return 0

    def _detach(self, fd: int) -> None:
        """Stop writing to a pipe whose reader is gone, also when Python flushes stdout at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, fd)
        os.close(nowhere)
        self._fd, self._over = None, True

    def _lock(self, fd: int) -> None:
        """Two programs must not write one file. Where there are no locks, there are none."""
        try:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise UsageError(f"{self.where}: another program is writing it; give another path") from None
        except (ImportError, OSError):
            return
