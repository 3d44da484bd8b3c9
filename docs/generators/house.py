"""The house: the way that data goes through its rooms, and the rooms on their floors, as the imports put them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 104
WAY = """\
recommender/  [events] ──> [sessions] ──> [listener] ──> [states] ───────────────┐ who asks
                  └──────> [vectors] ───> [shelves] ───────────> candidates ─────┤
                                                                                 v
bart/         [types]    [ranking] ──> [page] ──> [home.py]: one page decided <──┘ <── [reward]
                                                      │
                      [log/record] ──> [log/store] ──> [log/outcomes]: joined pages ──> [log/care]
                                                      │
                       [learning] <───────────────────┴───────────────────> [ope/records]
                           │                                                      │
                       [bundle.py]: what is served from next     [ope/weights] ──> [ope/estimators]
                                                                                  │
                                                             [ope/comparison] ──> [ope/report]
api/          [run] ──> [service] ──> [http]        a page goes out, feedback comes in
              [jobs], [evaluate] ──> [commands]     build, retrain, evaluate from the terminal
simulator/    [world] ──> [reading] ──> [loop]      stands in for listeners and clients
              [study]                               estimates beside the truth
"""


def way() -> str:
    """The picture of it. Raises AttributeError where a room that it names is not there."""
    package = ""
    for line in WAY.splitlines():
        package = line.split("/ ")[0] if line[0].strip() else package
        for room in re.findall(r"\[(.+?)\]", line):
            if not (ROOT / package / room).exists():
                raise AttributeError(f"{package}/{room} is not there, but in the picture of the house")
    return "\n".join(["<!-- shown: the way that data goes, by rooms -->", "```text", WAY.rstrip(), "```"])


def house(package: str) -> str:
    """Top floor first; a line a room with the sentence of its `__init__.py`, or of a file that stands alone."""
    rooms = dict(_rooms(package))
    below = {name: {_room_of(at, rooms) for at in _imported(files)} - {name, ""} for name, files in rooms.items()}
    floors = _floors(below)
    wide = max(map(len, rooms)) + 2
    lines = []
    for number in sorted(set(floors.values()), reverse=True):
        for name in sorted(one for one in rooms if floors[one] == number):
            lines += _line(f"{number:2}  {name:{wide}}", _sentence(name))
    return "\n".join([f"<!-- shown: the rooms of {package} -->", "```text", *lines, "```"])


def _rooms(package: str) -> Iterator[tuple[str, list[Path]]]:
    """Room or lone file, as a path, and its Python files; a package's own `__init__.py` is none."""
    for file in sorted((ROOT / package).glob("*.py")):
        if file.name != "__init__.py":
            yield file.relative_to(ROOT).as_posix(), [file]
    for init in sorted((ROOT / package).rglob("__init__.py")):
        files = sorted(init.parent.glob("*.py"))
        if init.parent != ROOT / package and len(files) > 1:
            yield init.parent.relative_to(ROOT).as_posix() + "/", files


def _imported(files: list[Path]) -> Iterator[Path]:
    """Paths of what is imported, under TYPE_CHECKING and inside functions, too."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (Path(*alias.name.split(".")) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (Path(*node.module.split("."), alias.name) for alias in node.names)


def _room_of(imported: Path, rooms: dict[str, list[Path]]) -> str:
    """The innermost room, or lone file, of what is imported."""
    for at in (imported, *imported.parents):
        for name in (f"{at.as_posix()}.py", f"{at.as_posix()}/"):
            if name in rooms:
                return name
    return ""


def _floors(below: dict[str, set[str]]) -> dict[str, int]:
    """The number of each: one above the highest that it imports from. Raises ValueError for a circle."""
    floors: dict[str, int] = {}
    while len(floors) < len(below):
        ready = {name for name, needs in below.items() if name not in floors and needs <= floors.keys()}
        if not ready:
            raise ValueError(f"a circle among {', '.join(sorted(below.keys() - floors.keys()))}")
        floors |= {name: max((floors[one] + 1 for one in below[name]), default=0) for name in ready}
    return floors


def _sentence(name: str) -> str:
    file = ROOT / name / "__init__.py" if name.endswith("/") else ROOT / name
    return " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].split())


def _line(head: str, text: str) -> list[str]:
    """The text beside the head, wrapped."""
    lines, at = [], head
    for word in text.split():
        if len(at) + 1 + len(word) > WIDTH:
            lines.append(at)
            at = " " * (len(head) - 1)
        at += f" {word}"
    return [*lines, at]
