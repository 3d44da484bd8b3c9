"""The check of an export: its rows by their checksums and days, its tombstones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.errors import LogError
from bart.log.care.erasure import TOMBSTONE_FILE, tombstone_checksum
from bart.log.care.findings import Findings, said
from bart.log.proof.check_export import ExportProof
from bart.log.record.columns import decision_of
from bart.log.record.parse import block_of
from bart.log.record.record import as_written, checksum
from bart.log.store.files import export_files, open_export, upgraded
from bart.types import Decision


def verify_export(directory: Path, check: Findings, proof: ExportProof) -> None:
    """Checks a directory of exported pages. proof: of its closed days, filled and told to `check`."""
    files = export_files(directory)
    tombstones = directory / TOMBSTONE_FILE
    if not files and not tombstones.exists():
        raise LogError(f"{directory} holds no exported pages; expected date=YYYY-MM-DD/part-*.parquet")
    seen: set[str] = set()
    for file in files:
        try:
            parquet, version = open_export(file)
        except LogError as error:
            check.problem("", str(error))
            continue
        proof.file(file.parent.name.removeprefix("date="), version)
        with parquet:
            for group in range(parquet.num_row_groups):
                try:
                    batches = list(parquet.iter_batches(200, row_groups=[group]))
                except (OSError, pa.ArrowException) as error:
                    check.counts["records"] += parquet.metadata.row_group(group).num_rows
                    check.problem("", f"{file}, row group {group} cannot be read: {error}")
                    continue
                for batch in batches:
                    waiting: list[Decision] = []
                    for row in upgraded(batch, version).to_pylist():
                        day = file.parent.name.removeprefix("date=")
                        proof.row(day, row)
                        if not (proof.is_unfinished(day) and row["request_id"] in seen):  # of the export before, too
                            decision = _check_row(row, file, version, seen, check)
                            if decision is not None:
                                waiting.append(decision)
                    check.block(block_of(waiting), np.ones(len(waiting), dtype=np.bool_), waiting.__getitem__)
    if tombstones.exists():
        _check_tombstones(tombstones, seen, check)
    check.proof = proof.proof()


def _check_tombstones(file: Path, seen: set[str], check: Findings) -> None:
    """Each tombstone of an export is as it was made, and its page is not there."""
    try:
        rows = pq.read_table(file, columns=["request_id", "erased_us", "checksum"]).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        check.problem("", f"{file} cannot be read: {error}")
        return
    for row in rows:
        check.counts["tombstones"] += 1
        request_id = str(row["request_id"])
        if row["checksum"] != tombstone_checksum(request_id, row["erased_us"]):
            check.problem(request_id, "checksum does not fit the tombstone: it was altered")
        if request_id in seen:
            check.problem(request_id, "is in the export although it was erased")


def _check_row(row: dict[str, object], file: Path, version: int, seen: set[str], check: Findings) -> Decision | None:
    """The decision of a row, where the row is as it was written."""
    check.counts["records"] += 1
    request_id = str(row["request_id"])
    try:
        decision = decision_of(row)
        fits = checksum(decision, as_written(version)) == row["checksum"]
    except Exception as error:  # an altered row can provoke any
        check.problem(request_id, f"does not hold a decision ({said(error)}): it was altered")
        return None
    problem = None
    if not fits:
        problem = "checksum does not fit the row: it was altered"
    elif request_id in seen:
        problem = "is in the export more than once"
    elif file.parent.name != f"date={decision.decided_at.date().isoformat()}":
        problem = f"was decided on {decision.decided_at.date().isoformat()}, but lies in {file.parent.name}"
    seen.add(request_id)
    if problem is not None:
        check.problem(request_id, problem)
        return None
    return decision
