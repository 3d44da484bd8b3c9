"""A run of the arena, written to a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from api.evaluate.estimators import write_whole

if TYPE_CHECKING:
    from api.run.progress import Stages


def run_arena(
    out: Path,
    estimators: Sequence[str],
    ours: bool,
    seeds: range,
    worlds: Sequence[str] | None,
    jobs: int,
    stages: Stages,
) -> str:
    """answers.jsonl, table.md and table.json in `out`; returns the table. jobs: processes, 0 for one a core.

    Raises ValueError for settings out of range and for estimators that cannot be found, before anything is written.
    """
    from simulator.arena.entries import OURS
    from simulator.arena.run import run
    from simulator.arena.table import by, markdown, summarise

    entries = list(dict.fromkeys([*estimators, *(OURS if ours else ())]))
    if not entries:
        raise ValueError("no estimator; expected --estimator FILE.py:FUNCTION, or --ours")
    if not seeds or min(seeds) < 0:
        raise ValueError(f"{len(seeds)} seeds from {seeds.start}; expected at least one, from 0 on")
    if jobs < 0:
        raise ValueError(f"jobs is {jobs}; expected at least 0")
    tick = stages.stage(f"{len(seeds)} seeds, {len(entries)} estimators")
    rows = run(entries, seeds, out / "answers.jsonl", jobs or os.cpu_count() or 1, tick, worlds)
    stages.finish()
    table = markdown(rows)
    write_whole(out / "table.md", table)
    figures = {"all": summarise(rows), "logging": by(rows, "logging"), "world": by(rows, "world")}
    write_whole(out / "table.json", json.dumps(figures, indent=1))
    return table
