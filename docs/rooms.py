"""Rooms and arrows, from the imports: `python docs/rooms.py` writes docs/rooms.svg and says who imports from whom.

A room is a folder of `streamer/` or a module beside them; the public names (`PUBLIC`) are one; an arrow is an import of
another room, inside functions too.
`tests/test_import_graph.py` reads the imports with the same functions.
"""

import ast
import io
import subprocess
import tarfile
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "32c396e^"  # the commit before the rooms of today
PUBLIC = ("streamer", "streamer.config")
ROW, COLUMN, BOX = 74, 132, (118, 24)  # pixels
Arrows = Mapping[str, set[str]]


def files() -> dict[str, str]:
    """Module -> its text, of the tree as it is."""
    return {module_of(path.relative_to(ROOT)): path.read_text("utf-8") for path in (ROOT / "streamer").rglob("*.py")}


def files_at(revision: str) -> dict[str, str]:
    """Module -> its text, of a commit."""
    packed = subprocess.run(["git", "archive", revision, "streamer"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tree:
        members = [member for member in tree if member.name.endswith(".py")]
        texts = {member.name: file.read().decode() for member in members if (file := tree.extractfile(member))}
    return {module_of(Path(name)): text for name, text in texts.items()}


def module_of(path: Path) -> str:
    """`streamer/audio/ring.py` -> `streamer.audio.ring`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """`streamer.audio.ring` -> `audio`."""
    if module in PUBLIC:
        return "streamer"
    return module.split(".")[1] if "." in module else module


def imports(text: str, known: Container[str], *, when_loaded: bool = False) -> frozenset[str]:
    """Names that a module imports: modules of ours (`known`) and packages of others.

    `when_loaded`: only what is imported when the module itself is, not later in a function or for types alone.
    """
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        if when_loaded and later:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inside}
        waiting += ast.iter_child_nodes(node)
    return frozenset(name if name in known else name.split(".")[0] for name in found)


def arrows(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """For each room the rooms that it imports from. `streamer` itself is the public names, which all may import."""
    found: dict[str, set[str]] = {}
    for module, text in texts.items():
        here = room_of(module)
        ours = {room_of(name) for name in imports(text, texts) if name.startswith("streamer.")}
        found.setdefault(here, set()).update(ours - {here})
    return found


def reached(found: Arrows, room: str) -> set[str]:
    """All rooms that a room needs, directly or not."""
    seen: set[str] = set()
    waiting = [*found[room]]
    while waiting:
        if (other := waiting.pop()) not in seen:
            seen.add(other)
            waiting += found[other]
    return seen


def layers(found: Arrows) -> list[list[str]]:
    """Rooms that need only rooms of earlier layers, layer by layer; those that need each other share one."""
    needs = {room: reached(found, room) for room in found}
    circle = {room: {other for other in needs[room] if room in needs[other]} | {room} for room in found}
    placed: list[list[str]] = []
    done: set[str] = set()
    while len(done) < len(found):
        placed.append(sorted(room for room in found if room not in done and needs[room] - circle[room] <= done))
        done |= set(placed[-1])
    return placed


def circles(found: Arrows) -> int:
    """How many groups of rooms need each other."""
    needs = {room: reached(found, room) for room in found}
    return len({frozenset(other for other in needs[room] if room in needs[other]) for room in found} - {frozenset()})


def counted(found: Arrows) -> str:
    """`21 rooms, 96 arrows, no circle`."""
    number = circles(found)
    round_about = "no circle" if not number else f"{number} circle{'s' * (number > 1)}"
    return f"{len(found)} rooms, {sum(map(len, found.values()))} arrows, {round_about}"


def drawn(title: str, found: Arrows, top: int) -> Iterator[str]:
    """One picture as lines of SVG: what is needed stands above; an arrow that is part of a circle is red."""
    rows = layers(found)
    places = {
        room: ((index + 0.5 - len(row) / 2) * COLUMN, top + 50 + number * ROW)
        for number, row in enumerate(rows)
        for index, room in enumerate(row)
    }
    yield f'<text class="title" x="0" y="{top + 14}">{title}: {counted(found)}</text>'
    for room, others in sorted(found.items()):
        for other in sorted(others):
            (x, y), (to_x, to_y) = places[room], places[other]
            y, to_y = (y - BOX[1] / 2, to_y + BOX[1] / 2) if to_y < y else (y, to_y)
            middle = (y + to_y) / 2 if to_y != y else y - ROW / 2
            kind = ' class="circle"' if room in reached(found, other) else ""
            bend = f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
            yield f'<path{kind} d="M{x:.0f} {y:.0f}{bend}"/>'
    for room, (x, y) in sorted(places.items()):
        left, above = x - BOX[0] / 2, y - BOX[1] / 2
        yield f'<rect x="{left:.0f}" y="{above:.0f}" width="{BOX[0]}" height="{BOX[1]}"/>'
        yield f'<text x="{x:.0f}" y="{y + 4:.0f}">{room}</text>'


def picture(before: Arrows, now: Arrows) -> str:
    """Both pictures, one below the other."""
    second = 70 + ROW * len(layers(before))
    width = COLUMN * max(len(row) for found in (before, now) for row in layers(found)) + 20
    height = second + 40 + ROW * len(layers(now))
    style = (
        "svg{background:#fff}text{font:12px sans-serif;text-anchor:middle}.title{font-size:15px}"
        "rect{fill:#f4f4f0;stroke:#555}path{fill:none;stroke:#999;stroke-width:.8}.circle{stroke:#c22}"
    )
    lines = [*drawn("before", before, 10), *drawn("now", now, second)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-width / 2:.0f} 0 {width} {height}" width="{width}">'
    return "\n".join([head, f"<style>{style}</style>", *lines, "</svg>", ""])


if __name__ == "__main__":
    before, now = arrows(files_at(BEFORE)), arrows(files())
    (ROOT / "docs" / "rooms.svg").write_text(picture(before, now), encoding="utf-8")
    for room in (room for layer in layers(now) for room in layer):
        print(f"{room}: {', '.join(sorted(now[room])) or '–'}")  # noqa: T201
    print(f"before: {counted(before)}; now: {counted(now)}")  # noqa: T201
