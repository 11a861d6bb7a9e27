"""From a session's events to what Deepgram's live API answers, and what its query parameters ask for (pure).

Final `Results` hold committed text only, each behind the one before: none is ever changed or overlaps another. Interim
ones hold all of the utterance that is not final yet, committed or not. (developers.deepgram.com/reference)
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer.server.actions import Actions
from streamer.server.answers import joint
from streamer.server.messages import IngestStart, MessageError
from streamer.server.other_protocols import language_of
from streamer.settings.section import first_fault

FINAL_MS = 3000  # so much of an utterance is committed and not final: it becomes final while it goes on
OPUS_HZ = 48_000  # Opus is decoded at this rate, whatever it was made of (RFC 6716)
CONTAINED_HZ = 16_000  # what comes in a container is resampled where it is decoded
REFUSED: Final[Mapping[str, str]] = {
    "multichannel": "channels are mixed here; open a connection for each",
    "callback": "answers go to this connection only",
    "redact": "nothing is redacted here",
    "replace": "no words are replaced here",
    "search": "nothing is searched for here",
    "profanity_filter": "what is said is written as it is said",
}
EXTENSIONS: Final[Mapping[str, str]] = {"sound": "Sound", "alert": "Alert", "gap": "Gap"}  # event -> type of message
_TIMES = ("start", "end")
_NOT_TOLD = ("v", "type", "seq", "audio_t")

Json = dict[str, Any]
Encoding = Literal["linear16", "opus", "mulaw", "alaw"]


class _Query(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    encoding: Encoding | None = None
    sample_rate: Annotated[int, Field(ge=8_000, le=192_000)] | None = None
    channels: Annotated[int, Field(ge=1, le=8)] = 1
    language: str = ""
    interim_results: bool = False
    utterance_end_ms: Annotated[int, Field(ge=1, le=60_000)] | None = None
    vad_events: bool = False
    streamer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a client asks for in its query. `encoding` None: a container; `language` "": the program's settings decide.

    `utterance_end_ms` None: no `UtteranceEnd`. `extended`: sounds, alerts and gaps come along.
    """

    encoding: Encoding | None = None
    sample_rate: int = CONTAINED_HZ
    channels: int = 1
    language: str = ""
    interim: bool = False
    utterance_end_ms: int | None = None
    vad_events: bool = False
    extended: bool = False

    @property
    def start(self) -> IngestStart:
        """The sound as the session gets it."""
        return IngestStart(self.sample_rate, self.channels)


def wishes_of(query: str, actions: Actions) -> Wishes:
    """Read the query string of a request. MessageError: what cannot be, with the name of the parameter.

    What only adds to the answers, or tells of the words that are to be expected, is ignored.
    """
    try:
        values = {name: items[-1] for name, items in parse_qs(query, max_num_fields=60).items()}
        given = _Query.model_validate(values)
    except ValidationError as error:
        raise MessageError(first_fault(error)) from None
    except ValueError:
        raise MessageError("more than 60 parameters") from None
    for name, why in REFUSED.items():
        if values.get(name, "false").lower() not in ("false", "0", ""):
            raise MessageError(f"{name}: {why}")
    rate, channels = given.sample_rate, given.channels
    if given.encoding is None:
        if given.sample_rate is not None:
            raise MessageError("encoding: is missing; give linear16, opus, mulaw or alaw, or no sample_rate either")
        rate, channels = CONTAINED_HZ, 1
    elif given.encoding == "opus":
        rate = OPUS_HZ
        if channels > 2:
            raise MessageError(f"channels: raw Opus has 1 or 2; is {channels}")
    elif rate is None:
        raise MessageError(f"sample_rate: is missing; encoding={given.encoding} needs it")
    language = "" if given.language == "multi" else language_of(actions, given.language)
    return Wishes(
        encoding=given.encoding,
        sample_rate=rate or CONTAINED_HZ,
        channels=channels,
        language=language,
        interim=given.interim_results,
        utterance_end_ms=given.utterance_end_ms,
        vad_events=given.vad_events,
        extended=given.streamer,
    )


