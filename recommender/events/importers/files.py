"""The files of an export: one file, a folder or a ZIP, gzip unpacked, without what is no data.

Other engines leave files beside a table: markers (`_SUCCESS`), checksums, parts that were not finished. Names that
begin with `_` or `.` and names of unfinished parts are such; so is an empty file beside others.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from bart.errors import DataError

ZIP_LIMIT = 4 * 1024**3  # bytes that the files of a ZIP may unpack to
_UNFINISHED = (".crc", ".tmp", ".temp", ".inprogress", ".part", ".partial", ".crdownload", ".download", ".lock", ".swp")
_NEVER = (".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".mp3", ".ogg", ".py", ".sh", ".md", ".toml", ".db")
_HEAD = 256 * 1024
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One file of an export. name: as it is told to people."""

    name: str
    path: Path
    archive: zipfile.ZipFile | None = None
    member: str = ""

    def open(self) -> IO[bytes]:
        """The bytes, unpacked. The caller closes it."""
        if self.archive is not None:
            member: Any = self.archive.open(self.member)
            return cast(IO[bytes], gzip.open(member) if member.peek(2)[:2] == _GZIP else member)
        with self.path.open("rb") as file:
            packed = file.read(2) == _GZIP
        return cast(IO[bytes], gzip.open(self.path)) if packed else self.path.open("rb")

    def head(self, size: int = _HEAD) -> bytes:
        """The first bytes, unpacked."""
        with self.open() as file:
            return file.read(size)

    def whole(self) -> io.BytesIO:
        """All bytes in memory: for readers that jump about, of files in a ZIP."""
        with self.open() as file:
            return io.BytesIO(file.read())


@dataclass(frozen=True, slots=True)
class Files:
    """The files in order of their names; what was left aside, a line each."""

    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = field(default=())


def source_files(path: Path, zip_limit: int = ZIP_LIMIT) -> Files:
    """The files of a path. Raises DataError for none, and for a ZIP that unpacks beyond `zip_limit` bytes."""
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a file, a folder or a ZIP of events")
    notes: list[str] = []
    if path.is_file():
        found = list(_members(path, zip_limit, notes)) if _is_zip(path) else [SourceFile(str(path), path)]
    else:
        found = list(_folder(path, zip_limit, notes))
    if not found:
        raise DataError(f"{path} holds no file that could be read as events")
    return Files(tuple(found), tuple(notes))


def no_data(name: str) -> bool:
    """Whether a file's name says that it is a marker or an unfinished part."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(("_", ".")) and part not in (".", "..") for part in parts)
    last = parts[-1].lower() if parts else ""
    unfinished = last.endswith(_UNFINISHED) or ".inprogress." in last or last.endswith("~")
    return hidden or unfinished or last.endswith(_NEVER)


def _folder(folder: Path, zip_limit: int, notes: list[str]) -> Iterator[SourceFile]:
    aside = 0
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        name = file.relative_to(folder).as_posix()
        if no_data(name) or file.stat().st_size == 0:
            aside += 1
        elif _is_zip(file):
            yield from _members(file, zip_limit, notes, f"{name}:")
        else:
            yield SourceFile(name, file)
    if (folder / "_delta_log").is_dir():
        notes.append(f"{folder} is a Delta table: files of its older versions are read too; export it to be sure")
    if aside:
        notes.append(f"{aside:,} files left aside: markers, unfinished parts and what is no table")


def _members(path: Path, zip_limit: int, notes: list[str], before: str = "") -> Iterator[SourceFile]:
    """before: stands before the names, so that files of the same name in two ZIPs are two."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from error
    members = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.filename == "[Content_Types].xml" for info in members):
        raise DataError(f"{path} is an Office file; expected a table saved as CSV")
    wanted = sorted((m for m in members if not no_data(m.filename) and m.file_size), key=lambda m: m.filename)
    size = sum(info.file_size for info in wanted)
    if size > zip_limit:
        raise DataError(
            f"{path} would unpack to {size / 1024**2:,.0f} MB; expected at most {zip_limit / 1024**2:,.0f} MB "
            "(events.zip_limit_mb in the settings)"
        )
    if any(info.flag_bits & 1 for info in wanted):
        raise DataError(f"{path} is encrypted; expected a ZIP without a password")
    if len(wanted) < len(members):
        notes.append(f"{len(members) - len(wanted):,} files in {path.name} left aside: no data by their names")
    for info in wanted:
        yield SourceFile(before + info.filename, path, archive, info.filename)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} begins as a ZIP and does not end as one; expected a whole one")
    return True
