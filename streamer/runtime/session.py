"""One session: plans and worker results in, numbered events out (pure; no threads, clocks, tensors).

    for plan in listener.step(samples):
        request = session.begin(plan)                      # None: nothing for the model to do
        result = engine.step([(mel, request)])[0] if request else None
        events += session.complete(plan, result)

Every event's `audio_t` is the end of the audio that was known when it was decided: the end of the plan's audio.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.audio.block import dbfs
from streamer.events import (
    SAMPLE_RATE,
    AlertSource,
    Event,
    Gap,
    Stamp,
    State,
    Status,
    Tag,
    Tags,
    seconds,
)
from streamer.events.plans import (
    AudioLost,
    Beat,
    Hop,
    Noticed,
    Plan,
    SegmentClosed,
    SegmentOpened,
    SpanScores,
    SpeechOver,
    StateChanged,
    StepRequest,
    StepResult,
)
from streamer.monitor.audibility import Audibility
from streamer.monitor.audiogram import audiogram_of
from streamer.policy.mask import Mask
from streamer.policy.prompt import TextModel
from streamer.policy.text_session import TextChange, TextSession
from streamer.runtime.signal_trouble import Condition, SignalTrouble, Stretch
from streamer.runtime.text_events import alert_text, transcript
from streamer.runtime.told import Told
from streamer.settings.config import Settings
from streamer.settings.rules import AlertRule
from streamer.settings.words import masked_words
from streamer.sound.alerts import HEARD_LIMIT, AlertChange, AlertEngine
from streamer.sound.events import TRAINED_SPANS_S, SoundChange, SoundEvents
from streamer.sound.labels import LABEL_COUNT, group, labels
from streamer.sound.own_sounds import OwnSoundEvents
from streamer.sound.patterns.cadence import CadenceDetector
from streamer.sound.patterns.state import SIRENS, CadenceState
from streamer.sound.scene import SceneMachine
from streamer.sound.triggers import AlertInput, AlertText

TAGGED_SAMPLES = 10 * SAMPLE_RATE  # tags are of no longer a span (PROTOCOL)
SPEECH_SPAN_S = 6.0  # the Speech score that guards text comes from spans up to this long

# Who has a state of its own; people are told the gravest of them.
Subject = Literal["source", "signal", "listener", "pace", "model", "output", "deliveries", "headphones"]
_GRAVITY: Final[Mapping[State, int]] = {"stopped": 0, "listening": 0, "starting": 1, "degraded": 2, "no_audio": 3}


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """What a session must know of the tagging head: calibrated thresholds [527] (None: none), its training spans, the
    classes that it was taught (None: all), and the fields of alert rules that belong to it, by the rule's id.
    """

    thresholds: NDArray[np.float32] | None = None
    trained_spans_s: tuple[float, ...] = TRAINED_SPANS_S
    trained_classes: frozenset[int] | None = None
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Session:
    """One stream's text, sounds and alerts, and the numbers of its events.

    `head` None: captions only. `local_time`: seconds after local midnight, for quiet hours; None: there are none.
    `begun`: the number of its events before this (`starting`, while the model was loaded). `source`: see `Alert`.
    """

    def __init__(
        self,
        settings: Settings,
        text: TextModel,
        head: HeadFacts | None,
        *,
        name: str = "s1",
        local_time: Callable[[], float] | None = None,
        begun: int = 0,
        source: AlertSource = "live",
    ) -> None:
        self._local_time = local_time
        self._settings = settings
        facts = head or HeadFacts()
        self.text = TextSession(settings, text)
        ids = count(1)
        self._sounds = SoundEvents(settings.sounds, facts.thresholds, facts.trained_spans_s, ids) if head else None
        self._own = OwnSoundEvents(ids)
        given = settings.monitor
        self._scenes = SceneMachine(given.input_full_scale_db_spl) if given.tells_scenes else None
        self._judges = head is not None or any(rule.own for rule in settings.alerts.rules)
        rules = settings.alerts.fitted(facts.rules)
        audiogram = audiogram_of(given) if given.enabled else None
        soundless = frozenset(rule.id for rule in rules.rules if rule.lost or rule.silence_dbfs is not None)
        self._audibility = Audibility(audiogram, given.input_full_scale_db_spl, soundless) if audiogram else None
        # A siren's pattern needs the tagger's consent, unless a rule asks for the pattern alone.
        asked = [rule for rule in rules.rules if rule.enabled and SIRENS & {*rule.cadence, *rule.signs, *rule.unless}]
        self._cadence = CadenceDetector(sirens=any(head is not None or not rule.labels for rule in asked))
        self._cadence_sample = 0  # so far it has heard
        self.alerts = AlertEngine(rules, facts.thresholds, facts.trained_classes)
        self._learned: list[AlertRule] = []  # of sounds of one's own, since the session began
        spoken = (rule.id for rule in settings.alerts.rules if rule.phrases or rule.patterns)
        self.name, self._last_seq, self.source = name, begun, source  # number of the newest event
        self._audio_sample = 0  # end of the audio that is known
        self._judged_sample = 0  # to here, by a session before this one
        self._looked_ahead = 0  # to here, where that is further than the events are
        self._mask = Mask(masked_words(settings.speech.mask), spoken)
        self._texts: list[AlertText] = []  # changes that the alerts have not seen
        self._lost = False
        self._signal = SignalTrouble()
        self._states: dict[Subject, tuple[State, str]] = {}
        self._shown: tuple[State, str] | None = None  # the state that people know
        self._speech_indices = sorted(group("speech"))
        self._speech_score: float | None = None
        self._no_speech_probability = 0.0
        self._scores: NDArray[np.float32] | None = None
        self._spans = np.zeros(LABEL_COUNT, np.float32)  # by which span each was judged, in seconds

    @property
    def last_seq(self) -> int:
        """The number of the newest event."""
        return self._last_seq

    def begin(self, plan: Plan, *, text: bool = True, judge: bool = True) -> StepRequest | None:
        """What the model has to do for this plan, if anything; `text` or `judge` False: not that, it is too late."""
        if not isinstance(plan, Hop):
            return None
        self.text.hear(plan)
        judge = judge and plan.judge and plan.end_sample > self._judged_sample
        spans = self._settings.tags.spans_s if judge and not plan.silent and self._judges else ()
        start, decode = self.text.prepare(plan.end_sample, plan.text and text)
        if not spans and decode is None:
            return None
        return StepRequest(start, plan.end_sample, spans, decode)

    def complete(self, plan: Plan, result: StepResult | None) -> list[Event]:
        """The events of this plan, given what the model found."""
        at = plan.end_sample
        self._audio_sample = max(self._audio_sample, at)
        match plan:
            case Hop():
                return self._hop(plan, result)
            case Beat():
                return self._alerts(at, AlertInput(end_sample=at, cadence=self._patterns(plan)))
            case SegmentOpened():
                self.text.open(plan)
                return []
            case SpeechOver():
                return self._transcripts(self.text.end(at), at) + self._alerts(at)
            case SegmentClosed():
                return self._transcripts(self.text.close(plan), at) + self._alerts(at)
            case AudioLost():
                return self._gap(at, plan.lost_from, plan.lost_to, plan.reason)
            case Noticed():
                return self._of_signal(self._signal.noticed(plan.report, at), at)
            case StateChanged():
                return self.status(plan.state, plan.detail, at)

    def status(
        self, state: State, detail: str = "", at_sample: int | None = None, *, subject: Subject = "source"
    ) -> list[Event]:
        """The state of one subject from now on; a `status` event where that changes what people know.

        They are told the gravest state of all: what is well again does not hide what is not. A `listening` with a
        detail is a notice: said once, whatever the state is. The alerts that hang on it (a lost microphone) follow.
        """
        at = self._audio_sample if at_sample is None else at_sample
        notice = detail if state == "listening" else ""
        if notice:
            self._states.setdefault(subject, ("listening", ""))
        else:
            self._states[subject] = (state, detail)
        own = self._states[subject]
        self._lost = self._states.get("source", own)[0] == "no_audio"
        gravest = max(self._states.values(), key=lambda one: _GRAVITY[one[0]])
        shown = gravest if _GRAVITY[gravest[0]] > _GRAVITY[own[0]] else own
        if shown == self._shown and not notice:
            return self._alerts(at)
        self._shown = shown
        return [Status(**self._stamp(at), state=shown[0], detail=notice or shown[1]), *self._alerts(at)]

    def go_on(self, failed: "Session | None", told: Told, at_sample: int) -> None:
        """Take the place of a session that failed (None: in another process), from this sample on: the numbers and the
        states of its source and its sinks go on, nothing else of it does. Audio that was judged before has its words
        looked for, and nothing else.
        """
        self._last_seq = told.seq
        self._judged_sample = told.audio_sample
        self._audio_sample = max(at_sample, told.audio_sample)
        self._cadence_sample = at_sample
        self._states = dict(failed._states) if failed else {}
        self.text.begin_at(at_sample, told.segments)
        self.alerts.number_from(told.alerts + 1)
        for rule in failed._learned if failed else ():
            self.listen_for(rule)
        ids = count(told.sounds + 1)
        self._own.ids = ids
        if self._sounds:
            self._sounds.ids = ids

    def skip(self, plan: Hop | Beat) -> None:
        """Nothing is made of this audio, for want of time: only that it was there is noted."""
        if isinstance(plan, Hop):
            self.text.hear(plan)
        self._audio_sample = max(self._audio_sample, plan.end_sample)

    def flush(self) -> list[Event]:
        """A client asks for what there is: the open segment becomes final."""
        at = self._audio_sample
        return self._transcripts(self.text.flush(at), at)

    def set_language(self, languages: tuple[str, ...]) -> list[Event]:
        """A client says which languages come into question from the next window on, as codes; empty: any."""
        return self._transcripts(self.text.set_language(languages, self._audio_sample), self._audio_sample)

    def listen_for(self, rule: AlertRule) -> list[Event]:
        """A sound of one's own was learned: its rule, from now on; one that the settings have for it stays."""
        self._judges = True
        self._learned.append(rule)
        self.alerts.add(rule)
        return []

    def look_ahead(self, sample: int) -> None:
        """Whole recordings: from now on the model has heard the audio up to this sample, whatever the events are of."""
        self._looked_ahead = max(self._looked_ahead, sample)

    def write(self, changes: Sequence[TextChange], at_sample: int, no_speech_probability: float) -> list[Event]:
        """The events of text that was not decided on here, but in windows of a whole recording."""
        self._no_speech_probability = no_speech_probability
        return self._transcripts(changes, at_sample)

    def acknowledge(self, alert_id: int) -> list[Event]:
        """Somebody has seen this alert."""
        at = self._audio_sample
        return self._alert_events(self.alerts.acknowledge(alert_id, at), at)

    def finish(self, detail: str = "") -> list[Event]:
        """The stream is over: open text, sounds and alerts end, the last event is `status` `stopped`."""
        at = self._audio_sample
        events = self._of_signal(self._signal.rest(), at)
        events += self._transcripts([*self.text.close(SegmentClosed(at, at)), *self.text.end(at)], at)
        events += self._alerts(at) if events else []
        events += self._sound_events(self._sounds.finish(at), at) if self._sounds else []
        events += self._sound_events(self._own.finish(at), at)
        events += self._alert_events(self.alerts.finish(at), at)
        return [*events, Status(**self._stamp(at), state="stopped", detail=detail)]

    def _stamp(self, at: int) -> Stamp:
        """The next event's, decided when the audio up to sample `at` was known: the one place that numbers events."""
        self._audio_sample = max(self._audio_sample, at)
        self._last_seq += 1
        known = max(self._audio_sample, self._looked_ahead)
        return Stamp(session=self.name, seq=self._last_seq, audio_t=seconds(known))

    def _hop(self, hop: Hop, result: StepResult | None) -> list[Event]:
        at = self._audio_sample  # an empty hop, of text that was put off, may end earlier
        if hop.judge and hop.end_sample <= self._judged_sample:
            hop = replace(hop, judge=False)
        if self._audibility and not hop.lost:
            self._audibility.hear(hop.samples)
        judgement = result.judgement if result else ()
        if judgement:
            self._speech_score = self._speech(judgement)
        elif hop.judge:  # nothing was judged, for silence or for lag: an old score must not withhold new words
            self._speech_score = 0.0 if hop.silent and self._sounds else None
        events = self._of_signal(self._signal.recovered(at), at)
        if result and result.hypothesis:
            self._no_speech_probability = result.hypothesis.no_speech_probability
            events += self._transcripts(self.text.step(result.hypothesis, hop.end_sample, self._speech_score), at)
        if hop.judge and self._sounds and (judgement or hop.silent):
            self._scores, self._spans = self._sounds.decide(judgement)
            begins = min((span.start_sample for span in judgement), default=max(0, at - SAMPLE_RATE))
            start = max(begins, at - TAGGED_SAMPLES)  # what begins between two encoder frames also ends one early
            tags = self._top(self._settings.tags.limit)
            events.append(Tags(**self._stamp(at), start=seconds(start), end=seconds(at), tags=tags))
            patterns = self.alerts.patterns  # as of the beat before
            sounds = self._sounds.step(judgement, patterns=patterns, silent=hop.silent, end_sample=hop.end_sample)
            events += self._sound_events(sounds, at)
        events += self._scene(hop, at, judged=bool(judgement) or hop.silent)
        own = result.own if result else ()
        if hop.judge:
            events += self._sound_events(self._own.step(own, at), at)
        given = AlertInput(
            end_sample=at,
            own=own,
            judgement=tuple(judgement),
            scores=self._scores if judgement else None,
            silent=hop.judge and hop.silent,
            cadence=self._patterns(hop),
            heard=self._top(HEARD_LIMIT),
            # None: text that was put off, or sound that is not known
            loudness_dbfs=dbfs(hop.samples) if len(hop.samples) and not hop.lost else None,
        )
        return events + self._alerts(at, given)

    def _scene(self, hop: Hop, at: int, *, judged: bool) -> list[Event]:
        """The scene's event, if it is another one now."""
        if self._scenes is None or hop.lost:
            return []
        self._scenes.hear(hop.samples, hop.voiced)
        if not hop.judge or (self._sounds and not judged):
            return []
        change = self._scenes.judge(self._scores if self._sounds else None, at, alarm=bool(self.alerts.patterns))
        return [change.event(self._stamp(at))] if change else []

    def _patterns(self, plan: Hop | Beat) -> tuple[CadenceState, ...] | None:
        """The alarm patterns after what is new in this plan; None: nothing is."""
        fresh, self._cadence_sample = plan.end_sample - self._cadence_sample, self._audio_sample
        return tuple(self._cadence.step(plan.samples[-fresh:], plan.end_sample)) if fresh > 0 else None

    def _speech(self, judgement: Sequence[SpanScores]) -> float:
        spans = [span for span in judgement if span.end_sample - span.start_sample <= SPEECH_SPAN_S * SAMPLE_RATE]
        return max(float(span.scores[self._speech_indices].max()) for span in spans or judgement[:1])

    def _top(self, limit: int) -> tuple[Tag, ...]:
        """The best tags now, of at least the least score."""
        if self._scores is None:
            return ()
        order = np.argsort(-self._scores, kind="stable")[:limit]
        names = labels()
        return tuple(
            Tag(
                int(index),
                names[int(index)].name,
                round(float(self._scores[index]), 4),
                round(float(self._spans[index]), 2),
            )
            for index in order
            if self._scores[index] >= self._settings.tags.min_score
        )

    def _alerts(self, at: int, given: AlertInput | None = None) -> list[Event]:
        clock = self._local_time() if self._local_time else None
        given = replace(
            given or AlertInput(end_sample=at), texts=tuple(self._texts), lost=self._lost, local_time_s=clock
        )
        self._texts.clear()
        return self._alert_events(self.alerts.step(given), at)

    def _alert_events(self, changes: Iterable[AlertChange], at: int) -> list[Event]:
        quiet = self._audibility
        told = [
            (change, quiet is not None and quiet.missed(change.id, change.rule, change.state)) for change in changes
        ]
        told.sort(key=lambda one: not one[1])  # what this person would have missed is told first
        return [
            self._mask.event(change.event(self._stamp(at), self.source, too_quiet=missed)) for change, missed in told
        ]

    def _transcripts(self, changes: Sequence[TextChange], at: int) -> list[Event]:
        """The events of text: what people read is masked, the policy and the rules see what was really said."""
        self._texts += [alert_text(change) for change in changes]
        speech = 1 - self._no_speech_probability if self._speech_score is None else self._speech_score
        return [self._mask.event(transcript(change, self._stamp(at), speech)) for change in changes]

    def _sound_events(self, changes: Iterable[SoundChange], at: int) -> list[Event]:
        return [change.event(self._stamp(at)) for change in changes]

    def _gap(self, at: int, start_sample: int, end_sample: int, reason: str) -> list[Event]:
        gap = Gap(**self._stamp(at), start=seconds(start_sample), end=seconds(end_sample), reason=reason)
        return [gap, *self._alerts(at, AlertInput(end_sample=at, gap=True))]

    def _of_signal(self, said: Sequence[Stretch | Condition], at: int) -> list[Event]:
        events: list[Event] = []
        for one in said:
            if isinstance(one, Condition):
                events += self.status(one.state, one.detail, at, subject="signal")
            elif one.told:
                events += self._gap(at, one.start, one.end, one.detail)
            else:
                events += self._alerts(at, AlertInput(end_sample=at, gap=True))
        return events
