"""Real weights on real speech: the same tokens whatever the format."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import whisper
from backbones import save_whisper
from whisper.model import Whisper
from writers import write_ctranslate2, write_transformers

from streamer.model import catalog
from streamer.model.formats import place_of, read_checkpoint

SAID = "in 1813."


@pytest.fixture(scope="module")
def tiny() -> Whisper:
    path = catalog.on_disk("tiny.en")
    if path is None:
        pytest.skip("needs tiny.en on disk: `streamer pull tiny.en`")
    return read_checkpoint(place_of(path).weights).module


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Half a second of work: threads that wait for one another would make minutes of it beside busy programs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mel(shared_dir: Path) -> torch.Tensor:
    with av.open(shared_dir / "real" / "en_short" / "LJ002-0020.flac") as file:
        resampler = av.AudioResampler("flt", "mono", 16_000)
        frames = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return whisper.log_mel_spectrogram(whisper.pad_or_trim(np.concatenate(frames)))


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["openai", "ct2", "ct2-int8", "transformers"])
def test_every_format_reads_the_same_words(kind: str, tiny: Whisper, mel: torch.Tensor, tmp_path: Path) -> None:
    path = {
        "openai": lambda: save_whisper(tmp_path / "tiny.en.pt", tiny),
        "ct2": lambda: write_ctranslate2(tmp_path, tiny),
        "ct2-int8": lambda: write_ctranslate2(tmp_path, tiny, torch.int8),
        "transformers": lambda: write_transformers(tmp_path, tiny),
    }[kind]()
    found = read_checkpoint(place_of(path).weights).module.float().eval()
    result = whisper.decode(found, mel, whisper.DecodingOptions(fp16=False, without_timestamps=True, language="en"))
    assert result.text == SAID
