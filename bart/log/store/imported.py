"""Lines that an import left out for a reason that may depend on what they earned.

They are kept in the log and told beside its export: whoever judges policies on the rest has to know of them
(`bart.ope.inputs.left_out`). Importing the same file again changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bart.errors import LogError
from bart.log.store.files import write_atomically
from bart.log.store.store import set_meta

FILE = "_left_out.json"
_NAME = "import:"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """rows: lines of the files that were imported and left some out. reasons: how many were left out, by reason."""

    rows: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


def note_left_out(connection: sqlite3.Connection, file: str, found: LeftOut) -> None:
    """Keeps what the import of one file left out. file: a digest of it."""
    for reason, count in {"": found.rows, **found.reasons}.items():
        set_meta(connection, f"{_NAME}{file}:{reason}", count)


def left_out(connection: sqlite3.Connection) -> LeftOut:
    """Of all files that were imported."""
    reasons: Counter[str] = Counter()
    for name, count in connection.execute("SELECT name, value FROM meta WHERE substr(name, 1, 7) = ?", (_NAME,)):
        reasons[name.split(":", 2)[2]] += int(count)
    rows = reasons.pop("", 0)
    return LeftOut(rows, dict(sorted(reasons.items())))


def write_left_out(directory: Path, found: LeftOut) -> bool:
    """Writes it beside the days of an export; whether there is any."""

    def write(beside: Path) -> None:
        beside.write_text(json.dumps(asdict(found), sort_keys=True))

    if found.rows:
        write_atomically(directory / FILE, write)
    return bool(found.rows)


def read_left_out(directory: Path) -> LeftOut:
    """What stands beside an export; none where nothing does. Raises LogError for a file that cannot be read."""
    file = directory / FILE
    try:
        found = json.loads(file.read_text())
        return LeftOut(int(found["rows"]), {str(reason): int(count) for reason, count in found["reasons"].items()})
    except FileNotFoundError:
        return LeftOut()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(f"{file} cannot be read: {type(error).__name__} {error}") from None
