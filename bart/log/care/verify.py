"""`verify`: whether a whole log, or an export of it, can be trusted; a damaged record does not hide the others.

Per record: the checksum, the searchable columns, the propensities to the last bit, the draw from the seed, the pmfs.
Per closed day: whether its records and their outcomes are those under its root in the chain, see `bart.log.proof`.
Over all records: per choice the mean of 1 / (actions left x propensity) is 1, see `means`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bart.log.care.findings import Findings, Problem, VerifyResult
from bart.log.care.verify_export import verify_export
from bart.log.care.verify_log import verify_log
from bart.log.proof.check import Kept
from bart.log.proof.check_export import ExportProof
from bart.page.policy import PagePolicy
from bart.types import Decision

__all__ = ["Problem", "VerifyResult", "verify"]


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
    check = Findings(path, policies or {})
    if path.is_dir():
        verify_export(path, check, ExportProof(path, proof_key, kept))
    else:
        verify_log(path, check, proof_key, kept)
    return check.result()
