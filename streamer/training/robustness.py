"""`streamer eval robustness`: word errors against the noise's level and kind, and what the model knows of that noise.

The finding that Whisper-AT began with (Gong et al., arXiv 2307.03183, figures 1 and 2): Whisper is robust to a noise
because it encodes it. Utterances are mixed with noises of each category at SNRs from 20 to -10 dB and written down; how
well a category can be told from the encoder's last layer is the F1 of a linear probe on the noises alone. The paper's
two plots: WER over SNR, and each category's rise in WER against its F1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.audio.files import read_audio
from streamer.audio.mel import MelFrames
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.events.plans import DecodeTask, StepRequest
from streamer.measure.report import Curve, Report, Table, draw_curves, evaluation_library, publish
from streamer.measure.word_errors import WordErrors, plain_text, total, word_errors
from streamer.model.checkpoint import load_model
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.training.features import TapRecipe, cached_taps
from streamer.training.manifests import Clip, ManifestSettings, of_split, read_manifest
from streamer.training.probe import partitions, probe
from streamer.training.processes import progress_bar

SNRS_DB = (20.0, 15.0, 10.0, 5.0, 0.0, -5.0, -10.0)
PAUSE_S = 0.25  # between recordings that are strung together to one utterance
SPARE_S = 0.5  # of silence before and after

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance without noise and its words."""

    audio: Audio
    text: str


@dataclass(frozen=True, slots=True)
class Category:
    """One category of noise: word errors at each SNR, and F1 of the probe (None: not judged)."""

    name: str
    errors: dict[float, WordErrors]
    f1: float | None

    def rise(self) -> float:
        """How much the WER rises from the highest to the lowest SNR."""
        return (self.errors[min(self.errors)].rate or 0.0) - (self.errors[max(self.errors)].rate or 0.0)


def main(
    model: str,
    manifests: Sequence[ManifestSettings],
    out: Path,
    *,
    split: str = "test",
    snrs_db: Sequence[float] = SNRS_DB,
    utterances: int = 4,
    words: int = 5,
    seed: int = 0,
    cache: Path = Path("build/taps"),
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
) -> Report:
    """Run the study; robustness.json, robustness.md and robustness.png in `out`.

    Speech are the clips of `split` with a `text`, `words` of one speaker strung together; noises its clips with a
    `category` and no text; the probe trains on the other splits. Raises InputError where one of these is missing.
    """
    clips = [clip for each in manifests for clip in read_manifest(each).clips]
    loaded = load_model(model, head=None, device=device, dtype=dtype)
    chosen = of_split(clips, split)
    spoken = string_together([clip for clip in chosen if clip.text], utterances, words, seed)
    noises: dict[str, list[Clip]] = {}
    for clip in chosen:
        if clip.category and not clip.text:
            noises.setdefault(clip.category, []).append(clip)
    if not noises:
        raise InputError(f"the split {split} has no noise: clips with a `category` and no `text` are needed")
    f1 = _probe_f1(loaded, [clip for clip in clips if clip.category], cache, progress)
    found = []
    with progress_bar("noises", len(noises), shown=progress) as advance:
        for name, group in sorted(noises.items()):
            errors = in_noise(loaded, spoken, [read_audio(str(clip.path)) for clip in group], snrs_db, seed)
            found.append(Category(name, errors, f1.get(name)))
            advance(1)
    clean = total(_errors(text, said.text) for text, said in zip(_write(loaded, spoken), spoken, strict=True))
    report = _report(loaded.name, found, clean)
    publish(report, out)
    return report


def string_together(clips: Sequence[Clip], count: int, words: int, seed: int) -> list[Spoken]:
    """`count` utterances, each of `words` random clips of one speaker with pauses; speakers take turns.

    Raises InputError when no clip has a text.
    """
    by_speaker: dict[str, list[Clip]] = {}
    for clip in clips:
        by_speaker.setdefault(clip.speaker, []).append(clip)
    if not by_speaker:
        raise InputError("no clip has a `text`: speech is needed to be disturbed")
    random = np.random.default_rng(seed)
    speakers = sorted(by_speaker)
    found = []
    for number in range(count):
        own = by_speaker[speakers[number % len(speakers)]]
        picked = [own[int(index)] for index in random.choice(len(own), min(words, len(own)), replace=False)]
        parts = [np.zeros(round(SPARE_S * SAMPLE_RATE), np.float32)]
        for clip in picked:
            parts += [read_audio(str(clip.path)), np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)]
        audio = np.concatenate([*parts, parts[0]])[: 30 * SAMPLE_RATE]
        found.append(Spoken(audio, " ".join(clip.text for clip in picked)))
    return found


