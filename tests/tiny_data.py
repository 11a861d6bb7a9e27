"""A random backbone and a few generated recordings: enough to train and judge a head in a second."""

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from whisper.model import ModelDimensions, Whisper

from streamer.training.head_settings import HeadTraining

SOUNDS = {"Siren": 900.0, "Bark": 220.0, "Rain": 0.0}  # label -> Hz; 0 is noise


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def sound(label: str, seconds: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    hz = SOUNDS[label] * random.uniform(0.9, 1.1)
    noise = random.normal(0, 0.1 if hz == 0 else 0.003, len(time))
    return 0.3 * np.sign(np.sin(2 * np.pi * hz * time)) * (hz > 0) + noise


def write_manifest(folder: Path, per_label: int = 8, seconds: tuple[float, ...] = (0.6, 2.0, 5.0)) -> Path:
    """`manifest.csv`; the last two recordings of each label are the split `test`."""
    lines = ["path,labels,split,category,fold"]
    for label in SOUNDS:
        for number in range(per_label):
            name = f"{label}_{number}.wav"
            write_wav(folder / name, sound(label, seconds[number % len(seconds)], number))
            split = "test" if number >= per_label - 2 else "train"
            lines.append(f"{name},{label},{split},{label.lower()},{number % 3 + 1}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_backbone(folder: Path, *, variable_context: bool = True, width: int = 64, layers: int = 2) -> Path:
    torch.manual_seed(0)
    module = Whisper(ModelDimensions(80, 1500, width, 2, layers, 51864, 448, width, 2, 2))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = 1.0 if "ln" in name and name.endswith("weight") else 0.0
            spread = 0.5 if "conv" in name else 0.1  # so that sounds differ more than positions do
            parameter.copy_(centre + spread * torch.randn_like(parameter))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.pt"
    torch.save({"dims": vars(module.dims), "model_state_dict": module.state_dict()}, path)
    path.with_suffix(".json").write_text(json.dumps({"variable_context": variable_context, "min_context_s": 2.0}))
    return path


def head_config(folder: Path, **recipe: Any) -> dict[str, Any]:
    return {
        "model": str(folder / "tiny.pt"),
        "out": str(folder / "head" / "tiny_at.pth"),
        "device": "cpu",
        "dtype": "float32",
        "data": {"manifests": [{"path": str(folder / "manifest.csv")}], "validation_share": 0.25},
        "features": {"cache": str(folder / "taps")},
        "recipe": {"epochs": 4, "average_from": 3, "batch": 6, "rate": 3e-3, **recipe},
    }


def head_settings(folder: Path, **recipe: Any) -> HeadTraining:
    return HeadTraining.model_validate(head_config(folder, **recipe))
