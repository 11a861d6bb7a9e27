"""Greedy decoding of a batch of windows, with drafts that are verified in one step; or drawn, at a temperature.

Runs on the worker's thread. On one 30 s window with the same float32 weights the tokens equal those of openai-whisper's
`decode` at temperature 0. A draft (what an earlier pass wrote) is read together with the prefix; of it stays what
greedy decoding would have written, up to the first difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor
from whisper.tokenizer import Tokenizer

from streamer.errors import EngineError
from streamer.events.plans import DecodeTask, Task
from streamer.model.decoding.decoder import Decoder, spoken_languages
from streamer.model.decoding.filters import LogitFilters, gumbel_noise, log_mass
from streamer.model.decoding.kv_cache import TEXT_ENDS, KVCache
from streamer.model.graphs import buckets_up_to
from streamer.model.whisper import Model


@dataclass(frozen=True, slots=True)
class AudioWindow:
    """One window's audio features [frames, width], of which the first `real_frames` lie over audio.

    `attended_frames`: how many of them the decoder may attend (None: all).
    """

    features: Tensor
    real_frames: int
    attended_frames: int | None = None

    @property
    def frames(self) -> int:
        """The frames that the decoder may attend."""
        return len(self.features) if self.attended_frames is None else self.attended_frames


@dataclass(frozen=True, slots=True)
class Decoded:
    """What greedy decoding wrote behind the forced prefix of one window.

    - `forced`: start of transcript, language, task, time marks or not, and the prefix; without the prompt.
    - `tokens`: what was written, without end-of-text.  `logprobs`: of each among what the filters allow.
    - `probabilities`: of each among all text tokens, as openai-whisper gives them for words (0 for a time mark).
    - `sum_logprob`: of the tokens and of the end of text.
    - `attention`: float32 [alignment heads, rows, real frames]; row i is of the i-th token of `forced` + `tokens` as
      input, so it belongs to token i + 1. There is one for each token but, when decoding was cut off, the last.
    - `steps`: passes through the decoder.  `accepted`: tokens of the draft that stood.
    - `spoken_language`: the language that is spoken, with its probability, where the task asked although it gave one.
    """

    forced: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    probabilities: tuple[float, ...]
    sum_logprob: float
    no_speech_probability: float
    language: str
    language_probability: float
    attention: Tensor
    complete: bool
    steps: int
    accepted: int
    spoken_language: tuple[str, float] | None = None

    @property
    def mean_logprob(self) -> float:
        """As openai-whisper's `avg_logprob`: over the tokens and the end of text."""
        return self.sum_logprob / (len(self.tokens) + 1)


