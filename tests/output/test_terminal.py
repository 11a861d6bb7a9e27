"""The terminal view, read back through a small screen model and as plain lines."""

import io
import os
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from test_captions import sound, spoken, unclear, words

from streamer.events import Alert, Gap, Status, Tag
from streamer.model.download import LoadStep
from streamer.output.terminal import LoadingView, TerminalView

STEPS = (
    LoadStep("fetching base", True, 1_000_000, 145_000_000),
    LoadStep("fetching base", True, 2_000_000, 145_000_000),
    LoadStep("loading base"),
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def alert(state: str, rule: str = "smoke_alarm", severity: str = "critical") -> Alert:
    return Alert(
        session="s",
        seq=1,
        audio_t=30.0,
        id=1,
        rule=rule,
        severity=severity,
        state=state,
        start=25.0,
        end=45.0 if state == "cleared" else None,
        score=0.9,
        labels=("Smoke detector, smoke alarm",),
        heard=(Tag(1, "Speech", 0.5),),
        text="",
    )


class Screen:
    """What a terminal would show of `text`: enough of ECMA-48 for the live view."""

    def __init__(self, text: str, width: int) -> None:
        self.lines: list[str] = [""]
        self.row = 0
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n|\x07)", text):
            self._feed(part)
        assert all(cell_len(line) <= width for line in self.lines), self.lines

    def _feed(self, part: str) -> None:
        if part == "\n":
            self.row += 1
            while len(self.lines) <= self.row:
                self.lines.append("")
        elif part.endswith("A") and part.startswith("\x1b["):
            self.row = max(0, self.row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        elif part and not part.startswith("\x1b") and part not in "\r\x07":
            self.lines[self.row] += part

    def text(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


def show_live(width: int, *events, meter=None, close=False) -> tuple[Screen, str]:
    stream = io.StringIO()
    view = TerminalView(stream, live=True, width=width, height=24)
    for event in events:
        view.show(event)
    if meter:
        view.show_meter(*meter)
    if close:
        view.close()
    return Screen(stream.getvalue(), width), stream.getvalue()


def test_plain_lines_when_it_is_no_terminal():
    stream = io.StringIO()
    view = TerminalView(stream)
    said = words("Hello there")
    events = [
        Status(session="s", seq=1, audio_t=0.0, state="listening"),
        spoken(said[:1]),
        spoken(said, final=True),
        spoken([], segment=2, final=True),
        sound("Siren", 3.0),
        sound("Siren", 3.0, "end"),
        alert("raised"),
        alert("updated"),
        alert("cleared"),
        Gap(session="s", seq=2, audio_t=5.0, start=4.0, end=4.5, reason="overrun"),
    ]
    for event in events:
        view.show(event)
    view.show_meter(-20.0, 0.3)
    view.close()
    assert stream.getvalue() == (
        "Hello there\n"
        "[Siren]\n"
        "ALERT smoke alarm (critical) raised at 0:25: Smoke detector, smoke alarm\n"
        "ALERT smoke alarm (critical) cleared at 0:45\n"
        "… 0.5 s of sound lost: overrun\n"
    )


def test_what_is_told_once_stays_also_where_nothing_is_wrong():
    stream = io.StringIO()
    view = TerminalView(stream)
    view.show(Status(session="s", seq=1, audio_t=0.0, state="listening", detail="audio track 2 of 3 is heard"))
    view.show(Status(session="s", seq=2, audio_t=1.0, state="listening", detail=""))
    view.close()
    assert stream.getvalue().splitlines() == ["listening audio track 2 of 3 is heard"]


def test_finals_stay_and_the_partial_is_at_the_bottom():
    said = words("Hello there")
    screen, _ = show_live(60, spoken(said, final=True), spoken(said[:1], segment=2), meter=(-30.0, 0.25))
    hello, partial, status = screen.text()
    assert (hello, partial) == ("Hello there", "Hello and so")
    assert status.startswith("▮" * 10 + "▯" * 10 + "  -30 dB")
    assert "lag 0.2 s" in status or "lag 0.3 s" in status


def test_committed_words_are_bright_and_partial_ones_dim():
    _, raw = show_live(60, spoken(words("Hello")))
    assert "\x1b[1mHello\x1b[0m" in raw
    assert re.search(r"\x1b\[2m ?and so", raw)


def test_banners_stay_until_cleared_and_ring_once():
    screen, raw = show_live(60, alert("raised"), alert("updated"), spoken(words("what was that")))
    assert sum(" ALERT smoke alarm (critical) since 0:25" in line for line in screen.lines) == 1
    assert raw.count("\x07") == 1
    screen, _ = show_live(60, alert("raised"), alert("acknowledged"))
    assert any("since 0:25, seen" in line for line in screen.lines)
    screen, _ = show_live(60, alert("raised"), alert("cleared"))
    assert not any(line.startswith(" ALERT") for line in screen.lines)


def test_nothing_is_left_behind_on_close():
    said = words("Hello there")
    screen, raw = show_live(60, spoken(said, final=True), spoken(said[:1], segment=2), sound("Siren", 1.0), close=True)
    assert screen.text() == ["Hello there", "[Siren]"]
    assert raw.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in raw[-40:]


@pytest.mark.parametrize("width", [1, 2, 7, 20, 41, 200])
def test_every_width_holds_wide_characters(width):
    said = words("今日は天気がいいですね " * 9 + "e\u0301tait")
    show_live(
        width, spoken(said), alert("raised"), sound("サイレン", 1.0), spoken(said, final=True), meter=(-200.0, 99.0)
    )


def test_text_never_controls_the_terminal(monkeypatch):
    nasty = "a\x1b[2J\x1b]0;owned\x07b\u202ec\r\nd\x9b31m\u2028e"
    for live in (True, False):
        stream = io.StringIO()
        view = TerminalView(stream, live=live, width=200)
        view.show(sound(nasty, 1.0))
        view.show(Status(session="s", seq=1, audio_t=0.0, state="degraded", detail=nasty))
        view.close()
        shown = ESCAPE.sub("", stream.getvalue())
        assert not set(shown) & set("\x1b\x07\u202e\x9b\u2028")
        assert "[a [2J ]0;owned b c d 31m e]" in shown


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, raw = show_live(60, alert("raised"), sound("Siren", 1.0))
    codes = {code for run in re.findall(r"\x1b\[([0-9;]*)m", raw) for code in run.split(";") if code}
    assert codes <= {"0", "1", "2"}


def test_a_reader_that_goes_away_and_poor_encodings_are_no_error():
    reading, writing = os.pipe()
    view = TerminalView(os.fdopen(writing, "w", encoding="ascii"))
    view.show(spoken(words("Dobrý"), final=True))
    assert os.read(reading, 100) == b"Dobr?\n"
    os.close(reading)
    for _ in range(3):
        view.show(spoken(words("more"), final=True))
    view.close()


@pytest.mark.parametrize("live", [True, False])
def test_what_was_unclear_is_said_behind_the_segment(live):
    out = io.StringIO()
    view = TerminalView(out, live=live, width=60, height=10)
    view.show(unclear((2.0, 3.0), said="It is late."))
    view.show(unclear((4.0, 5.0), segment=2))
    view.show(replace(unclear((6.0, 7.0), segment=3), text="kitchen: "))
    view.close()
    lines = Screen(out.getvalue(), 60).text() if live else out.getvalue().splitlines()
    assert lines == ["It is late. [unclear]", "[unclear]", "kitchen: [unclear]"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_one_plain_line_for_each_step():
    log = io.StringIO()
    view = LoadingView(log)
    for step in STEPS:
        view.show(step)
    view.close()
    assert log.getvalue() == "fetching base …\nloading base …\n"


def test_brief_says_only_what_takes_long():
    log = io.StringIO()
    view = LoadingView(log, brief=True)
    for step in STEPS:
        view.show(step)
    assert log.getvalue() == "fetching base …\n"


def test_a_terminal_shows_a_bar_and_the_megabytes_and_leaves_nothing(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    view = LoadingView(terminal)
    for step in STEPS:
        view.show(step)
    view.close()
    view.close()
    shown = terminal.getvalue()
    assert "loading base …" in shown
    assert "Traceback" not in shown
    assert not shown.rstrip().endswith("…")


def test_nothing_is_shown_where_nothing_is_loaded(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    LoadingView(terminal).close()
    assert terminal.getvalue() == ""
