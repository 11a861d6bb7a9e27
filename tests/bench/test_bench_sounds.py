import json
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_data import write_wav

from streamer.audio.files import read_audio
from streamer.bench import sounds, yamnet
from streamer.bench.sound_scores import EXPECTED, LABELS, UNCOUNTED, Heard, Raised, expected, poisson_bound, summary
from streamer.commands.cli import main
from streamer.errors import InputError, UsageError
from streamer.events import SAMPLE_RATE
from streamer.measure.recordings import AFTER_S, BEFORE_S, Recording, in_a_quiet_room
from streamer.measure.yamnet import FRAME_SAMPLES, RUNTIMES
from streamer.model.checkpoint import load_model
from streamer.recipes.synthesis.sounds import ALARMS, DEVELOPMENT
from streamer.settings.config import Settings
from streamer.sound.labels import labels


def find_runtime(name):
    """The module's place without importing it; None where its package is not installed."""
    return find_spec(name) if find_spec(name.partition(".")[0]) else None


RULES = {rule.id: rule.severity for rule in Settings().alerts.rules}


def recording(tmp_path, group="sounds/siren", seconds=2.0, rules=(), name="a.wav", level=0.0):
    write_wav(tmp_path / name, np.random.default_rng(0).normal(0, level, round(seconds * SAMPLE_RATE)))
    return Recording(name, tmp_path / name, group, None, "", alert=rules)


def heard(found, group="sounds/siren", seconds=1800.0, wanted="siren", **changes):
    given = {
        "listener": "streamer", "condition": "alone", "recording": "a.wav", "set": group, "seconds": seconds,
        "exposed_s": seconds, "wanted": wanted, "allowed": (wanted or "-", "car_horn"), "doubtful": False,
        "raised": tuple(Raised(rule, RULES[rule], at_s, 0.9) for rule, at_s in found), "scores": {},
    }  # fmt: skip
    return Heard(**given | changes)


@pytest.mark.parametrize(("count", "bound"), [(0, 2.996), (1, 4.744), (5, 10.513)])
def test_the_poisson_bound_is_the_tabulated_one(count, bound):
    assert poisson_bound(count) == pytest.approx(bound, abs=0.001)


def test_what_may_be_raised_is_not_false_after_the_start_and_words_are_not_judged():
    found = heard([("siren", 1.5), ("dog", 2.0), ("silence", 3.0), ("car_horn", 4.0), ("siren", -1.0)])
    assert found.after_s == 1.5
    assert [(one.rule, one.at_s) for one in found.false] == [("dog", 2.0), ("siren", -1.0)]
    assert heard([("siren", -1.0)]).after_s is None


@pytest.mark.parametrize(
    ("group", "rules", "wanted"),
    [
        ("sounds/siren", (), ["siren"]),
        ("sounds/neg_street", (), ["-", "siren", "car_horn", "dog"]),
        ("sounds/neg_music", (), ["-"]),
        ("talk", (), ["-"]),
        ("sounds/siren", ("-", "siren"), ["-", "siren"]),
        ("street", ("dog", "knock"), ["dog", "knock"]),
    ],
)
def test_rules_are_the_manifests_or_those_of_the_set(tmp_path, group, rules, wanted):
    assert list(expected(recording(tmp_path, group, rules=rules), RULES)) == wanted


def test_every_rule_and_label_of_the_tables_is_one():
    assert {rule for rules in EXPECTED.values() for rule in rules.split()} <= {*RULES, "-"}
    assert set(RULES) > UNCOUNTED
    assert {rule for rules in EXPECTED.values() for rule in rules.split()} - {"-"} == set(LABELS)
    assert {name for names in LABELS.values() for name in names} <= {label.name for label in labels()}


def test_recall_is_by_rule_and_false_alerts_are_by_the_hour():
    group = [
        heard([("siren", 1.0), ("siren", 9.0)]),
        heard([("siren", 2.0), ("dog", 1.0), ("dog", 40.0)]),
        heard([]),
        heard([("siren", 7.0)], doubtful=True),
        heard([("siren", 3.0)], "sounds/neg_music", wanted=None),
    ]
    found = summary(group, RULES)
    (row,) = found["recall"]
    assert (row["rule"], row["raised"], row["doubtful"]) == ("siren", "2 of 3", "1 of 1")
    assert (row["after_p50_s"], row["after_p95_s"]) == (2.0, 6.5)
    siren, music = found["sets"]
    assert (siren["raised"], siren["minutes"], siren["false_critical"], siren["false_others"]) == (
        "3 of 4",
        120.0,
        0,
        2,
    )
    assert (music["raised"], music["false_critical"]) == (None, 1)
    critical, others = found["severities"]
    assert (found["hours"], critical["false"], critical["per_hour"]) == (2.5, 1, 0.4)
    assert critical["bound_per_hour"] == pytest.approx(4.744 / 2.5, abs=0.001)
    assert (others["false"], others["recordings"]) == (2, 1)
    by_rule = {row["rule"]: row["false"] for row in found["rules"]}
    assert (by_rule["siren"], by_rule["dog"], by_rule["smoke_alarm"]) == (1, 2, 0)
    assert "help" not in by_rule
    assert found["precision"] == []
    assert json.loads(json.dumps(found["recordings"]))[1]["false"][0]["rule"] == "dog"


