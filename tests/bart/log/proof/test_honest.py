"""What an honest service does to its log is never accused; what is proven is what was reported."""

from __future__ import annotations

from pathlib import Path

import proof_world as world
import pytest

from bart.log.care.verify import verify


@pytest.mark.parametrize("seed", range(100))
def test_no_honest_history_is_accused(seed: int, tmp_path: Path) -> None:
    key = world.KEY if seed % 2 else None
    path, export = tmp_path / "log.sqlite", tmp_path / "export"
    world.history(path, export, seed, key)
    assert verify(path, proof_key=key).ok, verify(path, proof_key=key)
    assert verify(path).ok
    if any(export.glob("date=*/part-*.parquet")):
        assert verify(export, proof_key=key).ok, verify(export, proof_key=key)
