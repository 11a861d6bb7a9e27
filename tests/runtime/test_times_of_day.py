"""Clients are told anew when a session began, once its sound card and the clock are too far apart."""

from types import SimpleNamespace

import pytest

from streamer.runtime.times_of_day import OFF_S, TimesOfDay
from streamer.server.messages import SessionInfo

DAY_S = 86_400.0


def test_after_months_the_times_of_day_are_still_right():
    """The card's second is 0.01 % too long, so a month has 4 minutes less of its seconds."""
    now_s, told = [0.0], []
    times = TimesOfDay(told.append, lambda: now_s[0])
    times.tell(SessionInfo("kitchen", "base", "base", 16_000, 0.0))
    pipeline = SimpleNamespace(name="kitchen", last_audio_age_s=0.1, captured_s=0.0)
    for minute in range(30 * 24 * 60):
        now_s[0] = 60.0 * minute
        pipeline.captured_s = now_s[0] * 0.9999
        times.look([pipeline])
        assert told[-1].opened_at + pipeline.captured_s == pytest.approx(now_s[0], abs=OFF_S)
    assert 30 * DAY_S * 0.0001 / OFF_S * 0.8 < len(told) < 30 * DAY_S * 0.0001 / OFF_S + 2
    assert told[-1].model == "base"


def test_while_no_sound_comes_and_where_there_is_no_time_of_day_nothing_is_told():
    told = []
    times = TimesOfDay(told.append, lambda: 1_000.0)
    times.tell(SessionInfo("kitchen", "base", "base", 16_000, 0.0))
    times.tell(SessionInfo("file", "base", "base", 16_000, None))
    times.look([SimpleNamespace(name="kitchen", last_audio_age_s=60.0, captured_s=10.0)])
    times.look([SimpleNamespace(name="file", last_audio_age_s=0.0, captured_s=10.0)])
    times.look([SimpleNamespace(name="a sender's", last_audio_age_s=0.0, captured_s=10.0)])
    assert len(told) == 2
