import json

import numpy as np
import pytest
import torch
from random_whisper import ENGLISH, random_model, random_whisper
from tiny_data import write_wav

from streamer.audio.files import demo_path, read_audio
from streamer.bench import peers, speech
from streamer.bench.peers import Offline
from streamer.bench.speech_scores import Reference
from streamer.commands.cli import main
from streamer.errors import UsageError
from streamer.measure.recordings import Recording, TrueWord
from streamer.measure.word_errors import plain_text
from streamer.settings.config import Settings

NOISE = np.random.default_rng(0).normal(0.0, 0.05, 8000).astype(np.float32)
TALK = read_audio(demo_path("voices"))[:32_000]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A random model that soon stops writing, half a second of noise, some speech, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = random_whisper(0, vocabulary=ENGLISH, ending=30.0)
    torch.save({"dims": vars(module.dims), "model_state_dict": module.state_dict()}, tmp_path / "tiny.pt")
    (tmp_path / "tiny.json").write_text('{"variable_context": true, "previous_text": true}')
    write_wav(tmp_path / "noise.wav", NOISE)
    write_wav(tmp_path / "talk.wav", TALK)
    (tmp_path / "manifest.csv").write_text(
        "path,set,seconds,language,text\ntalk.wav,talk,2,en,Yes sir.\nnoise.wav,sounds/noise,0.5,,\n"
    )
    return tmp_path


def test_the_same_audio_is_read_once_for_each_model_and_way(tmp_path, monkeypatch):
    calls = []

    def transcribe(module, samples, **options):
        calls.append(options)
        words = [{"word": " yes", "end": 0.4}] if options["word_timestamps"] else []
        return {"text": " yes", "segments": [{"words": words}]}

    monkeypatch.setattr(peers.whisper, "transcribe", transcribe)
    reader = Offline(random_whisper(0), folder=tmp_path)
    first = reader.read(NOISE, "de")
    assert (first.text, first.words) == ("yes", ())
    assert Offline(random_whisper(0), folder=tmp_path).read(NOISE, "de") == first
    assert len(calls) == 1
    assert [(word.text, word.end_s) for word in reader.read(NOISE, "de", words=True).words] == [("yes", 0.4)]
    reader.read(NOISE, "fr")
    reader.read(NOISE[1:], "de")
    Offline(random_whisper(1), folder=tmp_path).read(NOISE, "de")
    Offline(random_whisper(0), previous_text=False, folder=tmp_path).read(NOISE, "de")
    assert len(calls) == 6
    assert [call["language"] for call in calls] == ["de", "de", "fr", "de", "de", "de"]


def test_models_that_know_english_only_read_as_english(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        peers.whisper,
        "transcribe",
        lambda m, s, **given: asked.append(given["language"]) or {"text": "", "segments": []},
    )
    Offline(random_whisper(0, vocabulary=ENGLISH), folder=tmp_path).read(NOISE, None)
    assert asked == ["en"]


def test_a_broken_kept_reading_is_read_anew(tmp_path):
    reader = Offline(random_whisper(0, ending=10.0), folder=tmp_path)
    first = reader.read(NOISE, "en")
    (kept,) = tmp_path.iterdir()
    kept.write_text("{")
    assert reader.read(NOISE, "en").text == first.text
    assert json.loads(kept.read_text())["text"] == first.text


def test_the_command_writes_figures_by_listener_and_set(place, capsys):
    command = ["bench", "speech", "--data", str(place / "manifest.csv"), "--model", str(place / "tiny.pt")]
    command += ["--variant", 'bold={"guards": {"doubt": false}}']
    command += ["--dtype", "float32", "--out", str(place / "out"), "--page", str(place / "page.md"), "--whole"]
    (place / "page.md").write_text("# Figures\n\n## Other\n\nStays.\n")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "1 recordings with speech, 2 s, 2 words" in shown
    assert "Set by set" not in shown
    result = json.loads((place / "out" / "speech.json").read_text())
    assert set(result["listeners"]) == {speech.OFFLINE, "bold", speech.WHOLE}
    assert result["absent"] == "not asked for (--peers)"
    for found in result["listeners"].values():
        assert (found["all"]["words"], found["all"]["quiet_recordings"], found["all"]["quiet_seconds"]) == (2, 1, 0.5)
        assert set(found["sets"]) == {"talk", "sounds/noise"}
    retractions = {name: found["all"]["retractions"] for name, found in result["listeners"].items()}
    assert retractions == {speech.OFFLINE: None, "bold": 0, speech.WHOLE: None}
    assert result["listeners"][speech.WHOLE]["all"]["wer"] == result["listeners"][speech.OFFLINE]["all"]["wer"]
    assert len(result["recordings"]) == 2
    assert {path.name for path in (place / "out").iterdir()} == {"speech.json", "speech.md", "speech.png"}
    page = (place / "page.md").read_text()
    assert "Stays." in page
    assert "Set by set" in page
    assert "Words written where nobody speaks" in page


def test_a_recording_is_also_played_live():
    model = random_model(0, ending=10.0)
    words = (TrueWord("x", 0.9),)
    reference = Reference("talk", "talk", 1.0, "x", words, plain_text)
    heard = speech._streamed("live", model, Settings(), reference, TALK[:16_000], 0.5)
    assert heard.errors.words == 1
    assert heard.real_commits_s == ()  # the word ended behind what was played


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--variant", "x"], "--variant x: must be NAME={settings as JSON}"),
        (["--variant", 'x={"guards": {"dout": 1}}'], "--variant x: guards.dout: unknown key"),
        (["--whole", "--model", "nano"], "--whole: nano was not trained to read whole files: transcribe streams them"),
        (["--sets", "walk"], "--sets walk: there is no such set; there are sounds/noise, talk"),
        (["--data", "/nowhere.csv"], "--data /nowhere.csv: cannot be read: No such file or directory"),
    ],
)
def test_wrong_options_are_refused_in_one_line(place, options, line, capsys):
    command = ["bench", "speech", "--data", str(place / "manifest.csv"), "--model", str(place / "tiny.pt")]
    assert main([*command, *options]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_a_model_that_knows_english_only_refuses_other_languages(place):
    model = random_model(0, vocabulary=ENGLISH)
    german = [Recording("talk.wav", place / "talk.wav", "fleurs_de", "de", "Ja.")]
    with pytest.raises(UsageError, match="knows English only, and the set fleurs_de is in de: choose --sets"):
        speech.measure(model, german, speech.Plan({"streamer": Settings()}, source=str(place / "tiny.pt")))


def test_every_guard_is_tried_alone_and_left_out():
    variants = speech.guard_variants(Settings())
    names = [name.removeprefix("only ") for name in variants if name.startswith("only ")]
    assert "doubt" in names
    assert not any(getattr(variants["no guards"].guards, name) for name in names)
    for name in names:
        assert [other for other in names if getattr(variants[f"only {name}"].guards, other)] == [name]
        assert [other for other in names if not getattr(variants[f"without {name}"].guards, other)] == [name]
    assert variants["streamer"] == Settings()


def test_a_page_without_speech_has_no_word_errors():
    result = {
        "machine": {
            "load_1_5_15_min": [0, 0, 0],
            "versions": {},
            "date": "",
            "processor": "",
            "flags": [],
            "cores": 1,
            "threads": 1,
        },
        **{"model": "m", "head": None, "dtype": "float32", "words_timed_by": "m", "paced_s": 0, "absent": None},
        **speech.summary([]),
    }
    report = speech.report(result)
    assert report.tables == []
    assert report.draw is None
