"""The numbers, and that every line of them is one that Prometheus reads."""

import re

from hypothesis import given
from hypothesis import strategies as st

from streamer.events import Alert, Gap, Status, Tags
from streamer.server.hub import Reader
from streamer.server.messages import SessionHealth
from streamer.server.metrics import BOUNDS_S, Metrics

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(\{{{LABEL}(?:,{LABEL})*\}})? (-?[0-9.e+-]+|\+Inf|NaN)")
HEAD = re.compile(rf"# (?:HELP {NAME} \S.*|TYPE {NAME} (?:counter|gauge|histogram))")


def status(seq: int, state: str) -> Status:
    return Status(session="s", seq=seq, audio_t=0.0, state=state)


def tags(seq: int) -> Tags:
    return Tags(session="s", seq=seq, audio_t=1.0, start=0.0, end=1.0, tags=())


def alert(seq: int, state: str) -> Alert:
    more = {"rule": "smoke", "severity": "critical", "start": 0.0, "end": None, "score": 0.9}
    return Alert(session="s", seq=seq, audio_t=1.0, id=1, state=state, labels=(), heard=(), text="", **more)


def samples(text: str) -> dict[str, float]:
    """Name with labels -> value; every line is a sample or stands above some."""
    found = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        match = SAMPLE.fullmatch(line)
        assert match or HEAD.fullmatch(line), line
        if match:
            key = match[1] + (match[2] or "")
            assert key not in found
            found[key] = float(match[3])
    return found


def test_what_is_counted():
    metrics = Metrics(began_s=1_800_000_000.5)
    for seq, latency_s in enumerate((0.05, 0.1, 0.3, 100.0), start=1):
        metrics.event(tags(seq), latency_s)
    metrics.event(tags(5), None)
    for seq, state in enumerate(("raised", "updated", "cleared"), start=6):
        metrics.event(alert(seq, state), 0.4)
    for seq, state in enumerate(("listening", "no_audio", "listening", "no_audio", "stopped"), start=9):
        metrics.event(status(seq, state), 0.1)
    for seq, (start, end) in enumerate(((1.0, 1.5), (1.5, 4.0)), start=20):
        metrics.event(Gap(session="s", seq=seq, audio_t=end, start=start, end=end, reason="lost"), 0.1)
    metrics.event(status(22, "degraded"), 0.1)
    metrics.refused("token")
    metrics.refused("token")
    found = samples(
        metrics.render([Reader(3, 0, 5), Reader(4, 7, 0)], 9, 2, {'a"b\\c\n': SessionHealth(0.25, 1.5, None)})
    )
    assert found["streamer_start_time_seconds"] == 1_800_000_000.5
    assert found['streamer_clients{kind="reader"}'] == found['streamer_clients{kind="sender"}'] == 2
    assert found['streamer_events_total{type="tags"}'] == 5
    assert found['streamer_alerts_raised_total{severity="critical"}'] == 1
    assert found['streamer_refused_total{reason="token"}'] == 2
    assert found["streamer_sound_restarts_total"] == 1
    assert found["streamer_lost_sound_seconds_total"] == 3
    assert found["streamer_degraded_total"] == 1
    assert found["streamer_missed_events_total"] == 9
    assert found['streamer_client_missed_events{client="4"}'] == 7
    assert found['streamer_client_merged_partials{client="3"}'] == 5
    assert found['streamer_session_lag_seconds{session="a\\"b\\\\c\\n"}'] == 1.5
    assert found['streamer_session_last_audio_age_seconds{session="a\\"b\\\\c\\n"}'] == 0.25
    bucket = 'streamer_event_latency_seconds_bucket{{type="tags",le="{}"}}'
    buckets = {bound: found[bucket.format(bound)] for bound in ("0.1", "0.25", "0.5", "+Inf")}
    assert buckets == {"0.1": 2, "0.25": 2, "0.5": 3, "+Inf": 4}
    assert found['streamer_event_latency_seconds_count{type="tags"}'] == 4
    assert found['streamer_event_latency_seconds_sum{type="tags"}'] == 100.45


@given(
    values=st.lists(st.floats(-5, 1000), max_size=50),
    name=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]) | st.just("\n"), min_size=1),
)
def test_buckets_grow_and_any_name_can_be_read(values, name):
    metrics = Metrics(0.0)
    for seq, value in enumerate(values, start=1):
        metrics.event(tags(seq), value)
    found = samples(metrics.render([], 0, 0, {name: SessionHealth(0.0, 0.0)}))
    counts = [count for key, count in found.items() if "_bucket" in key]
    assert counts == sorted(counts)
    assert not values or (len(counts) == len(BOUNDS_S) + 1 and counts[-1] == len(values))
