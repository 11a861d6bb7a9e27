import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_data import SOUNDS, sound, write_backbone, write_wav

from streamer.errors import InputError
from streamer.training import robustness
from streamer.training.manifests import Clip, ManifestSettings
from streamer.training.robustness import mix, string_together


@given(snr=st.floats(-10, 20), offset=st.integers(0, 999), seed=st.integers(0, 99))
def test_a_mixture_has_the_wanted_ratio(snr, offset, seed):
    random = np.random.default_rng(seed)
    speech = random.normal(0, 0.01, 3000).astype(np.float32)
    noise = random.normal(0, 0.3, 1000).astype(np.float32)
    disturbance = mix(speech, noise, snr, offset) - speech
    found = 10 * np.log10(np.mean(speech**2) / np.mean(disturbance**2))
    assert found == pytest.approx(snr, abs=0.1)


def test_silent_noise_changes_nothing_and_loud_mixtures_do_not_clip():
    speech = np.full(100, 0.5, np.float32)
    assert np.array_equal(mix(speech, np.zeros(10, np.float32), 0.0), speech)
    assert np.abs(mix(speech, np.ones(10, np.float32), -20.0)).max() <= 1.0


def test_words_of_one_speaker_are_strung_together(tmp_path):
    clips = [
        Clip(write_wav(tmp_path / f"{who}{n}.wav", np.full(1600, 0.1)), (0,), text=f"{who}{n}", speaker=who)
        for who in "ab"
        for n in range(4)
    ]
    first, second = string_together(clips, 2, 3, seed=1)
    assert {word[0] for word in first.text.split()} == {"a"}
    assert {word[0] for word in second.text.split()} == {"b"}
    assert len(first.audio) == 2 * 8000 + 3 * (1600 + 4000)
    with pytest.raises(InputError, match="no clip has a `text`"):
        string_together([], 1, 1, seed=0)


def test_the_study_runs_from_a_manifest_to_its_plots(tmp_path):
    write_backbone(tmp_path)
    lines = ["path,labels,split,category,text,speaker"]
    for label in SOUNDS:
        for number in range(3):
            name = f"{label}{number}.wav"
            write_wav(tmp_path / name, sound(label, 1.0, number))
            lines.append(f"{name},{label},{'test' if number == 2 else 'train'},{label.lower()},,")
    write_wav(tmp_path / "word.wav", sound("Bark", 0.5, 9))
    lines.append("word.wav,Speech,test,,one,anna")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    report = robustness.main(
        str(tmp_path / "tiny.pt"),
        [ManifestSettings(path=tmp_path / "m.csv")],
        tmp_path / "out",
        snrs_db=(20.0, -10.0),
        utterances=1,
        cache=tmp_path / "taps",
        device="cpu",
        dtype="float32",
        progress=False,
    )
    assert [row["noise"] for row in report.result["categories"]] == ["bark", "rain", "siren"]
    names = {"robustness.json", "robustness.md", "robustness.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