def test_average_precision_is_over_seconds_of_enough_recordings():
    def scored(*values, wanted="siren", **changes):
        return heard([], wanted=wanted, scores={"siren": np.array(values, np.float32)}, **changes)

    right = [scored(0.9, 0.4) for _ in range(5)]
    others = [scored(0.5, 0.1, wanted=None, allowed=("-",)), scored(0.99, wanted=None, allowed=("-", "siren"))]
    (row,) = summary([*right, *others, scored(0.0, doubtful=True)], RULES)["precision"]
    # five seconds at 0.9, one wrong at 0.5, five at 0.4: precision 1 over half of them, then 10 of 11
    assert row["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 10 / 11, abs=1e-4)
    assert (row["recordings"], row["seconds"], row["others_s"]) == (5, 10, 2)
    assert summary([*right[:4], *others], RULES)["precision"] == []


def test_a_bed_is_so_much_quieter_and_never_the_recording_itself(tmp_path):
    made = [
        recording(tmp_path, "talk", 1.0, name=f"{name}.wav", level=level)
        for name, level in (("one", 0.01), ("two", 0.1), ("three", 0.05))
    ]
    music = recording(tmp_path, "sounds/neg_music", 1.0, name="music.wav", level=0.1)
    beds = sounds.Beds([*made, music])
    bed = beds.bed("speech", 1, 40_000, made[1].path)
    assert len(bed) == 40_000
    assert np.array_equal(bed[:16_000], made[2].samples())
    assert np.array_equal(bed[32_000:], bed[:8_000])
    with pytest.raises(InputError, match=r"no music but silence and music.wav itself"):
        beds.bed("music", 0, 10, music.path)
    with pytest.raises(InputError, match="--under: no music"):
        sounds.Beds(made)
    sound = np.float32(0.2) * np.sin(np.arange(40_000, dtype=np.float32))
    under = sounds.mixed(sound, bed, sounds._power(sound), 10) - sound
    assert 10 * np.log10(sounds._power(sound) / sounds._power(under)) == pytest.approx(10, abs=0.01)
    assert np.abs(sounds.mixed(5 * sound, bed, 0.1, 0)).max() <= 1


def test_the_same_recording_in_another_format_is_heard_once_and_only_sounds_are_mixed(tmp_path, monkeypatch):
    rooms = []

    class Ours:
        name = "ours"

        def listen(self, room):
            rooms.append(len(room))
            return [Raised("siren", "critical", BEFORE_S + 1, 0.9)], {}

    monkeypatch.setattr(sounds, "Ours", lambda model, settings: Ours())
    model = load_model("nano", head=None)
    siren = recording(tmp_path, seconds=2.0, level=0.1)
    again = recording(tmp_path, name="a.wav.flac.wav", level=0.1)
    beds = [recording(tmp_path, name, 3.0, name=f"{name[-5:]}.wav", level=0.1) for name in ("talk", "sounds/neg_music")]
    found = sounds.measure(model, Settings(), [siren, again, beds[0]], beds=beds)
    assert rooms == [round((BEFORE_S + 2 + AFTER_S) * SAMPLE_RATE)] * 7 + [
        round((BEFORE_S + 3 + AFTER_S) * SAMPLE_RATE)
    ]
    conditions = [row["condition"] for row in found["recall"]]
    assert conditions == ["alone", *(f"{kind}, {db} dB" for kind in ("speech", "music") for db in (20, 10, 0))]
    assert {row["raised"] for row in found["recall"]} == {"1 of 1"}
    assert found["recordings"][0]["exposed_s"] == 2.0
    assert found["recordings"][1]["exposed_s"] == 11.0


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """A network that gives the mean of a frame as the score of `Siren` and half of it as that of `Bark`."""
    names = ["Speech", "Siren", "Bark"]
    (tmp_path / "net.tflite").write_bytes(b"")
    (tmp_path / "net_class_map.csv").write_text("index,display_name\n" + "".join(f"0,{name}\n" for name in names))

    class Interpreter:
        def __init__(self, model_path, num_threads):
            self.shape = (FRAME_SAMPLES,)

        def allocate_tensors(self):
            """Nothing to do."""

        def get_input_details(self):
            return [{"index": 0, "shape": self.shape}]

        def get_output_details(self):
            return [{"index": 1, "shape": (1, 3)}]

        def set_tensor(self, index, frame):
            self.frame = frame

        def invoke(self):
            """Nothing to do."""

        def get_tensor(self, index):
            level = float(self.frame.mean())
            return np.array([[0.9, level, level / 2]], np.float32)

    monkeypatch.setitem(sys.modules, RUNTIMES[0], SimpleNamespace(Interpreter=Interpreter))
    return tmp_path / "net.tflite"


def test_the_peers_alert_is_at_the_end_of_the_first_frame_that_reaches_half(peer):
    room = np.zeros(6 * SAMPLE_RATE, np.float32)
    room[2 * SAMPLE_RATE : 4 * SAMPLE_RATE] = 0.8
    raised, scores = yamnet.YamNet(peer, RULES).listen(room)
    starts = np.arange(1_600, len(room) - 15_600 + 1, 7_680)
    means = np.array([room[start : start + 15_600].mean() for start in starts])
    first = starts[np.flatnonzero(means >= 0.5)[0]]
    assert [(one.rule, one.severity) for one in raised] == [("siren", "critical")]
    assert raised[0].at_s == (first + 15_600) / SAMPLE_RATE
    assert set(scores) == {"siren", "dog"}
    assert len(scores["siren"]) == 6
    assert scores["siren"][2:4] == pytest.approx([0.8, 0.8], abs=0.15)
    assert scores["siren"][5] == 0


@pytest.mark.shared
@pytest.mark.skipif(all(find_runtime(name) is None for name in RUNTIMES), reason="needs ai-edge-litert")
def test_the_real_network_hears_a_siren(shared_dir):
    real = shared_dir / "real"
    room = in_a_quiet_room(read_audio(str(next((real / "sounds" / "siren").glob("us8k*")))))
    raised, scores = yamnet.YamNet(real / "yamnet" / "yamnet.tflite", RULES).listen(room)
    assert "siren" in [one.rule for one in raised]
    assert set(scores) == set(LABELS)


def test_a_peer_that_cannot_be_used_is_one_line(peer, monkeypatch):
    (peer.parent / "net_class_map.csv").write_text("display_name\nSiren\n")
    with pytest.raises(UsageError, match="must take 15600 samples and give 1 scores"):
        yamnet.YamNet(peer, RULES)
    with pytest.raises(UsageError, match=r"other_class_map.csv must hold the classes"):
        yamnet.YamNet(peer.with_name("other.tflite"), RULES)
    for name in RUNTIMES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install ai-edge-litert$"):
        yamnet.YamNet(peer, RULES)


def test_the_command_judges_recordings(tmp_path, capsys):
    sound = ALARMS["t3"](np.random.default_rng(3), 12.0, DEVELOPMENT).samples
    write_wav(tmp_path / "alarm.wav", sound * np.float32(0.1))
    write_wav(tmp_path / "quiet.wav", np.random.default_rng(4).normal(0, 1e-3, SAMPLE_RATE))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "path,set,text,alert,ref\nalarm.wav,sounds/beeps,,smoke_alarm,S\nquiet.wav,sounds/neg_home,,,S?\nquiet.wav,talk,,,A\n"
    )
    arguments = ["bench", "sounds", "--data", str(manifest), "--model", "nano", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--sets", "sounds", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["rule"], row["raised"]) for row in found["recall"]] == [("smoke_alarm", "1 of 1")]
    assert 0 < found["recall"][0]["after_p50_s"] < 8
    assert [row["set"] for row in found["sets"]] == ["sounds/beeps", "sounds/neg_home"]
    assert [row["doubtful"] for row in found["recordings"]] == [False, True]
    assert found["severities"][0]["false"] == 0
    assert (found["model"], found["head"]) == ("nano", "nano_at")
    page = capsys.readouterr().out
    assert "Rules that ought to be raised" in page
    assert "`nano`, head nano_at" in page
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sounds.json", "sounds.md", "sounds.png"}
    manifest.write_text("path,set,text,alert\nalarm.wav,sounds/beeps,,smoke\n")
    assert main(["bench", "alerts", *arguments[2:]]) == 2
    assert "alarm.wav: `alert` must be among" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--mixed"], "--mixed and --under MANIFEST: each needs the other"),
        (["--mixed", "--under", "/nowhere.csv"], "--under /nowhere.csv: cannot be read: No such file or directory"),
        (["--peer", "/nowhere.tflite"], "--peer: /nowhere_class_map.csv must hold the classes"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path, options, line, capsys):
    recording(tmp_path)
    (tmp_path / "manifest.csv").write_text("path,set,text\na.wav,sounds/siren,\n")
    assert main(["bench", "sounds", "--model", "nano", "--data", str(tmp_path / "manifest.csv"), *options]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert main(["bench", "sounds", "--data", str(tmp_path)]) == 2
    assert "must be a manifest of recordings" in capsys.readouterr().err


def test_scores_of_each_second_are_those_of_the_whole_head(tmp_path):
    model = load_model("nano")
    room = np.random.default_rng(0).normal(0, 0.1, round(4.4 * SAMPLE_RATE)).astype(np.float32)
    _, scores = sounds.Ours(model, Settings()).listen(room)
    assert set(scores) == set(LABELS)
    assert all(len(values) == 5 for values in scores.values())
    assert all((values[:4] > 0).all() for values in scores.values())  # the event's least score is 0.1
    assert min(values[:4].max() for values in scores.values()) < 0.1
