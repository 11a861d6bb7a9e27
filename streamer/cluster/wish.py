"""Which model the engines of a cluster load; without Ray, so that the command line can say it."""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from streamer.errors import UsageError
from streamer.model.engine import Context
from streamer.settings.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWish:
    """Which model every replica loads, and how. Paths are those of the replicas' machines.

    `languages`: of all sources, sorted ("": any); `threads` None: as many as the replica has CPUs; `own_sounds`: where
    learned sounds are kept, None: none are judged.
    """

    name: str
    head: str | None
    compute: str
    dtype: str
    context: Context
    languages: tuple[str, ...]
    translate: bool
    threads: int | None
    own_sounds: Path | None

    @classmethod
    def of(cls, settings: Settings, languages: frozenset[str], *, translate: bool) -> "ModelWish":
        """What the settings ask for. Raises UsageError for `auto`: replicas on different machines might differ."""
        given = settings.model
        if given.name == "auto":
            raise UsageError("--model: auto may mean another model on each machine; name one, for example base")
        return cls(
            name=given.name,
            head=None if given.head == "none" else given.head,
            compute=given.compute,
            dtype=given.dtype,
            context=given.context,
            languages=tuple(sorted(languages)),
            translate=translate,
            threads=given.threads,
            own_sounds=settings.own_sounds.place() if settings.own_sounds.enabled else None,
        )

    @property
    def application(self) -> str:
        """The name of the Serve application that has this model: the same for all programs that want the same."""
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", Path(self.name).name).strip("-")
        digest = hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()
        return f"streamer-{plain}-{digest[:8]}"
