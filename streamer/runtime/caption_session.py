"""The session as people get it: short pauses may close a sentence, and words of `speech.mask` are hidden (pure).

Masking happens here, where every event is made, so that the policy and the alert rules see what was really said.
"""

from collections.abc import Callable
from typing import Any

from streamer.config import Settings
from streamer.events import Event
from streamer.policy.mask import Mask
from streamer.policy.sentence import SpeechPaused
from streamer.policy.text_model import TextModel
from streamer.runtime.listener import ListenerPlan
from streamer.runtime.session import HeadFacts, Session
from streamer.steps import StepResult
from streamer.word_lists import masked_words


class CaptionSession(Session):
    """One stream's session; takes what `Session` takes."""

    def __init__(
        self,
        settings: Settings,
        text: TextModel,
        head: HeadFacts | None,
        *,
        name: str = "s1",
        local_time: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(settings, text, head, name=name, local_time=local_time)
        spoken = (rule.id for rule in settings.alerts.rules if rule.phrases or rule.patterns)
        self._mask = Mask(masked_words(settings.speech.mask), spoken)

    def complete(self, plan: ListenerPlan, result: StepResult | None) -> list[Event]:
        """The plan's events. What a pause closes was committed before: the alerts hear of it with the next hop."""
        if isinstance(plan, SpeechPaused):
            return self._transcripts(self.text.close(plan), plan.at_sample)
        return super().complete(plan, result)

    def _make(self, kind: type[Event], at_sample: int, **fields: Any) -> Event:
        return self._mask.event(super()._make(kind, at_sample, **fields))