def mix(speech: Audio, noise: Audio, snr_db: float, offset: int = 0) -> Audio:
    """Speech with noise (repeated, from `offset` on) at an SNR over its whole length; scaled down where it would clip.

    Levels are those of the whole recordings, pauses included.
    """
    repeated = np.resize(np.roll(noise, -offset), len(speech))
    power = float(np.mean(np.square(repeated))) or 1.0
    wanted = float(np.mean(np.square(speech))) / 10 ** (snr_db / 10)
    mixed = speech + repeated * np.float32(np.sqrt(wanted / power))
    return np.asarray(mixed / max(1.0, float(np.abs(mixed).max())), np.float32)


def in_noise(
    model: Model, spoken: Sequence[Spoken], noises: Sequence[Audio], snrs_db: Sequence[float], seed: int
) -> dict[float, WordErrors]:
    """Word errors at each SNR, every utterance once with each noise; mixtures differ between SNRs in level only."""
    errors = {}
    for snr in snrs_db:
        random = np.random.default_rng(seed)
        mixed = [
            Spoken(mix(said.audio, noise, snr, int(random.integers(len(noise)))), said.text)
            for said in spoken
            for noise in noises
        ]
        written = _write(model, mixed)
        errors[snr] = total(_errors(text, said.text) for text, said in zip(written, mixed, strict=True))
    return errors


def _write(model: Model, spoken: Sequence[Spoken]) -> list[str]:
    """What the engine writes, each utterance as one window."""
    engine = Engine(model)
    texts = []
    for said in spoken:
        frames = MelFrames(model.dims.n_mels)
        frames.append(said.audio)
        task = DecodeTask(language=None if model.is_multilingual else "en")
        hypothesis = engine.step([(frames, StepRequest(0, len(said.audio), (), task))])[0].hypothesis
        texts.append(hypothesis.text if hypothesis else "")
    return texts


def _errors(written: str, truth: str) -> WordErrors:
    return word_errors(plain_text(truth), plain_text(written))


def _probe_f1(model: Model, clips: Sequence[Clip], cache: Path, progress: bool) -> dict[str, float]:
    """F1 of each category by a probe on the last layer, over the manifest's split."""
    taps = cached_taps(model, clips, cache, TapRecipe(), progress=progress)
    scores = probe(taps, partitions([window.clip for window in taps.windows], "split"))
    return scores[-2].f1  # the last layer; the mean of all stands behind it


def _report(model: str, found: Sequence[Category], clean: WordErrors) -> Report:
    snrs = sorted(found[0].errors, reverse=True)
    every = {snr: total(each.errors[snr] for each in found).rate for snr in snrs}
    rows = [("all", None, *every.values(), None)]
    rows += [(each.name, each.f1, *(each.errors[snr].rate for snr in snrs), each.rise()) for each in found]
    known = [(each.f1, each.rise(), each.name) for each in found if each.f1 is not None]
    related = _relation(known)
    said = (
        f"Spearman's rho {related['rho']:.2f} (p {related['p']:.2f}) over {related['n']} categories; the paper finds "
        "a negative relation: what is encoded disturbs less."
        if related["n"] > 2
        else "Too few categories for a relation of known noise and rise in WER."
    )
    columns = ("noise", "F1", *(f"{snr:g} dB" for snr in snrs), "rise")
    curves = [Curve(each.name, snrs, [each.errors[snr].rate or 0.0 for snr in snrs]) for each in found]
    scatter = Curve("noise", [x for x, _, _ in known], [y for _, y, _ in known], True, [name for _, _, name in known])

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        draw_curves(left, curves, title="WER over SNR", x="SNR, dB", y="WER")
        draw_curves(right, [scatter], title="known noise disturbs less?", x="F1 of the probe", y="rise in WER")

    return Report(
        name="robustness",
        title=f"{model} in noise: WER by SNR and category; {clean.rate or 0.0:.3f} of {clean.words} clean words",
        about=said,
        result={
            "model": model,
            "clean_wer": clean.rate,
            "wer": {f"{snr:g}": rate for snr, rate in every.items()},
            "categories": [dict(zip(columns, row, strict=True)) for row in rows[1:]],
            "relation": related,
        },
        tables=(Table("WER by SNR", columns, rows),),
        draw=draw,
    )


def _relation(known: Sequence[tuple[float, float, str]]) -> dict[str, Any]:
    if len(known) <= 2 or len({f1 for f1, _, _ in known}) < 2 or len({rise for _, rise, _ in known}) < 2:
        return {"rho": None, "p": None, "n": 0}
    found = evaluation_library("scipy.stats").spearmanr([f1 for f1, _, _ in known], [rise for _, rise, _ in known])
    return {"rho": float(found.statistic), "p": float(found.pvalue), "n": len(known)}
