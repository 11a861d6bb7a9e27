import json

import numpy as np
import pytest
from tiny_data import write_wav

from streamer.errors import InputError
from streamer.training.asr_evaluation import (
    Utterance,
    WordErrors,
    asr_report,
    file_utterances,
    judge,
    manifest_utterances,
    normaliser,
    scene_utterances,
    word_errors,
)
from streamer.training.manifests import ManifestSettings


def test_each_kind_of_error_is_counted():
    found = word_errors("one two three four", "one too three four five")
    assert (found.words, found.substitutions, found.insertions, found.deletions) == (4, 1, 1, 0)
    assert found.rate == pytest.approx(0.5)
    assert word_errors("one two", "").rate == 1.0


def test_words_where_nothing_is_said_are_invented():
    found = word_errors("", "thanks for watching", 30.0)
    assert (found.invented, found.quiet_s, found.rate) == (3, 30.0, None)
    report = asr_report("m", {"stream": {"quiet": found, "speech": word_errors("a b", "a b")}})
    rows = report.figures["rows"]
    assert rows[0]["invented per minute"] == pytest.approx(6.0)
    assert rows[-1]["group"] == "all"
    assert rows[-1]["WER"] == 0.0


def test_groups_are_judged_apart(tmp_path):
    path = write_wav(tmp_path / "a.wav", np.zeros(1600))
    said = [Utterance(path, "Yes, sir!", "a"), Utterance(path, "no", "b"), Utterance(path, "no", "b")]
    found = judge(lambda samples: "yes sir", said)
    assert found["a"] == WordErrors(words=2)
    assert found["b"].rate == 2.0


def test_the_plain_form_keeps_digits_apart():
    assert normaliser("plain")("Zero, one. Two!") == "zero one two"


def test_utterances_come_from_manifests_scenes_and_files(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,text,speaker,split\na.wav,one,anna,test\nb.wav,,,test\nc.wav,two,bert,train\n")
    (spoken,) = manifest_utterances([ManifestSettings(path=manifest)], "test")
    assert (spoken.text, spoken.group) == ("one", "anna")
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    (scenes / "noisy_room_3.json").write_text(json.dumps({"words": [{"word": "one"}, {"word": "two"}]}))
    (scene,) = scene_utterances(scenes)
    assert (scene.text, scene.group, scene.path.name) == ("one two", "noisy_room", "noisy_room_3.flac")
    (tmp_path / "a.txt").write_text("hello")
    assert file_utterances([tmp_path / "a.wav"], [tmp_path / "a.txt"])[0].text == "hello"
    with pytest.raises(InputError, match="--refs"):
        file_utterances([tmp_path / "a.wav"], [])
    with pytest.raises(InputError, match="--scenes"):
        scene_utterances(tmp_path / "nowhere")
