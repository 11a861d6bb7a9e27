"""What is said while a model is being chosen, fetched and loaded."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadStep:
    """What is being done, such as "loading base"; of a download also how many bytes are here, and of how many.

    `slow`: it may take longer than people wait without a word.
    """

    what: str
    slow: bool = False
    received_bytes: int | None = None
    total_bytes: int | None = None


Tell = Callable[[LoadStep], None]
