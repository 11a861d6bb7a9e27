"""Composed scenes: what sounds is in the truth, and a number always gives the same scene."""

import wave
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import InputError, UsageError
from streamer.sound.labels import find
from streamer.training.manifests import Clip
from streamer.training.scenes import COUNT, STEPS, SYNTHETIC, Scenes
from streamer.training.teacher import Teacher

SMOKE, DOG, SPEECH = (find(name).index for name in ("Smoke detector, smoke alarm", "Dog", "Speech"))


def _clip(folder: Path, name: str, seconds: float, labels: tuple[int, ...], **more: str) -> Clip:
    path = folder / f"{name}.wav"
    samples = np.random.default_rng(len(name)).normal(0, 0.1, int(seconds * 16_000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return Clip(path, labels, **more)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    return [
        _clip(tmp_path, "alarm", 5, (SMOKE,), category=SYNTHETIC),
        _clip(tmp_path, "dog", 1, (DOG,)),
        _clip(tmp_path, "street", 12, ()),
        _clip(tmp_path, "people", 20, (SPEECH,), kind="speech"),
    ]


def test_a_scene_has_its_shape_and_is_drawn_from_its_number_alone(clips: list[Clip]) -> None:
    first, second = Scenes(clips, None, 1), Scenes(clips, None, 1)
    for number in (5, 0, 3):
        scene = first.draw(number)
        again = second.draw(number)
        assert scene.samples.shape == (COUNT,)
        assert scene.targets.shape == (STEPS, 527)
        assert np.abs(scene.samples).max() <= 1
        assert np.array_equal(scene.samples, again.samples)
        assert np.array_equal(scene.targets, again.targets)
    assert not np.array_equal(first.draw(0).samples, first.draw(1).samples)


def test_only_what_is_in_it_is_in_its_truth_and_only_while_it_sounds(clips: list[Clip]) -> None:
    scenes = [Scenes(clips[:2], None, 7).draw(number) for number in range(40)]
    present = [set(np.flatnonzero(scene.targets.max(0) > 0)) for scene in scenes]
    assert {SMOKE, DOG} == set.union(*present)
    barking = [scene.targets[:, DOG] > 0 for scene, found in zip(scenes, present, strict=True) if DOG in found]
    assert min(steps.sum() for steps in barking) < STEPS / 2  # a bark of a second is not ten seconds long


class _Always:
    """A teacher that hears a smoke alarm and wind everywhere."""

    def steps(self, samples: np.ndarray) -> np.ndarray:
        found = np.zeros((STEPS, 527), np.float32)
        found[:, [SMOKE, find("Wind").index]] = 0.8
        return found


def test_labels_overrule_the_teacher_about_alerts_where_all_is_labelled(clips: list[Clip]) -> None:
    labelled = [Scenes([clips[1]], _Always(), 3).draw(number) for number in range(6)]  # type: ignore[arg-type]
    assert max(scene.targets[:, SMOKE].max() for scene in labelled) == 0
    assert min(scene.targets[:, find("Wind").index].min() for scene in labelled) == pytest.approx(0.8)
    unknown = [Scenes([clips[2]], _Always(), 3).draw(number) for number in range(6)]  # type: ignore[arg-type]
    assert max(scene.targets[:, SMOKE].max() for scene in unknown) == pytest.approx(0.8)


def test_a_teacher_that_is_no_yamnet_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(InputError, match=r"teacher .*no\.tflite: YAMNet's \.tflite with its"):
        Teacher(tmp_path / "no.tflite")
    (tmp_path / "no.tflite").write_bytes(b"nothing")
    (tmp_path / "class_map.csv").write_text("index,mid,display_name\n0,/m/09x0r,Speech\n")
    with pytest.raises(InputError, match="no TensorFlow Lite file"):
        Teacher(tmp_path / "no.tflite")


def test_without_its_library_a_teacher_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UsageError, match="pip install ai-edge-litert"):
        Teacher(tmp_path / "any.tflite")


def test_yamnet_hears_steps_of_a_whole_window() -> None:
    pytest.importorskip("ai_edge_litert")
    path = Path(__file__).parents[2].parent / "shared/real/yamnet/yamnet.tflite"
    if not path.is_file():
        pytest.skip("needs ../shared")
    found = Teacher(path).steps(np.random.default_rng(0).normal(0, 0.1, COUNT).astype(np.float32))
    assert found.shape == (STEPS, 527)
    assert ((found >= 0) & (found <= 1)).all()
    assert found.max() > 0.1


def test_a_few_recordings_do_not_stand_for_all(tmp_path: Path) -> None:
    made = [_clip(tmp_path, f"alarm{number}", 5, (SMOKE,), category=SYNTHETIC) for number in range(4)]
    one = _clip(tmp_path, "recorded", 5, (SMOKE,))
    scenes = Scenes([*made, one], None, 4)
    drawn = [scenes._front(np.random.default_rng(number))[0] for number in range(300)]
    # in proportion to how many there are of the twelve that would be enough, and as one of five
    assert 300 * 0.1 < drawn.count(one) < 300 * 0.4


def test_smoke_alarms_are_in_front_more_often_than_dogs(clips: list[Clip]) -> None:
    scenes = Scenes(clips[:2], None, 4)
    drawn = [scenes._front(np.random.default_rng(number))[0] for number in range(300)]
    assert 300 * 0.65 < drawn.count(clips[0]) < 300 * 0.85
