import io

from streamer.model.loading import LoadStep
from streamer.output.loading_view import LoadingView

STEPS = (
    LoadStep("fetching base", True, 1_000_000, 145_000_000),
    LoadStep("fetching base", True, 2_000_000, 145_000_000),
    LoadStep("loading base"),
)


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
