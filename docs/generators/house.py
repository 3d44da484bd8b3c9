"""The house: the way that data goes through its rooms, and the rooms on their floors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 100
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
    """Top floor first; a line a room with the sentence that its file or `__init__.py` begins with."""
    rooms = [_path(room) for room in _rooms() if room.split(".")[0] == package]
    wide = max(len(room) for room in rooms)
    lines = [line for room in reversed(rooms) for line in _line(f"{room:{wide}} ", _sentence(room))]
    return "\n".join([f"<!-- shown: the rooms of {package} -->", "```text", *lines, "```"])


def _rooms() -> list[str]:
    """From the ground up, by the one list that holds it: ROOMS of tests/test_imports.py."""
    for node in ast.parse((ROOT / "tests/test_imports.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS":
            return str(ast.literal_eval(node.value)).split()
    raise ValueError("tests/test_imports.py has no list ROOMS")


def _path(room: str) -> str:
    place = room.replace(".", "/")
    return f"{place}/" if (ROOT / place).is_dir() else f"{place}.py"


def _sentence(name: str) -> str:
    file = ROOT / name / "__init__.py" if name.endswith("/") else ROOT / name
    return " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].split())


def _line(head: str, text: str) -> list[str]:
    """The text beside the head, wrapped."""
    lines, at = [], head
    for word in text.split():
        if len(at) + 1 + len(word) > WIDTH:
            lines.append(at)
            at = " " * len(head)
        at += f" {word}"
    return [*lines, at]
