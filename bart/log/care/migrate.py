"""`migrate`: rewrites a decision log or an export of an older version as the present one.

Version 1 had no experiment arm, no forced mark and no model id (they become empty, false and empty), and its log no
tombstones; a log of version 2 had no chain, which begins with the next closing of windows; exports of version 2 do not
say what boosts and diversity did to the scores (that stays unknown). Each record is checked under its old checksum
before it gets a new one, so that migration cannot launder an altered record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from bart.errors import LogError
from bart.log.decision_log import DecisionLog
from bart.log.proof.manifest import writing
from bart.log.record.columns import SCHEMA, VERSION, decision_of
from bart.log.record.record import as_written, checksum, encode
from bart.log.store.files import export_files, exported_pages, open_export, upgraded, write_batches
from bart.log.store.schema import SCHEMA_VERSION, upgrade
from bart.log.store.store import transaction


@dataclass(frozen=True, slots=True)
class MigrateResult:
    """What was rewritten: records (pages) and files, from the oldest version found to the present one."""

    path: Path
    from_version: int
    to_version: int
    records: int
    files: int


def migrate(path: str | Path, proof_key: bytes | None = None) -> MigrateResult:
    """Migrates a decision log (an SQLite file) or an export (a directory) in place; nothing happens to a present one.

    All or nothing for a log, file by file for an export: an interrupted migration can be repeated. proof_key: of an
    export that is proven with one. Raises LogError for a record whose checksum does not fit, and for a version that
    this code does not know.
    """
    path = Path(path)
    return _migrate_export(path, proof_key) if path.is_dir() else _migrate_log(path)


def migrated(batch: Any, version: int) -> Any:
    """A record batch of an exported file as one of the present version, its checksums made anew after checking."""
    if version == VERSION:
        return batch
    batch = upgraded(batch, version)
    fresh = []
    for row in batch.to_pylist():
        decision = decision_of(row)
        if checksum(decision, as_written(version)) != row["checksum"]:
            raise LogError(f"request {row['request_id']!r}: checksum does not fit the row; verify before migrating")
        fresh.append(checksum(decision))
    place = SCHEMA.get_field_index("checksum")
    return batch.set_column(place, "checksum", pa.array(fresh, pa.binary()))


def _migrate_log(path: Path) -> MigrateResult:
    with DecisionLog(path, create=False) as log:
        before = log.version
        records = 0
        if before < SCHEMA_VERSION:
            with log.maintaining(any_version=True) as connection, transaction(connection):
                upgrade(connection)
                for rows in log.stored_pages() if before == 1 else ():
                    encoded = [encode(row.decode()) for row in rows]
                    connection.executemany(
                        "UPDATE decision SET record = ?, checksum = ? WHERE seq = ?",
                        [(e.record, e.checksum, row.seq) for e, row in zip(encoded, rows, strict=True)],
                    )
                    records += len(rows)
    return MigrateResult(path, before, SCHEMA_VERSION, records, int(before < SCHEMA_VERSION))


def _migrate_export(directory: Path, key: bytes | None) -> MigrateResult:
    found = export_files(directory)
    if not found:
        raise LogError(f"{directory} holds no exported pages; expected date=YYYY-MM-DD/part-*.parquet")
    older = {file: version for file in found if (version := _version(file)) != VERSION}
    records = 0
    days = sorted({date.fromisoformat(file.parent.name.removeprefix("date=")) for file in older})
    if days:
        with writing(directory, days, (), key) as manifest:
            for file in older:
                parquet, version = open_export(file)
                with parquet:
                    metadata = {k: v for k, v in parquet.schema_arrow.metadata.items() if k.startswith(b"bart.log.")}
                    records += write_batches(file, _migrated(parquet, version), metadata)
            for day in days:
                before = manifest.days.get(day.isoformat())
                entry = None if before is None else before.entry
                manifest.done(day, entry, exported_pages(directory, day))
    return MigrateResult(directory, min(older.values(), default=VERSION), VERSION, records, len(older))


def _version(file: Path) -> int:
    parquet, version = open_export(file)
    parquet.close()
    return version


def _migrated(parquet: Any, version: int) -> Iterator[Any]:
    for batch in parquet.iter_batches(1000):
        yield migrated(batch, version)
