"""The shipped files: `nano.pt` (openai-whisper's format) and `nano_at.pth` (Whisper-AT's), each with its JSON."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import whisper

from streamer.recipes.nano.network import ALIGNMENT_HEADS, Nano, full_state
from streamer.recipes.nano.vocabulary import Vocabulary
from streamer.recipes.nano.words import vocabulary as word_list

SOURCE = "streamer train nano (see nano.md)"


def write_backbone(model: Nano, vocabulary: Vocabulary, folder: Path) -> None:
    """`nano.pt` and `nano.json`. The weights are rounded to float16."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = {"dims": dict(vars(model.dims)), "model_state_dict": full_state(model, vocabulary)}
    _atomic(checkpoint, folder / "nano.pt")
    facts = {
        "name": "nano",
        "variable_context": True,
        "min_context_s": 2,
        "max_context_s": 30,
        "languages": ["en"],
        "alignment_heads": [[model.dims.n_text_layer - 1, head] for head in ALIGNMENT_HEADS],
        "vocabulary": list(word_list()),
        "parameters": sum(value.numel() for value in model.whisper.parameters()),
        "source": SOURCE,
        "sha256": sha256(folder / "nano.pt"),
    }
    (folder / "nano.json").write_text(json.dumps(facts, indent=1) + "\n")


def shipped_form(model: Nano, vocabulary: Vocabulary) -> whisper.Whisper:
    """The model as its checkpoint will be loaded: openai-whisper's class, weights rounded to float16."""
    shipped = whisper.model.Whisper(model.dims)
    shipped.load_state_dict({key: value.float() for key, value in full_state(model, vocabulary).items()})
    return shipped.eval()


def write_head(model: Nano, calibration: dict[str, Any], folder: Path) -> None:
    """`nano_at.pth` (float32) and `nano_at.json`. `calibration`: thresholds [527] and the scores' mapping."""
    state = {f"at_model.{key}": value.detach().clone() for key, value in model.head.state_dict().items()}
    _atomic(state, folder / "nano_at.pth")
    facts = {
        "backbone": "nano",
        "kind": "tl_tr",
        "labels": "audioset-527",
        **calibration,
        "trained_spans_s": [1, 10],
        "source": SOURCE,
        "sha256": sha256(folder / "nano_at.pth"),
    }
    (folder / "nano_at.json").write_text(_compact(facts))


def _compact(facts: dict[str, Any]) -> str:
    """JSON with one line for each key."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def sha256(path: Path) -> str:
    """The hash of a whole file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _atomic(content: Any, path: Path) -> None:
    torch.save(content, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)
