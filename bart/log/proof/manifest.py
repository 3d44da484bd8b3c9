"""What an export can prove of itself: `_proof.json` beside its days, with the chain and the hash of every file.

A closed day has `_leaves` beside its pages: sequence number and leaf of each, in the order of the rows; they give the
root that the chain has. Which days are being written is told before the first file changes, so that one that a kill
left half-written is known as such. Names begin with an underscore, which readers of Parquet data sets pass over.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from bart.errors import LogError
from bart.log.proof.chain import Entry, entry_of, sealed
from bart.log.proof.merkle import HASH_BYTES
from bart.log.store.files import day_directory, write_atomically

FILE = "_proof.json"
LEAVES = "_leaves"
FORMAT = 1
_LEAF = struct.Struct(f"<q{HASH_BYTES}s")


@dataclass(frozen=True, slots=True)
class Day:
    """One exported day. entry: number of the entry whose root its pages give, None where it was not closed yet.

    files: sha256 by name.
    """

    pages: int
    entry: int | None
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The chain as it was at the last export, the days that are there, and those that are being written.

    others: files beside the days (tombstones), sha256 by name. keyed: sealed with a key; seal: of all of it.
    """

    entries: tuple[Entry, ...] = ()
    days: dict[str, Day] = field(default_factory=dict)
    writing: tuple[str, ...] = ()
    others: dict[str, str] = field(default_factory=dict)
    keyed: bool = False
    seal: str = ""

    def body(self) -> bytes:
        """What is sealed."""
        fields = {name: value for name, value in asdict(self).items() if name != "seal"}
        return f"bart log export {FORMAT}\0".encode() + json.dumps(fields, sort_keys=True).encode()

    def fits(self, key: bytes | None) -> bool:
        """Whether its seal does; True too where it has a key and none is given."""
        return (self.keyed and key is None) or self.seal == sealed(key if self.keyed else None, self.body())


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of an export, None where it has none. Raises LogError for one that cannot be read."""
    file = directory / FILE
    try:
        found: Any = json.loads(file.read_text())
        if found.pop("format") != FORMAT:
            raise LogError(f"{file} is of another format; expected {FORMAT}: update the software that reads it")
        return Manifest(
            tuple(entry_of(entry) for entry in found["entries"]),
            {str(day): Day(**told) for day, told in found["days"].items()},
            tuple(found["writing"]),
            dict(found["others"]),
            bool(found["keyed"]),
            str(found["seal"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, LogError):
            raise
        raise LogError(f"{file} cannot be read: {type(error).__name__} {error}") from None


class Writing:
    """An export while it is written; of `writing`."""

    def __init__(self, directory: Path, before: Manifest, entries: Sequence[Entry], key: bytes | None) -> None:
        self.directory, self.key = directory, key
        self.entries, self.days, self.others = tuple(entries) or before.entries, dict(before.days), dict(before.others)

    def done(self, day: date, entry: int | None, pages: int) -> None:
        """Takes a day as it lies there now; it is gone where it has no page."""
        folder = day_directory(self.directory, day)
        name = day.isoformat()
        if not pages:
            (folder / LEAVES).unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            self.days.pop(name, None)
            return
        if entry is None:
            (folder / LEAVES).unlink(missing_ok=True)
        there = [folder / LEAVES] if entry is not None else []
        self.days[name] = Day(pages, entry, {f.name: file_hash(f) for f in [*folder.glob("part-*.parquet"), *there]})

    def note(self, name: str) -> None:
        """Takes a file beside the days as it is now."""
        self.others[name] = file_hash(self.directory / name)

    def put(self, unfinished: Iterable[str]) -> None:
        """Writes the manifest."""
        key = self.key
        made = Manifest(self.entries, self.days, tuple(sorted(unfinished)), self.others, key is not None)
        text = {"format": FORMAT, **asdict(made), "seal": sealed(key, made.body())}

        def write(beside: Path) -> None:
            beside.write_text(json.dumps(text, sort_keys=True))

        write_atomically(self.directory / FILE, write)


@contextmanager
def writing(directory: Path, days: Iterable[date], entries: Sequence[Entry], key: bytes | None) -> Iterator[Writing]:
    """Tells which days are about to be written, and at the end what they hold; on an error they stay unfinished.

    Raises LogError where the manifest that is there was altered, or is sealed with a key that was not given.
    """
    before = read_manifest(directory)
    if before is not None and before.keyed and key is None:
        raise LogError(f"{directory} is proven with a key; expected it here too (log.proof_key, --proof-key)")
    if before is not None and not before.fits(key):
        raise LogError(f"{directory / FILE} was altered, or the key is another; verify the export")
    made = Writing(directory, before or Manifest(), entries, key)
    names = {day.isoformat(): _files_of(directory, day.isoformat()) for day in days}
    others = set(before.writing) - set(names) if before is not None else set()
    made.put({*others, *names})
    try:
        yield made
    except BaseException:
        changed = {name for name, files in names.items() if _files_of(directory, name) != files}
        if before is None and not changed:
            (directory / FILE).unlink()
        else:
            left = Writing(directory, before or Manifest(), (), key)
            left.put(others | changed | (set(before.writing) if before is not None else set()))
        raise
    made.put(others)


def _files_of(directory: Path, name: str) -> dict[str, tuple[int, int]]:
    """The files of a day, with what changes when one is replaced."""
    found = sorted(directory.glob(f"date={name}/*"))
    return {file.name: (stat.st_ino, stat.st_mtime_ns) for file in found for stat in (file.stat(),)}


def write_leaves(folder: Path, leaves: Sequence[tuple[int, bytes]]) -> None:
    """Writes the leaves of a closed day beside its pages."""
    body = b"".join(_LEAF.pack(seq, one) for seq, one in leaves)

    def write(beside: Path) -> None:
        beside.write_bytes(body)

    write_atomically(folder / LEAVES, write)


def read_leaves(folder: Path) -> list[tuple[int, bytes]]:
    """(sequence, leaf) of each page of a day. Raises LogError for a file that is damaged."""
    file = folder / LEAVES
    try:
        return list(_LEAF.iter_unpack(file.read_bytes()))
    except (OSError, struct.error) as error:
        raise LogError(f"{file} cannot be read: {error}") from None


def file_hash(file: Path) -> str:
    """The sha256 of a file."""
    digest = sha256()
    with file.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
