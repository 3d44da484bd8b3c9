"""Logs of single choices as a directory of Parquet files, for the engine's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.ope.inputs.table import Columns, Target

MODEL = Columns(
    "reward", "propensity", {"new": Target("pmf", ("p0", "p1", "p2"))}, action="action", q_hat=("q0", "q1", "q2")
)
PLAIN = Columns("reward", "propensity", {"new": Target("probability", ("target",))}, user="user")


def choice_table(rng: np.random.Generator, rows: int, users: int = 500) -> pa.Table:
    """Three actions under an uneven logging pmf and another target, rewards of 0 and 1, a rough model of them."""
    logging, target = rng.dirichlet([2, 1, 1], rows), rng.dirichlet([1, 1, 2], rows)
    action = (rng.random(rows)[:, None] > logging.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    mean = np.array([0.2, 0.4, 0.6])
    row = np.arange(rows)
    q = np.clip(mean + rng.normal(0, 0.1, (rows, 3)), 0.01, 0.99)
    return pa.table(
        {
            "reward": (rng.random(rows) < mean[action]).astype(float),
            "propensity": logging[row, action],
            "target": target[row, action],
            "action": action,
            "user": pa.array([f"u{i}" for i in rng.integers(0, users, rows)]),
            **{f"p{k}": target[:, k] for k in range(3)},
            **{f"q{k}": q[:, k] for k in range(3)},
        }
    )


def write_files(directory: Path, table: pa.Table, files: int) -> Path:
    """The rows of a table as so many files, in order."""
    directory.mkdir(parents=True, exist_ok=True)
    edges = np.linspace(0, table.num_rows, files + 1).astype(int)
    for i in range(files):
        pq.write_table(table.slice(edges[i], edges[i + 1] - edges[i]), directory / f"part-{i:03d}.parquet")
    return directory