@dataclass(slots=True)
class _Row:
    """One window while it is being decoded."""

    index: int
    task: DecodeTask
    window: AudioWindow
    tokenizer: Tokenizer
    language_probability: float
    prompt: list[int]
    start: list[int]  # start of transcript, language, task, time marks or not
    prefix: list[int]
    budget: int
    draft: list[int]
    feed: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    sum_logprob: float = 0.0
    no_speech_probability: float = 0.0
    complete: bool = False
    steps: int = 0
    accepted: int = 0
    spoken_language: tuple[str, float] | None = None
    chance: torch.Generator | None = None  # what tokens are drawn with (None: the most likely are taken)

    @property
    def judged(self) -> int:
        """How many of the last tokens in `feed` have a successor to be judged."""
        return 1 + len(self.draft)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The token to be written at one position, its log-probability, and its probability among the text tokens."""

    token: int
    logprob: float
    probability: float


class GreedySearch:
    """Decodes windows with one model's decoder. Owns its KV cache: one thread at a time.

    `windows`: decoded so far.  `passes`: decoder steps for them.  `written`: tokens.  `accepted`: those of them that a
    draft had right.
    """

    def __init__(self, model: Model, *, near: bool = False):
        """`near`: in float32 too, logits that do not matter may be near the truth only (`Vocabulary`)."""
        self.decoder = Decoder(
            model.decoder,
            model.alignment_heads,
            model.dtype,
            near=near or model.eight_bits,
            eight_bits=model.eight_bits,
        )
        self.windows = self.passes = self.written = self.accepted = 0
        self._model = model
        self._cache: KVCache = self.decoder.new_cache(model.recorder)
        self._plain = model.tokenizer()
        self._first_mark = self._plain.timestamp_begin
        self._filters = LogitFilters(self._plain, model.device, timestamp_step_s=30 / model.dims.n_audio_ctx)

    @torch.inference_mode()
    def decode(self, windows: Sequence[AudioWindow], tasks: Sequence[DecodeTask]) -> list[Decoded]:
        """Decode all windows together; the result of each is what it would be alone.

        Raises:
            EngineError: the model's output is not finite, or a task names an unknown language.
        """
        if not windows:
            return []
        done: list[Decoded | None] = [None] * len(windows)
        counts = (self.windows, self.passes, self.written, self.accepted)
        try:
            order = sorted(range(len(tasks)), key=lambda index: not self._asks(tasks[index]))  # who asks comes first
            opened = [windows[index] for index in order]
            self.decoder.open(self._cache, [one.features for one in opened], [one.frames for one in opened])
            active = self._rows(windows, tasks, order)
            while active:
                self._step(active)
                for slot in reversed(range(len(active))):
                    row = active[slot]
                    if row.complete or len(row.tokens) >= row.budget:
                        done[row.index] = self._finished(row, slot)
                        active[slot] = active[self._cache.release(slot)]
                        active.pop()
        except BaseException:
            self._cache.reset()
            self.windows, self.passes, self.written, self.accepted = counts
            raise
        return [item for item in done if item is not None]

    @torch.inference_mode()
    def record(self, frames: int, rows: int) -> None:
        """Record all steps of one token over `frames` encoder frames, for up to `rows` windows.

        The longest audio comes first: buffers that grow drop what is recorded.
        """
        positions = self.decoder.positions
        for slots in buckets_up_to(rows if self._cache.graphs.records else 0):
            silence = torch.zeros(frames, self.decoder.width, device=self.decoder.device)
            self.decoder.open(self._cache, [silence] * slots, [frames] * slots)
            for end in (*(end for end in TEXT_ENDS if end < positions), positions):
                self._cache.lengths = [end - 1] * slots
                self.decoder.step_recorded(self._cache, [self._plain.sot] * slots, [[]] * slots, self._judge)
        self._cache.reset()

    def release(self, *, record: bool = True) -> None:
        """As `Model.release`, with the memory of the KV cache."""
        self._cache.free()
        if not record:
            self._cache.graphs.stop()

    def _asks(self, task: DecodeTask) -> bool:
        """Whether the window is to say which language is spoken."""
        return self._model.is_multilingual and (task.language is None or task.detect)

    def _rows(self, windows: Sequence[AudioWindow], tasks: Sequence[DecodeTask], order: Sequence[int]) -> list[_Row]:
        """The rows in the order of their slots, those first that ask for the language."""
        asking = [tasks[index].languages for index in order if self._asks(tasks[index])]
        found = spoken_languages(self.decoder, self._cache, self._plain, asking)
        self._require_finite([probability for _, probability in found])
        rows = []
        for index, spoken in zip_longest(order, found):
            task = tasks[index]
            given = task.language if self._model.is_multilingual else "en"
            language, probability = (given, 1.0) if given else spoken
            rows.append(self._row(index, windows[index], task, language, probability))
            rows[-1].spoken_language = spoken if given else None
        return rows

    def _row(self, index: int, window: AudioWindow, task: DecodeTask, language: str, probability: float) -> _Row:
        tokenizer = self._named(language, task.task)
        start = tokenizer.sot_sequence if task.timestamps else tokenizer.sot_sequence_including_notimestamps
        context = self.decoder.positions
        prefix = list(task.prefix[-(context - len(start) - 1) :])
        room = context - len(start) - len(prefix) - 1
        recent = min(context // 2 - 1, room)
        prompt = [tokenizer.sot_prev, *task.prompt[-recent:]] if task.prompt and recent > 0 else []
        budget = min(task.max_new_tokens, context + 1 - len(prompt) - len(start) - len(prefix))
        draft = list(task.draft[: max(budget - 1, 0)]) if not task.temperature else []
        return _Row(
            index=index,
            task=task,
            window=window,
            tokenizer=tokenizer,
            language_probability=probability,
            prompt=prompt,
            start=list(start),
            prefix=prefix,
            budget=budget,
            draft=draft,
            feed=[*prompt, *start, *prefix, *draft],
            chance=torch.Generator().manual_seed(task.seed) if task.temperature else None,
        )

    def _named(self, language: str, task: Task) -> Tokenizer:
        try:
            return self._model.tokenizer(language, task)
        except ValueError as error:
            raise EngineError(f"language {language!r}: Whisper does not know it; give a code such as 'en'") from error

    def _step(self, active: list[_Row]) -> None:
        """Read each row's `feed` and write what greedy decoding puts behind it.

        What was found is read from the device once; twice where the filters left a logit in front that is not true.
        """
        first = not active[0].steps
        written, marked = _written(active)
        silence = noise = None
        if not first and self._cache.graphs.records and not any(row.chance for row in active):
            rules = self._filters.rules(written, marked)
            results = self.decoder.step_recorded(self._cache, [row.feed[0] for row in active], rules, self._judge)
            states, logits, table = (result[: len(active)] for result in results)
        else:
            wanted = [(slot, len(row.prompt)) for slot, row in enumerate(active)] if first else []
            starts = len(wanted)  # behind the start of each transcript stands whether anybody speaks
            for slot, row in enumerate(active):
                wanted += [(slot, place) for place in range(len(row.feed) - row.judged, len(row.feed))]
            states = self.decoder.step(self._cache, [row.feed for row in active], wanted)
            logits = self.decoder.logits(states)  # one reading of the vocabulary for all that is asked of it
            mended = self.decoder.mend(states, logits, self._first_mark if any(marked) else None)
            if first:
                no_speech = torch.full((starts, 1), self._plain.no_speech, device=states.device)
                scores = self.decoder.exact_logits(states[:starts], no_speech)[:, 0]
                silence = (scores - log_mass(logits[:starts])).exp().clamp(max=1.0)
            states, logits = states[starts:], logits[starts:]
            mended = mended[starts:] if mended is not None else None
            text_mass = log_mass(logits[:, : self._plain.eot])
            self._filters.apply(logits, written, marked)
            draws = [(row.chance, row.task.temperature) for row in active for _ in range(row.judged)]
            noise = gumbel_noise(draws, logits.shape[1])
            noise = None if noise is None else noise.to(logits.device)
            table = self._table(logits, text_mass, mended, noise)
        self.passes += 1

        joined = table if silence is None else torch.cat([table, silence[:, None].expand(-1, table.shape[1])])
        read = joined.tolist()
        judged, silences = read[: len(states)], read[len(states) :]
        for row, values in zip(active, silences, strict=False):
            row.no_speech_probability = values[0]
        if not all(is_true for *_, is_true in judged):
            mended = self.decoder.mend(states, logits)
            judged = self._table(logits, table[:, 3], mended, noise).tolist()
        self._require_finite([value for values in judged for value in values])

        verdicts = iter(judged)
        for slot, row in enumerate(active):
            self._accept(row, [self._verdict(*next(verdicts)) for _ in range(row.judged)])
            read_ahead = len(row.prompt) + len(row.start) + len(row.prefix) + len(row.tokens)
            self._cache.lengths[slot] = min(self._cache.lengths[slot], read_ahead - (0 if row.complete else 1))

    def _judge(self, states: Tensor, rules: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a recorded step the states, the logits as the filters left them and their table: nothing but tensors."""
        logits = self.decoder.logits(states)
        mended = self.decoder.mend(states, logits, self._first_mark if rules.shape[1] else None)
        text_mass = log_mass(logits[:, : self._plain.eot])
        self._filters.apply_rules(logits, rules if rules.shape[1] else None)
        return states, logits, self._table(logits, text_mass, mended)

    def _table(self, logits: Tensor, text_mass: Tensor, mended: Tensor | None, noise: Tensor | None = None) -> Tensor:
        """What a step found, [n, 5], for one reading: of each row of logits the token to be written, its logit, the
        logarithms of the masses of what the filters allow and of all text tokens, whether the token's logit is true.

        `mended`: of each row the tokens whose logits are true (None: all). `noise`: from `gumbel_noise`.
        """
        best = (logits if noise is None else logits + noise).max(dim=-1)
        values = best.values if noise is None else logits.gather(1, best.indices[:, None])[:, 0]
        columns = [best.indices.float(), values, log_mass(logits), text_mass]
        if mended is None:
            columns.append(torch.ones_like(text_mass))
        else:
            columns.append((mended == best.indices[:, None]).any(dim=1).float())
        return torch.stack(columns, dim=1)

    def _verdict(self, token: float, logit: float, mass: float, text_mass: float, is_true: float) -> _Verdict:
        """A row of the table."""
        is_text = token < self._plain.eot
        probability = math.exp(min(logit - text_mass, 0.0)) if is_text else 0.0
        return _Verdict(int(token), min(logit - mass, 0.0), probability)

    def _accept(self, row: _Row, verdicts: list[_Verdict]) -> None:
        """Take the verdicts up to the first that is not what the draft said; `feed` becomes what is to be read next."""
        row.steps += 1
        for count, verdict in enumerate(verdicts):
            if len(row.tokens) >= row.budget:
                break
            row.sum_logprob += verdict.logprob
            if verdict.token == self._plain.eot:
                row.complete = True
                break
            row.tokens.append(verdict.token)
            row.logprobs.append(verdict.logprob)
            row.probabilities.append(verdict.probability)
            if count >= len(row.draft) or verdict.token != row.draft[count]:
                break
            row.accepted += 1
        row.draft = []
        row.feed = row.tokens[-1:]

    def _finished(self, row: _Row, slot: int) -> Decoded:
        attention = self.decoder.attention(self._cache, slot, len(row.prompt), row.window.real_frames)
        self.windows += 1
        self.written += len(row.tokens)
        self.accepted += row.accepted
        return Decoded(
            forced=(*row.start, *row.prefix),
            tokens=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            probabilities=tuple(row.probabilities),
            sum_logprob=row.sum_logprob,
            no_speech_probability=row.no_speech_probability,
            language=row.tokenizer.language or "en",
            language_probability=row.language_probability,
            attention=attention,
            complete=row.complete,
            steps=row.steps,
            accepted=row.accepted,
            spoken_language=row.spoken_language,
        )

    def _require_finite(self, values: Sequence[float]) -> None:
        if not all(map(math.isfinite, values)):
            raise EngineError(
                "the decoder's output is not finite: the checkpoint is damaged or --dtype is too narrow for it"
            )


def _written(active: Sequence[_Row]) -> tuple[list[list[int]], list[bool]]:
    """What stands behind the start of each transcript at every place that is judged, and whether it has time marks."""
    written: list[list[int]] = []
    for row in active:
        said = [*row.prefix, *row.tokens]
        written += [[*said, *row.draft[:count]] for count in range(row.judged)]
    return written, [row.task.timestamps for row in active for _ in range(row.judged)]
