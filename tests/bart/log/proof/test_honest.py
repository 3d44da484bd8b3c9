"""What an honest service does to its log is never accused; what is proven is what was reported."""

from __future__ import annotations

from pathlib import Path

import proof_world as world
import pytest

from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.proof.check import check_log


@pytest.mark.parametrize("seed", range(100))
def test_no_honest_history_is_accused(seed: int, tmp_path: Path) -> None:
    key = world.KEY if seed % 2 else None
    path, export = tmp_path / "log.sqlite", tmp_path / "export"
    world.history(path, export, seed, key)
    assert verify(path, proof_key=key).ok, verify(path, proof_key=key)
    with DecisionLog(path, create=False) as log:
        assert check_log(log.reading, None).flaws == ()  # who has no key accuses nobody either
    if any(export.glob("date=*/part-*.parquet")):
        assert verify(export, proof_key=key).ok, verify(export, proof_key=key)
