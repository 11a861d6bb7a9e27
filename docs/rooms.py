"""Rooms and arrows, from the imports: `python docs/rooms.py` writes the table of docs/design.md.

A room is a folder of `streamer/` or a module beside them; an arrow is an import, inside functions too.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "streamer"


def room_of(module: str) -> str:
    """`streamer.audio.ring` -> `audio`."""
    return module.split(".")[1] if "." in module else "streamer"


def arrows() -> dict[str, set[str]]:
    """For each room the rooms that it imports from."""
    found: dict[str, set[str]] = {}
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    for path in sorted(PACKAGE.rglob("*.py")):
        here = "streamer" if path == PACKAGE / "__init__.py" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        used = found.setdefault(here, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            used |= {room_of(name) for name in names if name.startswith("streamer.")} & rooms - {here}
    return found


def layers(found: dict[str, set[str]]) -> list[list[str]]:
    """Rooms that need only rooms of earlier layers, layer by layer. ValueError where they go in a circle."""
    placed: list[list[str]] = []
    done: set[str] = set()
    while len(done) < len(found):
        layer = sorted(room for room in found if room not in done and found[room] <= done)
        if not layer:
            raise ValueError(f"a circle among {sorted(set(found) - done)}")
        placed.append(layer)
        done |= set(layer)
    return placed


if __name__ == "__main__":
    found = arrows()
    print(f"{len(found)} rooms, {sum(map(len, found.values()))} arrows, no circle\n")  # noqa: T201
    print("| layer | room | imports from |\n|---|---|---|")  # noqa: T201
    for number, layer in enumerate(layers(found), 1):
        for room in layer:
            print(f"| {number} | `{room}` | {', '.join(sorted(found[room])) or '–'} |")  # noqa: T201
