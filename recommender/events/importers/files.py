"""The files of an export: one file, a folder or a ZIP (of ZIPs), gzip and bzip2 unpacked, without what is no data.

Other engines leave files beside a table: markers (`_SUCCESS`), checksums, parts that were not finished. Names that
begin with `_` or `.` and names of unfinished parts are such; so is an empty file beside others.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from bart.errors import DataError

ZIP_LIMIT = 4 * 1024**3  # bytes that the files of a ZIP may unpack to
_UNFINISHED = (".crc", ".tmp", ".temp", ".inprogress", ".part", ".partial", ".crdownload", ".download", ".lock", ".swp")
_NEVER = (".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".mp3", ".ogg", ".py", ".sh", ".md", ".toml", ".db")
_HEAD, _BUFFER = 256 * 1024, 64 * 1024
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
_ZIP, _EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_DEPTH = 3  # ZIPs in ZIPs
_OFFICE = "[Content_Types].xml"


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One file of an export. name: as it is told to people."""

    name: str
    path: Path
    archive: zipfile.ZipFile | None = None
    member: str = ""

    def open(self) -> IO[bytes]:
        """The bytes, unpacked. The caller closes it; DataError, while it is read, where it cannot be unpacked."""
        if self.archive is not None:
            with _whole(self.name):
                member: Any = self.archive.open(self.member)
                unpack = _PACKED.get(member.peek(2)[:2])
        else:
            member = self.path.open("rb")
            unpack = _PACKED.get(member.read(2))
            member.seek(0)
            if unpack is None:
                return cast(IO[bytes], member)
        return cast(IO[bytes], io.BufferedReader(_Unpacked(member, unpack, self.name), _BUFFER))

    def head(self, size: int = _HEAD) -> bytes:
        """The first bytes, unpacked."""
        with self.open() as file:
            return file.read(size)

    def whole(self) -> io.BytesIO:
        """All bytes in memory: for readers that jump about, of files in a ZIP."""
        with self.open() as file:
            return io.BytesIO(file.read())


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """One clear error for a packed file that is damaged or ends before its end."""
    try:
        yield
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{name} cannot be unpacked: {error}; expected a whole file") from error


class _Unpacked(io.RawIOBase):
    """The bytes of a packed file."""

    def __init__(self, packed: IO[bytes], unpack: Any, name: str) -> None:
        self._packed, self._name = packed, name
        self._stream = packed if unpack is None else unpack(packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _whole(self._name):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        self._packed.close()  # gzip and bz2 leave open what they did not open
        super().close()


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
    yield from _unpacked(archive, path, _Left(zip_limit, zip_limit), notes, before, _DEPTH)


@dataclass(slots=True)
class _Left:
    """Bytes that may still be unpacked, of the limit."""

    size: int
    limit: int


def _unpacked(
    archive: zipfile.ZipFile, path: Path, left: _Left, notes: list[str], before: str, depth: int
) -> Iterator[SourceFile]:
    """The files of a ZIP, and of the ZIPs in it."""
    members = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.filename == _OFFICE for info in members):
        raise DataError(f"{path} is an Office file; expected a table saved as CSV")
    wanted = sorted((m for m in members if not no_data(m.filename) and m.file_size), key=lambda m: m.filename)
    size = sum(info.file_size for info in wanted)
    if size > left.size:
        whole = left.limit - left.size + size
        raise DataError(
            f"{path} would unpack to {whole / 1024**2:,.0f} MB; expected at most {left.limit / 1024**2:,.0f} MB "
            "(events.zip_limit_mb in the settings)"
        )
    left.size -= size
    if any(info.flag_bits & 1 for info in wanted):
        raise DataError(f"{path} is encrypted; expected a ZIP without a password")
    if len(wanted) < len(members):
        notes.append(f"{len(members) - len(wanted):,} files in {path.name} left aside: no data by their names")
    for info in wanted:
        file = SourceFile(before + info.filename, path, archive, info.filename)
        if file.head(4) != _ZIP:
            yield file
            continue
        if not depth:
            raise DataError(f"{file.name} in {path} is a ZIP too deep in others; expected it unpacked")
        try:
            inner = zipfile.ZipFile(file.whole())
            if _OFFICE in inner.namelist():
                notes.append(f"{file.name} left aside: an Office file; save its table as CSV")
                continue
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{file.name} in {path} cannot be unpacked: {error}") from error
        yield from _unpacked(inner, path, left, notes, f"{file.name}:", depth - 1)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    if head == _EMPTY_ZIP:
        raise DataError(f"{path} is an empty ZIP; expected one of events")
    if head != _ZIP:
        return False
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} begins as a ZIP and does not end as one; expected a whole one")
    return True
