"""Whether an export is what its manifest says: its files, its pages and their outcomes, day by day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from bart.errors import LogError
from bart.log.proof.chain import Flaw, flaws_of
from bart.log.proof.check import Kept, Proof, kept_flaws
from bart.log.proof.manifest import FILE, LEAVES, Day, Manifest, file_hash, read_leaves, read_manifest
from bart.log.proof.merkle import bucket_roots, day_root, leaves
from bart.log.record.columns import outcome_of
from bart.log.record.outcomes import Outcomes
from bart.log.store.files import day_directory, export_days

PROVABLE = 3  # the first version of exports that may be proven


class ExportProof:
    """Takes the pages of an export in their order, and says at the end what is wrong."""

    def __init__(self, directory: Path, key: bytes | None, kept: Sequence[Kept]) -> None:
        self._directory, self._key, self._kept = directory, key, kept
        self._flaws: list[Flaw] = []
        self._leaves: dict[str, list[tuple[int, bytes]]] = {}
        self._pages: dict[str, int] = {}
        self._named: set[str] = set()  # days of which a page was named
        self._older: set[str] = set()  # days with a file of a version that could prove nothing
        try:
            found = read_manifest(directory)
        except LogError as error:
            self._flaws.append(Flaw("", "", str(error)))
            found = None
        self._manifest = found or Manifest()
        self._there = found is not None
        for name, day in self._manifest.days.items():
            if day.entry is not None and name not in self._manifest.writing:
                self._take_leaves(name)

    def file(self, day: str, version: int) -> None:
        """One file of a day, before its pages. Without a key an older version than proofs are of says nothing."""
        if version < PROVABLE and self._key is None:
            self._older.add(day)

    def is_unfinished(self, day: str) -> bool:
        """Whether an export of that day was killed: it is to be exported again."""
        return day in self._manifest.writing

    def row(self, day: str, row: dict[str, Any]) -> None:
        """One page, as it lies in the directory of a day."""
        at = self._pages.get(day, 0)
        self._pages[day] = at + 1
        known = self._leaves.get(day)
        if known is None or day in self._named or day in self._older:
            return
        request_id = str(row["request_id"])
        try:
            seq, expected = known[at]
            outcome = Outcomes.of([outcome_of(row)])
            fits = leaves([seq], [request_id], [bytes(row["checksum"])], outcome) == [expected]
        except (IndexError, KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            self._named.add(day)
            self._flaws.append(Flaw(day, request_id, "is not what it was when its day was closed: altered"))

    def proof(self) -> Proof | None:
        """What the manifest says; None for an export that has none and needs none."""
        manifest, key = self._manifest, self._key
        if not self._there and not self._flaws and key is None and not self._kept:
            return None
        if not self._there and not self._flaws:
            self._flaws.append(Flaw("", "", f"{FILE} is missing, so nothing of the export is proven"))
        if self._there:
            self._flaws += flaws_of(manifest.entries, key)
            if not manifest.fits(key):
                self._flaws.append(Flaw("", "", f"{FILE} is not what was sealed, or the key is another"))
            elif key is not None and not manifest.keyed:
                self._flaws.append(Flaw("", "", f"{FILE} is not sealed with a key, although one is given"))
        self._flaws += kept_flaws(manifest.entries, self._kept)
        for name, told in sorted(manifest.days.items()):
            if name not in manifest.writing and name not in self._older:
                self._check_day(name, told)
        for day in export_days(self._directory) if self._there else ():
            if day.isoformat() not in {*manifest.days, *manifest.writing}:
                self._flaws.append(Flaw(day.isoformat(), "", "the day is not one that was exported"))
        for name, digest in manifest.others.items():
            if not _same(self._directory / name, digest):
                self._flaws.append(Flaw("", "", f"{name} is not what was written: it was altered"))
        self._flaws.sort(key=lambda flaw: (flaw.day == "", flaw.day))
        checked = manifest.keyed and key is not None
        unfinished = len(manifest.writing)
        days = sum(day.entry is not None for day in manifest.days.values())
        return Proof(len(manifest.entries), days, manifest.keyed, checked, unfinished, tuple(self._flaws))

    def _take_leaves(self, name: str) -> None:
        try:
            self._leaves[name] = read_leaves(day_directory(self._directory, date.fromisoformat(name)))
        except (LogError, ValueError) as error:
            self._flaws.append(Flaw(name, "", str(error)))

    def _check_day(self, name: str, told: Day) -> None:
        """The files of a day, how many pages it has, and its root."""
        folder = self._directory / f"date={name}"
        there = {file.name for file in folder.glob("part-*.parquet")} | (
            {LEAVES} if (folder / LEAVES).exists() else set()
        )
        for file in sorted(there | set(told.files)):
            if file not in told.files:
                self._flaws.append(Flaw(name, "", f"{file} is not a file that was exported"))
            elif not _same(folder / file, told.files[file]):
                self._flaws.append(Flaw(name, "", f"{file} is not what was exported: it is missing or was altered"))
        if self._pages.get(name, 0) != told.pages:
            text = f"{self._pages.get(name, 0):,} pages can be read; {told.pages:,} were exported"
            self._flaws.append(Flaw(name, "", text))
        known = self._leaves.get(name)
        if told.entry is None or known is None:
            return
        entries = self._manifest.entries
        entry = entries[told.entry] if told.entry < len(entries) else None
        fits = entry is not None and entry.day == name and entry.count == len(known)
        if not fits or entry is None or day_root(bucket_roots(known)).hex() != entry.root:
            self._flaws.append(Flaw(name, "", f"its pages do not give the root of entry {told.entry}"))


def _same(file: Path, digest: str) -> bool:
    try:
        return file_hash(file) == digest
    except OSError:
        return False
