"""From events to lines for services that take captions live: their width, order, times, and whose they are."""

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from test_captions import sound, spoken, words

from streamer.errors import ConfigError
from streamer.events import Event, Status
from streamer.output.caption_sender import LIMIT_LINES, CaptionService, Lines, NotWantedError
from streamer.output.live_captions import LiveCaptions, open_captions
from streamer.settings.config import OutputSettings, validate

NOW = 1_700_000_000.0


class Kept(CaptionService):
    """A service that takes everything and remembers it."""

    name, cells, at_once, late_s = "Kept", 32, 1, 60.0

    def __init__(self) -> None:
        self.lines: list[tuple[str, float]] = []
        self.closed = False

    def send(self, lines: Lines) -> float:
        self.lines += [(line.text, line.said_at) for line in lines]
        return 0.0

    def close(self) -> None:
        self.closed = True


def of(session: str, event: Event) -> Event:
    return replace(event, session=session)


def shown(*events: Event, sessions=(), sounds=True) -> list[tuple[str, float]]:
    service = Kept()
    captions = LiveCaptions([(service, sounds)], sessions, wall=lambda: NOW)
    captions.start()
    for event in events:
        captions.put([event])
    captions.finish()
    assert captions.join(10)
    assert service.closed
    return service.lines


SENTENCE = "The quick brown fox jumps over the lazy dog and runs away"


def test_lines_are_as_wide_as_the_service_shows_them_and_come_when_they_are_full():
    assert [text for text, _ in shown(spoken(words(SENTENCE), final=True))] == [
        "The quick brown fox jumps over",
        "the lazy dog and runs away",
    ]


def test_partial_words_are_not_sent():
    assert shown(spoken(words("one two"), audio_t=9.0))[0][0] == "one two"  # and not "and so"


def test_a_line_has_the_time_at_which_it_was_said():
    lines = shown(spoken(words(SENTENCE, start=2.0), final=True, audio_t=8.0))
    assert lines[0][1] == pytest.approx(NOW - 6.0)
    assert lines[1][1] == pytest.approx(NOW - 6.0 + 6 * 0.3)


@pytest.mark.parametrize(("sounds", "there"), [(True, ["[Siren]"]), (False, [])])
def test_sounds_stand_in_brackets_if_they_are_wanted(sounds, there):
    assert [text for text, _ in shown(sound("Siren", 1.0, audio_t=9.0), sounds=sounds)] == there


def test_a_name_with_a_hyphen_stays_whole():
    sessions = ("living-room", "hall")
    lines = shown(of("living-room", spoken(words("one two"), final=True)), sessions=sessions)
    assert [text for text, _ in lines] == ["living-room: one two"]


def test_only_the_named_sessions_are_captioned():
    lines = shown(
        of("kitchen", spoken(words("one"), final=True)),
        of("in1-20261123T060000", spoken(words("two"), final=True)),
        sessions=["kitchen"],
    )
    assert [text for text, _ in lines] == ["one"]


def test_of_several_that_speak_each_is_named():
    events = [
        of("kitchen", spoken(words("one"), final=True)),
        of("in1-20261123T060000", spoken(words(SENTENCE), final=True)),
    ]
    named = ["in1: The quick brown fox jumps", "in1: over the lazy dog and runs", "in1: away"]
    assert [text for text, _ in shown(*events)] == ["one", *named]
    assert shown(*events[:1], sessions=["kitchen", "hall"])[0][0] == "kitchen: one"


