"""What builds, daily work and evaluation take beside commit fd6eca4: ratios pair by pair, with what was to be reached.

    python -m benchmarks half [--pairs 3] [--data FOLDER] [--rev fd6eca4] [--rows build ...]

Each row is run there and here in turns, as `against` does it, and printed with its ratios of CPU time and of the peak.
ROWS is the list: a benchmark that both commits have, or a command in a shell whose $OUT is a new place of that side and
$DATA the folder of `benchmarks/build.py`. Features that were added since are part of what is measured.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.against import ROOT, Run, figures, measure, ratio, to_run, worktree
from benchmarks.build import simulated


@dataclass(frozen=True)
class Row:
    """cpu, memory: the ratios to be reached, None where none was set. shell: a command, else a benchmark's call.

    before: a command in the shell, once a side, whose $OUT the row's own command finds as $MADE.
    """

    what: str
    cpu: float | None
    memory: float | None = None
    shell: str = ""
    benchmark: tuple[str, ...] = ()
    before: str = ""


BART = f"{sys.executable} -m api.cli"
BUILD = f"{BART} build --events $DATA/events.parquet --items $DATA/items.parquet --playlists $DATA/playlists.parquet"
# One line a row; others' rows are added here.
ROWS = {
    "build": Row("bart build, 2.3 M events, 986 listeners, 100k items, playlists", 0.45, 0.6, f"{BUILD} --out $OUT"),
    "rank-all": Row(
        "bart rank-all, a page", 0.35,
        shell=f"{BART} rank-all $MADE --listeners $DATA/listeners.parquet --out $OUT --seed 7",
        before=f"{BUILD} --out $OUT",
    ),
    "log": Row("bart log verify with the chain, export, a page", 0.4, benchmark=("decision_log", "--pages", "3000")),
    "single choices": Row("single choices, estimates and intervals", None, benchmark=("ope_speed",)),
    "worker": Row(
        "a worker's own memory, 100k items", None,
        shell=f"{sys.executable} {ROOT}/benchmarks/worker_memory.py $MADE", before=f"{BUILD} --out $OUT",
    ),
    "page": Row("page, 1,000 candidates", 0.85, benchmark=("service", "--per-shelf", "100")),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rev", default="fd6eca4")
    asked = parser.parse_args()
    if asked.pairs < 2:
        parser.error("--pairs: an interval needs two")
    with tempfile.TemporaryDirectory(prefix="bart-half-") as folder, worktree(asked.rev) as other:
        data = (asked.data or simulated(Path(folder) / "world")).resolve()
        _listeners(data)
        for name in asked.rows:
            found = of(ROWS[name], asked.rev, other, Path(folder), data, asked.pairs)
            print("\n".join(told(ROWS[name], found)), flush=True)
    return 0


def of(row: Row, rev: str, other: Path, folder: Path, data: Path, pairs: int) -> list[tuple[Run, Run]]:
    """The pairs of a row: there and here, in turns."""
    sides = []
    for name, tree in ((rev, other), ("here", ROOT)):
        if row.benchmark:
            sides.append((name, tree, to_run(tree, name, row.benchmark)))
            continue
        made, out = folder / f"made-{name}", folder / f"out-{name}"
        setting = f"export DATA={data} MADE={made}; cd {folder}; "
        if row.before:
            shutil.rmtree(made, ignore_errors=True)
            first = f"export DATA={data} OUT={made}; cd {folder}; {row.before}"
            measure([(name, tree, ["sh", "-c", first])] * 1, 0)
        sides.append((name, tree, ["sh", "-c", f"{setting} rm -rf {out}; export OUT={out}; {row.shell}"]))
    return measure(sides, pairs)


def told(row: Row, found: list[tuple[Run, Run]]) -> list[str]:
    lines = [row.what]
    for label, unit, field, goal in (("CPU", "s", "cpu_s", row.cpu), ("peak", "MB", "peak_mb", row.memory)):
        both = [(getattr(first, field), getattr(second, field)) for first, second in found]
        old, new = (statistics.median(side) for side in zip(*both, strict=True))
        aim = "" if goal is None else f", to reach {goal:g}"
        each = " ".join(f"{second / first:.2f}" for first, second in both)
        lines.append(f"  {label:<5} {ratio(both)}{aim}   ({old:.1f} to {new:.1f} {unit}; by pair {each})")
    return lines + [f"  {line}" for line in figures([(first.printed, second.printed) for first, second in found])]


def _listeners(data: Path) -> None:
    """The table of listeners that `bart rank-all` takes, beside the events."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not (data / "listeners.parquet").is_file():
        users = pc.unique(pq.read_table(data / "events.parquet", columns=["user_id"])["user_id"])
        pq.write_table(pa.table({"user_id": users}), data / "listeners.parquet")


if __name__ == "__main__":
    sys.exit(main())
