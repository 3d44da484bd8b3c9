"""A study of page estimators in a simulated world, written to a directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.run.progress import Stages


def run_study(
    out: Path,
    *,
    world: str,
    seed: int,
    pages: int,
    logs: int,
    policies: int,
    epsilon: float,
    estimators: tuple[str, ...] | None,
    jobs: int,
    stages: Stages,
) -> dict[str, Any]:
    """selection.json ({estimator: figures}), study.json (every estimate) and study.svg in `out`; returns the figures.

    jobs: processes, 0 for one a core. Raises ValueError for settings out of range, before anything is written.
    """
    from simulator.study.evaluation import ESTIMATORS, StudyConfig, describe_study, study, summarise_study
    from simulator.study.plot import study_plot
    from simulator.study.selection import SCORERS

    if not 2 <= policies <= len(SCORERS):
        raise ValueError(f"policies is {policies}; expected 2 to {len(SCORERS)}")
    if jobs < 0:
        raise ValueError(f"jobs is {jobs}; expected at least 0")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected at least 0")
    config = StudyConfig(
        world=world,
        seed=seed,
        pages=pages,
        logs=logs,
        epsilon=epsilon,
        estimators=ESTIMATORS if estimators is None else estimators,
        # A few of them are taken from all kinds.
        scorers=tuple(SCORERS[k * len(SCORERS) // policies] for k in range(policies)),
    )
    out.mkdir(parents=True, exist_ok=True)
    tick = stages.stage(f"{logs} logs of {pages:,} pages, {world}")
    tick(0, logs)
    results = study(config, jobs or os.cpu_count() or 1, tick)
    stages.finish()
    summary = summarise_study(results)
    title = f"{world}: {logs} logs of {pages:,} pages, {len(config.scorers)} policies, seed {seed}"
    write_whole(out / "study.json", json.dumps(describe_study(config, results)))
    write_whole(out / "study.svg", study_plot(summary, title))
    write_whole(out / "selection.json", json.dumps(summary, indent=1))
    return summary


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is never seen half written."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