@dataclass(frozen=True, slots=True)
class About:
    """One connection, as the API describes it. `model`: the name of the program's, "" while it is being loaded."""

    request_id: str
    model: str

    @property
    def model_uuid(self) -> str:
        """The same for the same name."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"streamer:{self.model}"))

    @property
    def model_info(self) -> Json:
        """`model_info` of one model."""
        return {"name": self.model, "version": version("streamer"), "arch": "streamer"}

    def of_results(self) -> Json:
        """`metadata` of `Results`."""
        return {"request_id": self.request_id, "model_info": self.model_info, "model_uuid": self.model_uuid}

    def at_end(self, created: str, sha256: str, duration_s: float) -> Json:
        """The last message of a connection. `created`: ISO 8601; `sha256`: of all that the client sent as sound."""
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": sha256,
            "created": created,
            "duration": round(duration_s, 6),
            "channels": 1,
            "models": [self.model_uuid],
            "model_info": {self.model_uuid: self.model_info},
        }


class Results:
    """One session: all that was sent up to a `Finalize` or the end. `began_ms`: when it began, of all that was sent.

    Times are whole milliseconds inside, so that what follows begins where what came before ended.
    """

    def __init__(self, wishes: Wishes, about: About, began_ms: int) -> None:
        self._wishes, self._about, self._began_ms = wishes, about, began_ms
        self._segment = -1  # the utterance that is told of
        self._final_text, self._final_words = "", 0  # of it: characters and words that are final
        self._interim = ""  # what was shown of it and is not final
        self._final_ms = began_ms  # where the last final result ends
        self._word_ms = began_ms  # where the last final word ends
        self._end_due_ms: int | None = None  # `UtteranceEnd` is due when so much was heard without a word
        self._finalizing = False
        self._last: Json | None = None  # the newest final result, kept until it is known whether it is the last

    def step(self, event: Mapping[str, Any]) -> list[Json]:
        """What a client is told of one event."""
        kind = event["type"]
        if kind == "transcript":
            return self._transcript(event)
        told: list[Json] = []
        if kind in EXTENSIONS and self._wishes.extended:
            fields = {name: value for name, value in event.items() if name not in _NOT_TOLD}
            times = {name: self._ms(event[name]) / 1000 for name in _TIMES if event[name] is not None}
            told.append({"type": EXTENSIONS[kind]} | fields | times)
        if kind == "status" and event["state"] == "stopped" and self._finalizing:
            last, self._last = self._last or self._result("", [], "", self._final_ms, True), None
            told.append(last | {"from_finalize": True})
        return told + (self.heard(self._ms(event["audio_t"])) if "audio_t" in event else [])

    @property
    def waits(self) -> bool:
        """Whether an `UtteranceEnd` is due once it was quiet for long enough."""
        return self._end_due_ms is not None

    def heard(self, until_ms: int) -> list[Json]:
        """Everything up to this time was heard, and nothing more is to come of it: perhaps an utterance is over."""
        if self._end_due_ms is None or until_ms < self._end_due_ms or self._last is not None:
            return []
        self._end_due_ms = None
        return [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": self._word_ms / 1000}]

    def finalize(self) -> None:
        """The client wants what there is: the session ends, and its last final result says so, with text or without."""
        self._finalizing = True

    def _transcript(self, event: Mapping[str, Any]) -> list[Json]:
        told: list[Json] = []
        says = bool(event["text"] or event["partial"])
        if event["segment"] != self._segment and says:
            start_ms = self._ms(event["start"])
            told += self.heard(start_ms)
            self._end_due_ms = None  # somebody went on before it was due
            self._segment, self._final_text, self._final_words, self._interim = event["segment"], "", 0, ""
            self._final_ms = max(self._final_ms, start_ms)
            if self._wishes.vad_events:
                told.append({"type": "SpeechStarted", "channel": [0, 1], "timestamp": start_ms / 1000})
        elif event["segment"] != self._segment:
            return told  # nothing was said that anybody was told of
        words = event["words"][self._final_words :]
        if event["final"]:
            return told + self._final(event, self._ms(event["end"]), over=True)
        if words and self._ms(words[-1]["end"]) - self._final_ms >= FINAL_MS:
            told += self._final(event, self._ms(words[-1]["end"]), over=False)
            words = []
        text = self._rest(event, event["partial"])
        if self._wishes.interim and text != self._interim:
            end_ms = max(self._final_ms, self._ms(event["end"]))
            told.append(self._result(text, words, event["language"], end_ms))
        self._interim = text
        return told

    def _final(self, event: Mapping[str, Any], end_ms: int, *, over: bool) -> list[Json]:
        """What is committed and not final yet. `over`: the utterance is, and no more comes of it."""
        words, text = event["words"][self._final_words :], self._rest(event)
        if words:
            self._word_ms = self._ms(words[-1]["end"])
        end_ms = max(self._final_ms, end_ms, self._word_ms)
        result = self._result(text, words, event["language"], end_ms, over)
        self._final_ms = end_ms
        self._final_text, self._final_words, self._interim = event["text"], len(event["words"]), ""
        if over and self._wishes.utterance_end_ms is not None and event["words"]:
            self._end_due_ms = self._word_ms + self._wishes.utterance_end_ms
        before, self._last = self._last, result if self._finalizing else None
        told = [before] if before else []
        told += [] if self._finalizing else [result]
        return told + (self.heard(self._ms(event["audio_t"])) if over else [])

    def _result(self, text: str, words: list[Json], language: str, end_ms: int, over: bool | None = None) -> Json:
        """`over` None: an interim one; else final, and whether the utterance is over."""
        confidences = [word["probability"] for word in words]
        alternative: Json = {
            "transcript": text,
            "confidence": round(sum(confidences) / len(confidences), 6) if confidences else 0.0,
            "words": self._words(words),
        }
        if not self._wishes.language and language:
            alternative["languages"] = [language]
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": self._final_ms / 1000,
            "duration": (end_ms - self._final_ms) / 1000,
            "is_final": over is not None,
            "speech_final": bool(over),
            "channel": {"alternatives": [alternative]},
            "metadata": self._about.of_results(),
            "from_finalize": False,
        }

    def _words(self, words: list[Json]) -> list[Json]:
        """Each in both spellings; a mark that stands alone goes to the word before it."""
        told: list[Json] = []
        for word in words:
            written = word["word"].strip()
            plain = "".join(char for char in written.lower() if char.isalnum() or char in "'’-")
            times = {name: self._ms(word[name]) / 1000 for name in _TIMES}
            if plain or not told:
                spellings = {"word": plain or written, "punctuated_word": written}
                told.append({**spellings, **times, "confidence": word["probability"]})
            else:
                told[-1]["punctuated_word"] += written
        return told

    def _rest(self, event: Mapping[str, Any], partial: str = "") -> str:
        """What is not final of an utterance."""
        new: str = event["text"][len(self._final_text) :].strip()
        return new + (joint(event["language"]) if new and partial else "") + partial.strip()

    def _ms(self, seconds: float) -> int:
        return self._began_ms + round(1000 * seconds)
