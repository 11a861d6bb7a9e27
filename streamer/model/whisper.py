"""The model: a frozen Whisper with taps and a tagging head, for batches, in the fastest type the machine has.

One thread owns a `Model` (in the live program the worker); nothing in it waits or reads a clock. Weights are those of
openai-whisper's own module, which the decoder uses as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from whisper.model import ModelDimensions, TextDecoder, Whisper
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, Tokenizer, get_tokenizer

from streamer.errors import UsageError
from streamer.events import FRAME_SAMPLES, SAMPLE_RATE
from streamer.model.encoder import TAP_POOL, Encoder, pool_taps, pool_taps_until
from streamer.model.graphs import BATCH_BUCKETS, Graphs, Recorder, batch_bucket, recorder_for
from streamer.model.head import TaggingHead
from streamer.model.memory import pinned, send
from streamer.model.outline import HeadOutline, ModelOutline
from streamer.model.tensor_files import cast_weights

# Mel frames of recorded passes, 2 to 30 s. Their halves, the encoder positions, are multiples of 8 but for the 1500 of
# 30 s: else attention's kernels on a GPU would pad the masks anew in each layer.
PASS_FRAMES = (208, 400, 608, 800, 1008, 1200, 1600, 2000, 2400, 3000)
RECORDED_PASSES = 64  # kinds of encoder passes that are kept: all lengths for each number of rows (50), and some
STOCK_MARGIN_FRAMES = 1024  # zeros behind a window of stock weights: with less the decoder does not find the end
MIN_FRAMES = 2 * TAP_POOL  # mel frames: one tap step
STEP_SAMPLES = TAP_POOL * FRAME_SAMPLES  # one tap step: 0.4 s
STEPS_PER_SECOND = SAMPLE_RATE / STEP_SAMPLES  # 2.5


class MelError(UsageError, ValueError):
    """A mel spectrogram that the encoder cannot take."""


@dataclass(frozen=True, slots=True)
class EncodedWindows:
    """One encoder pass over a batch of windows.

    `features`: [B, frames/2, d], for the decoder. `taps`: per window [layers, steps, d], the last step ending where the
    window's real audio ends (to 20 ms), or None where none were due or there was less than one step of audio.
    """

    features: Tensor
    taps: tuple[Tensor | None, ...]


class Model:
    """A Whisper backbone and, perhaps, a tagging head. Made by `streamer.load_model`.

    `encoder_passes` counts the items that went through the encoder. `variable_context`: the checkpoint was trained on
    windows of `min_context_s` to 30 s; one without was trained on windows padded to 30 s. `previous_text`: it was
    trained with earlier text before the transcript. `context_s`: how much audio a live window holds best.
    `margin_frames`: mel frames of zeros that a window needs behind its audio where it is not padded to 30 s.
    """

    def __init__(
        self,
        module: Whisper,
        *,
        name: str = "whisper",
        head: TaggingHead | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        variable_context: bool = False,
        min_context_s: float = 30.0,
        previous_text: bool | None = None,
        context_s: float = 10.0,
        margin_frames: int = STOCK_MARGIN_FRAMES,
        recorder: Callable[[torch.device], Recorder | None] = recorder_for,
    ) -> None:
        """Takes `module` over: its weights move to `device` and `dtype` and are frozen (LayerNorms stay float32).

        `dtype` int8: float32, but the encoder's large products are of 8-bit integers (`streamer.model.linear`): the
        decoder's are small, and the probabilities that they lead to are what words are judged by.

        `recorder` makes what records the encoder's passes and the decoder's steps, or None.
        """
        self.module: Whisper = module.eval()
        self.name, self.variable_context, self.min_context_s = name, variable_context, min_context_s
        self.previous_text = not variable_context if previous_text is None else previous_text
        self.context_s = context_s
        self.margin_frames = 0 if variable_context else margin_frames
        self.dims: ModelDimensions = module.dims
        self.eight_bits = dtype == torch.int8
        self.device, self.dtype = torch.device(device), torch.float32 if self.eight_bits else dtype
        cast_weights(module, self.dtype, self.device)
        self._encoder = Encoder(module.encoder, eight_bits=self.eight_bits)
        if head is not None:
            head.check_fits(self.dims.n_audio_layer, self.dims.n_audio_state, name)
            head.module.place(self.dtype, self.device)
        self.head = head
        self.encoder_passes = 0
        self.recorder = recorder(self.device)
        self._graphs = Graphs(self.recorder, self.device, RECORDED_PASSES)

    @property
    def decoder(self) -> TextDecoder:
        """openai-whisper's text decoder, on `device` and in `dtype` (LayerNorms in float32)."""
        return self.module.decoder

    @property
    def precision(self) -> str:
        """In which precision most is computed: float32, bfloat16, float16 or int8."""
        return "int8" if self.eight_bits else str(self.dtype).removeprefix("torch.")

    def outline(self) -> ModelOutline:
        """All of it but the weights, for those who only send windows to it."""
        return ModelOutline(
            name=self.name,
            dims=self.dims,
            variable_context=self.variable_context,
            min_context_s=self.min_context_s,
            previous_text=self.previous_text,
            context_s=self.context_s,
            margin_frames=self.margin_frames,
            precision=self.precision,
            dtype=self.dtype,
            device=self.device,
            head=HeadOutline(self.head.name, self.head.description) if self.head else None,
        )

    @property
    def is_multilingual(self) -> bool:
        """Whether the checkpoint knows other languages than English."""
        return bool(self.module.is_multilingual)

    @property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """(decoder layer, head) of the cross-attention heads that follow the audio word by word."""
        return tuple((int(layer), int(head)) for layer, head in self.module.alignment_heads.indices().T.tolist())

    def tokenizer(
        self, language: str | None = None, task: Literal["transcribe", "translate"] = "transcribe"
    ) -> Tokenizer:
        """openai-whisper's tokenizer for this checkpoint; `language` and `task` matter to multilingual ones only."""
        return get_tokenizer(
            self.is_multilingual, num_languages=self.module.num_languages, language=language, task=task
        )

    @torch.inference_mode()
    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """One encoder pass over a batch, without padding.

        mel: [B, n_mels, frames], any even number of frames from 40 to 3000, in the model's dtype or float32.
        Returns features [B, frames/2, d] (after ln_post) and taps [B, layers, frames/40, d]: each block's output,
        average-pooled by 20, the incomplete last step dropped. Raises MelError for other shapes.
        """
        steps = self._checked(mel).shape[2] // MIN_FRAMES
        taps = []
        for x in self._encoder.blocks(self._received(mel)):
            taps.append(pool_taps(x, 0, steps))
        found = self._encoder.features(x), torch.stack(taps, dim=1)
        self.encoder_passes += len(mel)  # only now: memory may run out before
        return found

    @torch.inference_mode()
    def encode_windows(
        self,
        mel: Tensor,
        *,
        real_frames: Sequence[int] | None = None,
        tag_spans_s: Sequence[float] = (),
        window_frames: Sequence[int] | None = None,
    ) -> EncodedWindows:
        """One encoder pass over a batch of windows whose taps are wanted up to the end of their real audio.

        mel: as for `encode`. `real_frames`: per window, how many mel frames hold audio; what follows is padding (None:
        all). `tag_spans_s`: per window, the longest span that will be judged, 0 for none due (empty: none at all).
        `window_frames`: per window, where it ends (an even number; None: all are as long as the mel). Behind its end
        its mel is zero, its features mean nothing, and the others are as if it were alone and had that length.
        """
        batch, frames = self._checked(mel).shape[0], mel.shape[2]
        real = [frames] * batch if real_frames is None else [min(count, frames) for count in real_frames]
        spans = tag_spans_s or [0.0] * batch
        if not len(real) == len(spans) == batch:
            raise MelError(f"{batch} windows need as many real_frames and tag_spans_s; got {len(real)}, {len(spans)}")
        if window_frames is not None and (
            len(window_frames) != batch or any(count % 2 or not 0 < count <= frames for count in window_frames)
        ):
            raise MelError(f"window_frames {list(window_frames)}: {batch} even numbers of 2 to {frames} are needed")
        steps = [min(span_steps(span), count // MIN_FRAMES) for span, count in zip(spans, real, strict=True)]
        if self.records and batch <= BATCH_BUCKETS[-1]:
            return self._recorded_pass(mel, real, steps, window_frames)
        starts = [count // 2 - TAP_POOL * due for count, due in zip(real, steps, strict=True)]
        taps: list[list[Tensor]] = [[] for _ in range(batch)]
        lengths = None
        if window_frames is not None and min(window_frames) < frames:
            lengths = send([count // 2 for count in window_frames], self.device)
        for x in self._encoder.blocks(self._received(mel), lengths):
            self.collect_taps(x, starts, steps, taps)
        found = EncodedWindows(self._encoder.features(x), tuple(torch.stack(due) if due else None for due in taps))
        self.encoder_passes += batch
        return found

    @torch.inference_mode()
    def encode_half_steps(
        self, mel: Tensor, places: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """One encoder pass over windows of a recording, whose taps are wanted all along: by half steps of 0.2 s.

        mel: as for `encode`. `places`: per window, the encoder position at which its first half step begins, and how
        many are due (0: none); positions outside of the window count as its nearest. Returns features [B, frames/2, d]
        and per window [layers, half steps, d], each the mean of 10 positions: two neighbours are one tap step.
        """
        frames = self._checked(mel).shape[2]
        half = TAP_POOL // 2
        taps: list[list[Tensor]] = [[] for _ in places]
        due = [torch.arange(first, first + half * count).clamp(0, frames // 2 - 1) for first, count in places]
        due = [positions.to(self.device) for positions in due]
        for x in self._encoder.blocks(self._received(mel)):
            for item, positions in enumerate(due):
                if len(positions):
                    taps[item].append(x[item, positions].view(-1, half, x.shape[2]).mean(1))
        features = self._encoder.features(x)
        self.encoder_passes += len(mel)
        return features, tuple(torch.stack(found) if found else None for found in taps)

    @property
    def records(self) -> bool:
        """Whether passes are recorded, and so filled up to few kinds of sizes."""
        return self._graphs.records

    def pass_frames(self, frames: int) -> int:
        """The mel frames with which a window of `frames` passes the encoder; windows that have this in common share it.

        Its own number where nothing is recorded. Recorded passes have the lengths of `PASS_FRAMES` only, with zeros
        behind the window: ten, where `fit` rounds to 75, so that with the buckets of rows there are 50 kinds, and all
        can be recorded before the first window comes. What comes out is that of the window's own length (see
        `Encoder.blocks`); on the average over all lengths from 2 to 30 s a tenth of the frames are zeros.
        """
        if not self.records:
            return frames
        longest: int = 2 * self.dims.n_audio_ctx
        return min(next((length for length in PASS_FRAMES if length >= frames), longest), longest)

    def release(self, *, record: bool = True) -> None:
        """Give back the memory of what is recorded; it is recorded anew when it is used, unless `record` is false."""
        self._graphs.drop()
        if not record:
            self._graphs.stop()

    def _recorded_pass(
        self, mel: Tensor, real: Sequence[int], steps: Sequence[int], window_frames: Sequence[int] | None
    ) -> EncodedWindows:
        """As `encode_windows`, filled up with silent windows. The results are clones: the next replay overwrites them.

        Taps are pooled for all of a window before its end, and those that are due are taken from them. Windows with
        `window_frames` are masked whatever their length, so that one recording serves all of them.
        """
        batch, _, frames = mel.shape
        idle = batch_bucket(batch) - batch
        whole = window_frames is None

        def work(mel: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
            ends, lengths = places.unbind()
            taps = []
            for x in self._encoder.blocks(mel.to(self.dtype), None if whole else lengths):
                taps.append(pool_taps_until(x, ends, frames // MIN_FRAMES))
            return self._encoder.features(x), torch.stack(taps, dim=1)

        ends = [count // 2 for count in real] + [0] * idle
        lengths = [count // 2 for count in window_frames or [frames] * batch] + [frames // 2] * idle
        inputs = [functional.pad(mel, (0, 0, 0, 0, 0, idle)), torch.tensor([ends, lengths])]
        key = ("encoder pass", batch + idle, frames, mel.dtype, whole)
        features, taps = self._graphs.run(key, inputs, work)
        due = zip(taps[:batch].clone(), steps, strict=True)
        found = EncodedWindows(
            features[:batch].clone(), tuple(item[:, -count:] if count else None for item, count in due)
        )
        self.encoder_passes += batch
        return found

    def collect_taps(
        self, x: Tensor, starts: Sequence[int], steps: Sequence[int], taps: Sequence[list[Tensor]]
    ) -> None:
        """Append to each window's `taps` what is due of one block's output x [B, positions, d]."""
        for item, (start, due) in enumerate(zip(starts, steps, strict=True)):
            if due > 0:
                taps[item].append(pool_taps(x[item], start, due))

    @torch.inference_mode()
    def tag(self, taps: Tensor) -> Tensor:
        """The head's logits, float32 [B, 527], for taps [B, layers, steps, d]: one judgement over all their steps."""
        head = self._needed_head()
        layers, width = self.dims.n_audio_layer, self.dims.n_audio_state
        if taps.ndim != 4 or taps.shape[1] != layers or taps.shape[3] != width or 0 in taps.shape:
            raise MelError(f"taps have shape {list(taps.shape)}: [batch, {layers}, steps, {width}] is needed")
        logits: Tensor = head.module(taps.to(self.device, self.dtype))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated scores in 0..1, float32 [B, 527]: the head's own mapping per class, else the logistic function."""
        return self._needed_head().probabilities(logits)

    def _needed_head(self) -> TaggingHead:
        if self.head is None:
            raise UsageError(f"the model {self.name} has no tagging head: load it with head=PATH (--head)")
        return self.head

    def _checked(self, mel: Tensor) -> Tensor:
        bands, longest = self.dims.n_mels, 2 * self.dims.n_audio_ctx
        if mel.ndim != 3 or mel.shape[1] != bands:
            raise MelError(f"mel has shape {list(mel.shape)}: [batch, {bands}, frames] is needed")
        batch, _, frames = mel.shape
        if batch < 1 or frames % 2 or not MIN_FRAMES <= frames <= longest:
            raise MelError(
                f"mel has {batch} items of {frames} frames: at least one item of an even number of frames "
                f"from {MIN_FRAMES} to {longest} is needed"
            )
        if mel.dtype not in (self.dtype, torch.float32):
            raise MelError(f"mel is {mel.dtype}: {self.dtype} or torch.float32 is needed")
        return mel

    def _received(self, mel: Tensor) -> Tensor:
        return pinned(mel, self.device).to(self.device, non_blocking=True).to(self.dtype)


def span_steps(span_s: float) -> int:
    """How many whole tap steps of 0.4 s fit into a span."""
    return int(span_s * STEPS_PER_SECOND + 1e-6)


def language_codes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Whisper's codes of lower-case names or codes, each once. `where`: the option, in the line of the UsageError."""
    codes = {name: TO_LANGUAGE_CODE.get(name, name) for name in names}
    for name, code in codes.items():
        if code not in LANGUAGES:
            raise UsageError(f"{where}: {name!r} is no language that Whisper knows; give en, de, French, …")
    return tuple(dict.fromkeys(codes.values()))


def known_languages(model: Model | ModelOutline) -> dict[str, str]:
    """The languages that the model can be told, code -> English name in lower case."""
    codes = model.tokenizer("en").all_language_codes if model.is_multilingual else ("en",)
    return {code: LANGUAGES[code] for code in codes}


def check_languages(codes: Sequence[str], model: Model | ModelOutline, where: str) -> None:
    """UsageError where the model cannot be told these: an English one takes what has `en` in it, and `auto` ()."""
    name = f"the model {model.name}"
    if not model.is_multilingual:
        if codes and "en" not in codes:
            raise UsageError(f"{where}: {name} knows English only; take a multilingual one such as base")
        return
    known = model.tokenizer("en").all_language_codes
    for code in codes:
        if code not in known:
            raise UsageError(f"{where}: {name} does not know {code!r}; large-v3 and turbo know most")
