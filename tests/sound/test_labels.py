import csv
from pathlib import Path

import pytest

from streamer.sound import labels as module
from streamer.sound.labels import event_group, find, group, groups, labels, readable, resolve

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "audioset_labels.csv"


def test_there_are_527_labels_in_order_with_unique_ids_and_names():
    assert [label.index for label in labels()] == list(range(module.LABEL_COUNT))
    assert len({label.id for label in labels()}) == len({label.name for label in labels()}) == module.LABEL_COUNT
    assert labels()[396].name == "Siren"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_labels_equal_the_published_list():
    rows = list(csv.DictReader(SHARED.open(encoding="utf-8")))
    assert [(row["mid"], row["display_name"]) for row in rows] == [(label.id, label.name) for label in labels()]


@pytest.mark.parametrize("key", [396, "396", "Siren", " siren ", "SIREN", "/m/03kmc9"])
def test_a_label_is_found_by_index_id_or_name(key):
    assert find(key).index == 396


@pytest.mark.parametrize("key", ["Sirene", "smoke detector"])
def test_an_unknown_name_is_answered_with_close_ones(key):
    with pytest.raises(LookupError, match=r"near it: .*(Siren|Smoke detector, smoke alarm)"):
        find(key)


@pytest.mark.parametrize("key", [527, -1, "9999"])
def test_an_index_out_of_range_is_refused(key):
    with pytest.raises(LookupError):
        find(key)


def test_every_siren_is_one_group():
    assert {396, 397, 323, 324, 325} <= group("siren")
    assert group("smoke_alarm") == {399, 400}
    with pytest.raises(LookupError, match="smoke_alarm"):
        group("smoke_alarms")


def test_resolve_takes_groups_and_labels():
    assert resolve("siren") == group("siren")
    assert resolve("Alarm clock") == resolve("395") == {395}
    with pytest.raises(LookupError, match="neither a group nor a label"):
        resolve("zzzz")


def test_a_label_makes_the_event_of_at_most_one_group():
    seen: dict[int, str] = {}
    for found in groups().values():
        if found.event != "overlap":
            for index in found.members:
                assert index not in seen, (labels()[index].name, found.id, seen[index])
                seen[index] = found.id


def test_general_labels_are_not_members_of_the_same_group():
    assert not [found.id for found in groups().values() if found.members & found.general]


def test_every_label_has_an_event_group_with_a_readable_name():
    assert event_group(396).name == "siren"
    assert event_group(400).name == event_group(399).name == "smoke alarm"
    assert event_group(0).event == "none"
    assert all(event_group(label.index).name for label in labels())


@pytest.mark.parametrize(
    ("name", "caption"), [("Siren", "siren"), ("Chewing, mastication", "chewing"), ("DTMF", "DTMF")]
)
def test_readable(name, caption):
    assert readable(name) == caption
