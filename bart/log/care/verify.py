"""`verify`: whether a whole log, or an export of it, can be trusted; a damaged record does not hide the others.

Per record: the checksum, the searchable columns, the propensities to the last bit, the draw from the seed, the pmfs.
Per closed day: whether its records and their outcomes are those under its root in the chain, see `bart.log.proof`.
Over all records: per choice the mean of 1 / (actions left x propensity) is 1, see `means`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.errors import LogError
from bart.log.care.erasure import TOMBSTONE_FILE, tombstone_checksum
from bart.log.care.means import ChoiceMean, MeanWeights
from bart.log.care.replay import IMPORTED, impossible_propensity, rebuilder, replay
from bart.log.care.replay_batch import replay_many
from bart.log.decision_log import DecisionLog
from bart.log.proof.check import Kept, Proof, check_log
from bart.log.proof.check_export import ExportProof
from bart.log.record.columns import decision_of
from bart.log.record.record import as_written, checksum, pack_shown, to_us
from bart.log.store.files import export_files, open_export, upgraded
from bart.log.store.schema import SCHEMA_VERSION
from bart.log.store.store import SELECT, StoredDecision
from bart.page.policy import PagePolicy
from bart.types import Decision

MOST_PROBLEMS = 1000  # kept; the count goes on
AT_ONCE = 200  # records read and joined together


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one record. request_id: "" where it cannot be read any more."""

    request_id: str
    text: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was found. ok: nothing wrong.

    records: looked at. verified: replayed without a problem. problem_count may exceed the problems that are kept.
    excluded: choices where some action has no probability (epsilon 0, pins): they cannot enter the means. forced: pages
    whose seed or time was set by hand: replayed, but not in the means. imported, unknown_policy: not verified, because
    nothing here can replay them; their checksum fits and their propensities lie in (0, 1]. proof: what the chain of
    closed days says, with flaws of its own; None where there is none to say it (an older version).
    """

    path: Path
    records: int
    verified: int
    problem_count: int
    problems: tuple[Problem, ...]
    means: tuple[ChoiceMean, ...]
    excluded: int
    forced: int
    imported: int
    unknown_policy: int
    tombstones: int
    proof: Proof | None = None

    @property
    def ok(self) -> bool:
        proven = self.proof is None or not self.proof.flaws
        return proven and self.problem_count == 0 and all(mean.passed for mean in self.means)


def verify(
    path: str | Path,
    policies: Mapping[str, Callable[[Decision], PagePolicy]] | None = None,
    *,
    proof_key: bytes | None = None,
    kept: Sequence[Kept] = (),
) -> VerifyResult:
    """Checks a decision log (an SQLite file) or an export (a directory).

    proof_key: that the chain was sealed with; without it the seals are not checked. kept: lines of the chain that were
    printed and kept elsewhere.
    policies: how to rebuild the page policy from a record, by the policy's recorded name, for those that
    `replay.POLICIES` does not know. Raises LogError only where the path as a whole cannot be opened.
    """
    path = Path(path)
    check = _Check(path, policies or {})
    if path.is_dir():
        _verify_export(path, check, ExportProof(path, proof_key, kept))
    else:
        _verify_log(path, check, proof_key, kept)
    return check.result()


class _Check:
    """Collects problems and means while records pass by."""

    def __init__(self, path: Path, policies: Mapping[str, Callable[[Decision], PagePolicy]]) -> None:
        self.path = path
        self.policies = policies
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.counts: Counter[str] = Counter()
        self.weights = MeanWeights()
        self.proof: Proof | None = None

    def problem(self, request_id: str, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(request_id, text))

    def decisions(self, decisions: Sequence[Decision], good: Sequence[bool]) -> None:
        """Replays decisions that could be read. good: whether all else is well with each."""
        many = np.array([decision.policy not in self.policies for decision in decisions], dtype=np.bool_)
        together = np.flatnonzero(many)
        replayed = np.zeros(len(decisions), dtype=np.bool_)
        replayed[together], moments = replay_many([decisions[i] for i in together.tolist()])
        self.weights.add(moments)
        for decision, done, well in zip(decisions, replayed.tolist(), good, strict=True):
            if done:
                self.counts["forced"] += decision.forced
            else:
                try:
                    done = self._decision(decision)
                except Exception as error:
                    text = f"does not hold a decision ({_said(error)}): it was altered"
                    self.problem(decision.request_id, text)
            self.counts["verified"] += bool(done and well)

    def _decision(self, decision: Decision) -> bool:
        """Replays one decision; whether it was replayed and all was well."""
        policy = self.policies.get(decision.policy)
        if policy is None and rebuilder(decision.policy) is None:
            problems = impossible_propensity(decision)
            for text in problems:
                self.problem(decision.request_id, text)
            if not problems:
                self.counts["imported" if decision.policy.startswith(IMPORTED) else "unknown_policy"] += 1
            return False
        problems, moments = replay(decision, policy)
        for text in problems:
            self.problem(decision.request_id, text)
        if decision.forced:
            self.counts["forced"] += 1
        elif not problems:
            self.weights.add(moments)
        return not problems

    def result(self) -> VerifyResult:
        return VerifyResult(
            path=self.path,
            records=self.counts["records"],
            verified=self.counts["verified"],
            problem_count=self.problem_count,
            problems=tuple(self.problems),
            means=self.weights.means(),
            excluded=self.weights.excluded,
            forced=self.counts["forced"],
            imported=self.counts["imported"],
            unknown_policy=self.counts["unknown_policy"],
            tombstones=self.counts["tombstones"],
            proof=self.proof,
        )


# ---------------------------------------------------------------------------------------------------------- the log


def _verify_log(path: Path, check: _Check, key: bytes | None, kept: Sequence[Kept]) -> None:
    with DecisionLog(path, create=False) as log:
        if log.version == SCHEMA_VERSION:
            check.proof = check_log(log.reading, key, kept)
        for rows in _rows(log, check):
            _check_records(log, rows, check)
        _check_rest(log, check)
        _check_file(log, check)


def _can_be_joined(log: DecisionLog, rows: Sequence[StoredDecision]) -> bool:
    """Whether the feedback of all of them is as it should be; where it is not, each is looked at alone."""
    try:
        log.join(rows)
    except Exception:  # whatever an altered record provokes
        return False
    return True


def _check_records(log: DecisionLog, rows: Sequence[StoredDecision], check: _Check) -> None:
    joined = _can_be_joined(log, rows)
    decisions, good = [], []
    for row in rows:
        check.counts["records"] += 1
        try:
            decision = row.decode()
            good.append(_check_columns(row, decision, check) & _is_joined(log, row, joined, check))
            decisions.append(decision)
        except LogError as error:
            check.problem(row.request_id, str(error).removeprefix(f"request {row.request_id!r}: "))
        except Exception as error:  # whatever an altered record provokes, the others are still to be looked at
            check.problem(row.request_id, f"does not hold a decision ({_said(error)}): it was altered")
    check.decisions(decisions, good)


def _is_joined(log: DecisionLog, row: StoredDecision, joined: bool, check: _Check) -> bool:
    """joined: whether all rows are known to be."""
    try:
        if not joined:
            log.join([row])
    except LogError as error:
        check.problem(row.request_id, str(error).removeprefix(f"request {row.request_id!r}: "))
        return False
    return True


def _check_file(log: DecisionLog, check: _Check) -> None:
    """Pages of the file that no query above has read, and indexes that miss a record."""
    try:
        with log.reading() as connection:
            found = [str(text) for (text,) in connection.execute("PRAGMA integrity_check(5)").fetchall()]
    except LogError as error:
        found = [str(error)]
    for text in found if found != ["ok"] else ():
        check.problem("", f"the file is damaged: {text}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _rows(log: DecisionLog, check: _Check) -> Iterator[list[StoredDecision]]:
    """All rows in the order of their request ids, some at once; where some cannot be read, each by its number, so that
    a page of the file that is damaged takes only its own rows along."""
    try:
        with log.reading() as connection:  # the index of request ids holds both, apart from the records
            known = sorted(connection.execute("SELECT seq, request_id FROM decision ORDER BY request_id").fetchall())
    except LogError as error:
        check.problem("", str(error))
        return
    for first in range(0, len(known), AT_ONCE):
        some = known[first : first + AT_ONCE]
        try:
            found = _read(log, [seq for seq, _ in some])
        except LogError:
            found = {}
            for seq, request_id in some:
                try:
                    found |= _read(log, [seq])
                except LogError as error:
                    found[seq] = None
                    check.problem(str(request_id), str(error))
        yield [row for seq, request_id in some if (row := _row(found, seq, request_id, check)) is not None]


def _read(log: DecisionLog, seqs: Sequence[int]) -> dict[int, tuple[object, ...] | None]:
    """Rows by their numbers."""
    query = f"{SELECT} WHERE seq IN ({','.join('?' * len(seqs))})"
    with log.reading() as connection:
        return {row[0]: row for row in connection.execute(query, seqs)}


def _row(
    found: Mapping[int, tuple[object, ...] | None], seq: int, request_id: str, check: _Check
) -> StoredDecision | None:
    """The row of a request; None, counted as a record with its problem, where it is not what it should be."""
    row = found.get(seq, ())
    if row is not None and (not row or row[1] != request_id):
        check.problem(str(request_id), "its record is missing or bears another request id")
    elif row is not None and not all(isinstance(value, kind) for value, kind in zip(row, _KINDS, strict=True)):
        check.problem(str(request_id), "a column holds a value of another type: it was altered")
    elif row is not None:
        return StoredDecision(*row)  # type: ignore[arg-type]
    check.counts["records"] += 1
    return None


_KINDS = (int, str, str, int, bytes, bytes, bytes)


def _check_columns(row: StoredDecision, decision: Decision, check: _Check) -> bool:
    """Whether the columns that are searched say the same as the record."""
    found = (row.request_id, row.user_id, row.decided_us, row.shown)
    kept = (decision.request_id, decision.user_id, to_us(decision.decided_at), pack_shown(decision.page))
    for name, column, value in zip(("request_id", "user_id", "decided_us", "shown"), found, kept, strict=True):
        if column != value:
            check.problem(row.request_id, f"column {name} is {column!r}; the record has {value!r}")
            return False
    return True


def _check_rest(log: DecisionLog, check: _Check) -> None:
    """Tombstones, and feedback whose decision is gone."""
    try:
        with log.reading() as connection:
            orphans = "SELECT DISTINCT seq FROM feedback WHERE seq NOT IN (SELECT seq FROM decision)"
            for (seq,) in connection.execute(orphans).fetchall():
                check.problem("", f"feedback for record {seq}, which is not in the log")
            for request_id, erased_us, stored in _tombstones(connection):
                check.counts["tombstones"] += 1
                if stored != tombstone_checksum(request_id, erased_us):
                    check.problem(request_id, "checksum does not fit the tombstone: it was altered")
            both = "SELECT request_id FROM tombstone JOIN decision USING (request_id)"
            for (request_id,) in connection.execute(both).fetchall() if log.version > 1 else ():
                check.problem(request_id, "is in the log although it was erased")
    except LogError as error:
        check.problem("", str(error))


def _tombstones(connection: sqlite3.Connection) -> list[tuple[str, int, bytes]]:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tombstone'").fetchone() is None:
        return []
    return connection.execute("SELECT request_id, erased_us, checksum FROM tombstone").fetchall()


# ------------------------------------------------------------------------------------------------------- the export


def _verify_export(directory: Path, check: _Check, proof: ExportProof) -> None:
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
                    check.decisions(waiting, [True] * len(waiting))
    if tombstones.exists():
        _check_tombstones(tombstones, seen, check)
    check.proof = proof.proof()


def _check_tombstones(file: Path, seen: set[str], check: _Check) -> None:
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


def _check_row(row: dict[str, object], file: Path, version: int, seen: set[str], check: _Check) -> Decision | None:
    """The decision of a row, where the row is as it was written."""
    check.counts["records"] += 1
    request_id = str(row["request_id"])
    try:
        decision = decision_of(row)
        fits = checksum(decision, as_written(version)) == row["checksum"]
    except Exception as error:  # an altered row can provoke any
        check.problem(request_id, f"does not hold a decision ({_said(error)}): it was altered")
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
