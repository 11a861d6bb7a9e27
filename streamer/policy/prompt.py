"""What the decoder reads before the transcript (pure).

    <|startofprev|> hot words, the user's prompt, … the newest of the earlier text <|startoftranscript|> …

openai-whisper gives it the last n_text_ctx/2 - 1 tokens of what it may read there. Here the head is never pushed out:
earlier text is cut first, then the front of the user's prompt; hot words stay, in every window of every segment.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from streamer.errors import ConfigError
from streamer.settings.config import SpeechSettings

PREVIOUS_TOKENS = 200  # of what scrolled off
START_TOKENS = 4  # start of transcript, language, task, time marks or not
HOT_SHARE = 4  # hot words may fill one part in so many of the text context: 112 of Whisper's 448 tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TextModel:
    """One model as the text session sees it.

    `encode` turns text into tokens; `fixed_language`: the only one it speaks ("en" for English-only models), else None;
    `carries_prompt`: it was trained with previous text before the transcript; `context_s`: how much audio a window
    holds at best, where the settings do not say; `text_context`: tokens that the decoder reads and writes (n_text_ctx).
    """

    encode: Callable[[str], tuple[int, ...]]
    fixed_language: str | None
    carries_prompt: bool
    context_s: float = 10.0
    text_context: int = 448
    name: str = "the model"


class Prompt:
    """The prompts of one stream.

    A model that was never trained with text before the transcript is led astray by any (nano hardly writes a word):
    it gets hot words and prompt, as it gets earlier text, only with `speech.carry_prompt: on`.

    Raises ConfigError when the hot words are too many for the model.
    """

    def __init__(self, speech: SpeechSettings, model: TextModel) -> None:
        self._context = model.text_context
        self._most = max(0, model.text_context // 2 - 1)
        carry = speech.carry_prompt
        self._carries = model.carries_prompt if carry == "auto" else carry == "on"
        said = speech.prompt.strip()
        self._hot: tuple[int, ...] = ()
        self._said: tuple[int, ...] = ()
        if model.carries_prompt or carry == "on":
            self._hot = _hot_tokens(speech, model)
            self._said = model.encode(" " + said) if said else ()
        elif speech.hot_words or said:
            log.warning(
                "%s: %s was not trained with text before the transcript and does not get any "
                "(speech.carry_prompt: on gives it all the same)",
                "speech.hot_words" if speech.hot_words else "speech.prompt",
                model.name,
            )

    def tokens(self, earlier: tuple[int, ...], prefix_tokens: int, new_tokens: int) -> tuple[int, ...]:
        """The prompt for a window with a forced prefix and room for new tokens, `earlier` being what scrolled off."""
        room = max(0, min(self._most, self._context - START_TOKENS - prefix_tokens - new_tokens))
        hot = self._hot[:room]
        said = _newest(self._said, room - len(hot))
        kept = _newest(earlier, min(PREVIOUS_TOKENS, room - len(hot) - len(said))) if self._carries else ()
        return hot + said + kept

    def for_recording(self, earlier: tuple[int, ...], *, first: bool) -> tuple[int, ...]:
        """The prompt for a window of a whole recording: as openai-whisper's, but that hot words always stay.

        `earlier`: the tokens written so far, with time marks; `first`: the user's prompt still stands before them.
        """
        said = self._said if first else ()
        kept = earlier if self._carries else ()
        return self._hot + _newest(said + kept, self._most - len(self._hot))


def _hot_tokens(speech: SpeechSettings, model: TextModel) -> tuple[int, ...]:
    if not speech.hot_words:
        return ()
    tokens = model.encode(f" {', '.join(speech.hot_words)}.")
    most = model.text_context // HOT_SHARE
    if len(tokens) > most:
        raise ConfigError(
            f"speech.hot_words: must fit into {most} tokens of {model.name}, are {len(tokens)}: leave some out"
        )
    return tokens


def _newest(tokens: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tokens[len(tokens) - min(count, len(tokens)) :]
