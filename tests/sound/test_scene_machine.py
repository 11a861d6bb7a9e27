"""The scene on composed tags and levels; hysteresis; its event; and that nothing changes where nobody asked for it."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events import SAMPLE_RATE, SceneScores, Stamp
from streamer.sound.labels import find
from streamer.sound.scene import SceneChange, SceneMachine

SECOND = SAMPLE_RATE


class Room:
    """Feeds a machine second by second."""

    def __init__(self):
        self.machine, self.at = SceneMachine(100.0), 0
        self.random = np.random.default_rng(0)

    def hear(self, seconds, noise_db, speech_db=None, tags=(), alarm=False):
        """What changed; speech is on for 0.7 of each second, noise always."""
        changes = []
        for _ in range(seconds):
            sound = self.random.standard_normal(SECOND) * 10 ** (noise_db / 20)
            voiced = np.zeros(50, bool)
            if speech_db is not None:
                voiced[:35] = True
                sound += np.repeat(voiced, 320) * self.random.standard_normal(SECOND) * 10 ** (speech_db / 20)
            scores = np.zeros(527, np.float32)
            for name, score in tags:
                scores[find(name).index] = score
            self.at += SECOND
            for half in range(2):
                self.machine.hear(sound[half * 8_000 :][:8_000].astype(np.float32), voiced[half * 25 :][:25].tolist())
            change = self.machine.judge(scores, self.at, alarm=alarm)
            changes += [change] if change else []
        return changes


@pytest.mark.parametrize(
    ("wanted", "sound"),
    [
        ("quiet", {"noise_db": -75}),
        ("speech", {"noise_db": -75, "speech_db": -30, "tags": [("Speech", 0.9)]}),
        ("speech_in_noise", {"noise_db": -38, "speech_db": -30, "tags": [("Speech", 0.8)]}),
        ("noise", {"noise_db": -35, "tags": [("Vacuum cleaner", 0.7)]}),
        ("music", {"noise_db": -35, "tags": [("Music", 0.9), ("Piano", 0.6)]}),
        ("alarm", {"noise_db": -35, "tags": [("Fire alarm", 0.8), ("Beep, bleep", 0.5)]}),
    ],
)
def test_each_scene_is_recognised_within_five_seconds(wanted, sound):
    changes = Room().hear(5, **sound)
    assert changes[-1].scene == wanted
    assert len(changes) == 1
    assert changes[0].start_sample <= SECOND


def test_an_alarm_is_one_at_once_and_stays_one_for_a_while():
    room = Room()
    room.hear(5, -75, -30, [("Speech", 0.9)])
    assert [one.scene for one in room.hear(1, -35, alarm=True)] == ["alarm"]
    assert room.hear(2, -75, -30, [("Speech", 0.9)]) == []
    assert [one.scene for one in room.hear(4, -75, -30, [("Speech", 0.9)])] == ["speech"]


def test_one_odd_second_changes_nothing():
    room = Room()
    room.hear(5, -75, -30, [("Speech", 0.9)])
    assert room.hear(1, -75, -30, [("Speech", 0.6), ("Music", 0.9)]) == []
    assert room.hear(4, -75, -30, [("Speech", 0.9)]) == []


def test_somebody_who_pauses_still_speaks():
    room = Room()
    room.hear(6, -75, -30, [("Speech", 0.9)])
    assert room.hear(2, -75) == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-90, -10), st.none() | st.floats(-60, -10), st.floats(0, 1), st.booleans()), max_size=25
    )
)
def test_it_never_says_the_same_scene_twice_and_scores_are_shares(seconds):
    room, said = Room(), []
    for noise, speech, music, alarm in seconds:
        said += room.hear(1, noise, speech, [("Music", music)], alarm)
    assert all(one.scene != other.scene for one, other in pairwise(said))
    starts = [one.start_sample for one in said]
    assert starts == sorted(starts)
    assert all(0 <= score <= 1 for one in said for score in one.scores.__reduce_ex__(4)[2] if isinstance(score, float))


def test_the_event_is_that_of_the_protocol():
    change = SceneChange("speech_in_noise", 3 * SECOND, SceneScores(0.1, 0.2, 0.6, 0.3, 0.0, 0.0))
    event = json.loads(change.event(Stamp(session="s1", seq=7, audio_t=5.0)).to_json())
    assert event == {
        "v": 1,
        "type": "scene",
        "session": "s1",
        "seq": 7,
        "audio_t": 5.0,
        "scene": "speech_in_noise",
        "start": 3.0,
        "scores": {"quiet": 0.1, "speech": 0.2, "speech_in_noise": 0.6, "noise": 0.3, "music": 0.0, "alarm": 0.0},
    }
