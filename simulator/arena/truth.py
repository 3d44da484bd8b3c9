"""What each target is worth in each world of the arena: over the whole population, reading in closed form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from bart.page.batch import batch_decide
from bart.types import Floats
from simulator.arena.logs import some_visits
from simulator.arena.tasks import SCENE, SEED, TARGETS, VERSION, WORLDS
from simulator.loop.truth import page_values

PARTS, VISITS_A_PART = 40, 5_000
_STREAM = 1_000_000_000  # no log has this seed


@dataclass(frozen=True, slots=True, eq=False)
class Truths:
    """Expected streams a displayed page. value, error (standard, of the visits and draws): [targets] by world."""

    value: dict[str, Floats]
    error: dict[str, Floats]


@lru_cache(maxsize=1)
def truths() -> Truths:
    """Those that belong to this version, as they were worked out once."""
    held = json.loads(files("simulator.arena").joinpath("truths.json").read_text(encoding="utf-8"))
    if held["version"] != VERSION:
        raise ValueError(f"truths.json is of version {held['version']}; expected {VERSION}")
    return Truths(*({world: np.array(row) for world, row in held[what].items()} for what in ("value", "error")))


def work_out(
    parts: int = PARTS, visits: int = VISITS_A_PART, on_part: Callable[[int], None] | None = None, stream: int = _STREAM
) -> Truths:
    """The truths anew, from so many parts of visits of the population; about six minutes of CPU by default."""
    value = np.empty((parts, len(WORLDS), len(TARGETS)))
    for part in range(parts):
        rng = np.random.default_rng([SEED, stream, part])
        scene, scores = some_visits(rng, visits)
        for k, (scorer, score) in enumerate(zip(TARGETS, scores, strict=True)):
            size, rates = (SCENE.rows, SCENE.columns), (scorer.epsilon, scorer.epsilon)
            _, card = batch_decide(scene.offset, scene.shelf, score, *size, *rates, rng)
            for i, params in enumerate(WORLDS.values()):
                value[part, i, k] = page_values(
                    scene.appeal, scene.offset, card, params, patience=scene.patience
                ).mean()
        if on_part is not None:
            on_part(part + 1)
    mean, error = value.mean(axis=0), value.std(axis=0, ddof=1) / np.sqrt(parts)
    return Truths(*({world: row[i] for i, world in enumerate(WORLDS)} for row in (mean, error)))


def write(found: Truths, path: Path) -> None:
    """The file that `truths` reads."""
    rows = {
        what: {world: [round(float(v), 6) for v in row] for world, row in getattr(found, what).items()}
        for what in ("value", "error")
    }
    path.write_text(json.dumps({"version": VERSION, **rows}, indent=1) + "\n", encoding="utf-8")
