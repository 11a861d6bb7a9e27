"""What is said between a page and the server about sounds of one's own: `teach` and its answers, `taught`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictStr
from pydantic.dataclasses import dataclass as checked

from streamer.settings.own_sounds import checked_name

TEACH: Final = "teach"  # a capability of servers on which clients may teach sounds; and its message
TAUGHT: Final = "taught"

Session = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]


@checked(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class Teach:
    """The sound of a moment (of `session`; None: of the only one) is `name`: keep it.

    The moment: the seconds around `start`, in seconds of the session, when it began; without, the last ones as they
    were `ago` seconds ago. `undo`: take a clip of it back instead, the newest one or number `clip` (1: the oldest).
    """

    name: Annotated[StrictStr, AfterValidator(checked_name)]
    session: Session | None = None
    start: Seconds | None = None
    ago: Seconds = 0.0
    undo: StrictBool = False
    clip: Annotated[int, Field(strict=True, ge=1, le=100)] | None = None


@dataclass(frozen=True, slots=True)
class Taught:
    """How far a sound is: so many `clips` are kept, so many are `needed` before it is learned (again).

    `learned`: it is listened for. `learning`: it is being learned (anew); another `taught` will follow. `trouble`: why
    it could not be, one line; `unlike`: the number of the clip that is not like the others. `recall`: the share of a
    clip that is recognised without having been taught, once it is learned.
    """

    name: str
    clips: int
    needed: int
    learned: bool
    learning: bool = False
    trouble: str = ""
    unlike: int | None = None
    recall: float | None = None


Reply = Callable[[Taught | str], None]  # a string: why not, one line for an `error` message