def test_the_end_of_a_session_gives_out_what_is_left():
    stopped = Status(session="s", seq=9, audio_t=3.0, state="stopped")
    assert [text for text, _ in shown(spoken(words("and then")), stopped, stopped)] == ["and then"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abcdefé \u4e00", min_size=1, max_size=50).filter(str.strip), min_size=1, max_size=8))
def test_every_word_comes_once_in_order_and_no_line_is_too_wide(texts):
    events = [spoken(words(text, start=10.0 * number), segment=number, final=True) for number, text in enumerate(texts)]
    lines = [text for text, _ in shown(*events)]
    assert all(cell_len(line) <= 32 for line in lines)
    assert "".join("".join(lines).split()) == "".join("".join(texts).split())


def test_putting_never_waits_for_a_service_that_hangs_and_the_oldest_lines_go():
    class Hanging(Kept):
        def send(self, lines: Lines) -> float:
            time.sleep(0.5)
            return super().send(lines)

    service = Hanging()
    captions = LiveCaptions([(service, True)])
    captions.start()
    began = time.monotonic()
    for number in range(3 * LIMIT_LINES):
        captions.put([spoken(words(f"line {number}", start=2.0 * number), segment=number, final=True)])
    assert time.monotonic() - began < 0.5 * LIMIT_LINES
    assert captions._streams[0].sender.left_out >= 2 * LIMIT_LINES - 3
    assert not captions.join(0.0)


def test_a_service_that_does_not_want_captions_now_is_said_once_and_loses_them(caplog):
    told: list[str] = []

    class Moody(Kept):
        def send(self, lines: Lines) -> float:
            if lines[0].text in ("one", "two"):
                raise NotWantedError("it does not stream")
            return super().send(lines)

    service = Moody()
    captions = LiveCaptions([(service, True)], tell=told.append)
    captions.start()
    for number, text in enumerate(["one", "two", "three"]):
        captions.put([spoken(words(text, start=3.0 * number), segment=number, final=True)])
    captions.finish()
    assert captions.join(10)
    assert [text for text, _ in service.lines] == ["three"]
    assert told == ["Kept: it does not stream", "Kept: captions are taken"]


def test_an_unexpected_error_ends_this_service_alone_and_shows_no_secret(caplog):
    class Broken(Kept):
        def send(self, lines: Lines) -> float:
            raise RuntimeError("https://example.org/?key=secret")

    broken, well = Broken(), Kept()
    captions = LiveCaptions([(broken, True), (well, True)])
    captions.start()
    captions.put([spoken(words("one"), final=True)])
    captions.finish()
    assert captions.join(10)
    assert well.lines
    assert "captions end: unexpected RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def opened(output: OutputSettings, *, live=True, environment=None) -> list[str]:
    captions = open_captions(output, [], lambda detail: None, live=live, environment=environment or {})
    return [stream.sender.service.name for stream in captions._streams]


ALL = {
    "obs": {"url": "ws://127.0.0.1:4455", "password_env": "OBS_PASSWORD"},
    "youtube": {"url_env": "YOUTUBE_CAPTIONS"},
    "zoom": {"url": "https://wmcapi.zoom.us/closedcaption?id=1&signature=topsecret", "lang": "de-DE"},
}
THERE = {"OBS_PASSWORD": "very secret", "YOUTUBE_CAPTIONS": "http://upload.youtube.com/closedcaption?cid=topsecret"}


def test_what_has_an_address_is_opened_and_only_live(caplog):
    output = validate({"output": ALL}).output
    assert opened(OutputSettings()) == []
    assert opened(output, environment=THERE) == ["OBS", "YouTube", "Zoom"]
    assert opened(output, live=False, environment=THERE) == []
    assert "no captions for OBS, YouTube, Zoom: they are sent at --speed 1 only" in caplog.text


@pytest.mark.parametrize("missing", THERE)
def test_a_variable_that_is_not_set_is_named(missing):
    with pytest.raises(ConfigError, match=rf"output\.\w+\.\w+_env: the environment variable {missing} is not set"):
        opened(validate({"output": ALL}).output, environment={name: THERE[name] for name in THERE if name != missing})


def test_secrets_are_not_shown_and_not_handed_on():
    given = {**ALL, "obs": {"url": "ws://127.0.0.1:4455", "password": "very secret"}}
    assert not {"topsecret", "very secret"} & set(validate({"output": given}).to_yaml().split("'"))
    shown = validate({"output": given}).to_yaml() + repr(validate({"output": given}))
    assert "secret" not in shown
    assert validate({"output": ALL}).secret_names() == frozenset(THERE)


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        ("obs", {"url": "http://127.0.0.1:4455"}, "output.obs.url: must be OBS's websocket address such as ws://"),
        ("obs", {"url": "ws://me:topsecret@127.0.0.1"}, "output.obs.url: must be OBS's websocket address"),
        ("obs", {"url": "ws://127.0.0.1:topsecret"}, "output.obs.url: must be OBS's websocket address"),
        ("obs", {"password": "topsecret", "password_env": "X"}, "output.obs: must have only one of password"),
        ("obs", {"pasword": "topsecret"}, "output.obs.pasword: unknown key; known here: url, password"),
        ("youtube", {"url": "youtube.com/topsecret"}, "output.youtube.url: must be a web address such as https://"),
        ("youtube", {"url": "https://x/", "url_env": "X"}, "output.youtube: must have only one of url, url_env"),
        ("youtube", {"url": ["topsecret"]}, "output.youtube.url: input should be"),
        ("zoom", {"url": "https://x/a b?topsecret"}, "output.zoom.url: must be a web address"),
        ("zoom", {"lang": "English (topsecret)"}, "output.zoom.lang: must be a language tag such as en or de-DE"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_shows_no_secret(section, value, says):
    with pytest.raises(ConfigError) as caught:
        validate({"output": {section: value}})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
    assert "topsecret" not in str(caught.value)
