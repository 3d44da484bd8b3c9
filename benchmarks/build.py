"""`bart build` stage by stage: CPU seconds and the largest resident set of each, and with --parts how both grow.

    python -m benchmarks build [--data FOLDER] [--parts 8 4 2 1]

FOLDER: events.parquet, items.parquet and playlists.parquet of `bart simulate --listeners 986 --days 65
--tracks 100000`, 2.3 million events, which are made where none is given. --parts: of an eighth, a quarter, half and all
of the listeners, each in a process of its own, with the exponents that a line through the logarithms has. Linux: peaks
are those of /proc.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from api.run.progress import Tick, ignore

WORLD = ("--listeners", "986", "--days", "65", "--tracks", "100000", "--seed", "1")
FILES = ("events.parquet", "items.parquet", "playlists.parquet")


class Spent:
    """Stages that note what each took: name to [CPU seconds, MB at the peak]."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}
        self._name, self._began = "", 0.0

    def stage(self, name: str) -> Tick:
        self.finish()
        self._name, self._began = name, time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        return ignore

    def finish(self) -> None:
        if self._name:
            status = Path("/proc/self/status").read_text()
            peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            self.stages[self._name] = [time.process_time() - self._began, peak_kb / 1000]
            self._name = ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--parts", type=int, nargs="+", default=[1])
    parser.add_argument("--one", action="store_true", help="of the data as they are, as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bart-build-") as folder:
        if asked.one:
            print(json.dumps(built(asked.data, Path(folder) / "run")))
            return
        data = asked.data or simulated(Path(folder) / "world")
        sizes = [some(data, Path(folder) / f"part-{part}", part) for part in asked.parts]
        show([of_its_own(size) for size in sizes])


def simulated(folder: Path) -> Path:
    """The world that the figures are of."""
    folder.mkdir()
    command = [sys.executable, "-m", "api.cli", "simulate", "--out", str(folder / FILES[0]), *WORLD]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def some(data: Path, folder: Path, part: int) -> Path:
    """The same with every so-manieth listener; items and playlists as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if part == 1:
        return data
    folder.mkdir()
    for name in FILES[1:]:
        shutil.copy(data / name, folder / name)
    events = pq.read_table(data / FILES[0])
    users = pa.array(sorted(pc.unique(events["user_id"]).to_pylist())[::part])
    pq.write_table(events.filter(pc.is_in(events["user_id"], users)), folder / FILES[0])
    return folder


def of_its_own(data: Path) -> dict[str, list[float]]:
    """What a build in a new process takes."""
    command = [sys.executable, __file__, "--one", "--data", str(data)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def built(data: Path, run: Path) -> dict[str, list[float]]:
    from api.jobs.build import build_run
    from api.run.settings import load_settings
    from recommender.events.parts import parts_of

    spent = Spent()
    began = time.process_time()
    playlists = data / FILES[2]
    report = build_run(
        data / FILES[0], data / FILES[1], playlists if playlists.is_file() else None, run, {}, load_settings({}), spent
    )
    spent.finish()
    import pyarrow.parquet as pq

    events = sum(pq.ParquetFile(part.path).metadata.num_rows for part in parts_of(run / FILES[0]))
    disk = {"events.parquet": 0.0, "listeners.sqlite": 0.0, "bundles": 0.0}
    for name in disk:
        files = [run / name] if (run / name).is_file() else [f for f in (run / name).rglob("*") if f.is_file()]
        disk[name] = sum(file.stat().st_size for file in files) / 1e6
    whole = [time.process_time() - began, max(peak for _, peak in spent.stages.values())]
    kept = {f"on disk: {name}, MB": [size, np.nan] for name, size in disk.items()}
    return {"events": [events, report.listeners], **spent.stages, "all": whole, **kept}


def show(sizes: list[dict[str, list[float]]]) -> None:
    counts = [found.pop("events") for found in sizes]
    print("".join([f"{'events (listeners)':<34}", *(f"{f'{int(n):,} ({int(u):,})':>24}" for n, u in counts)]))
    events = np.array([n for n, _ in counts])
    for stage in sizes[-1]:
        values = np.array([found.get(stage, [np.nan, np.nan]) for found in sizes])
        cells = [f"{a:.2f} MB" if np.isnan(b) else f"{a:.2f} s, {b:,.0f} MB" for a, b in values]
        line = "".join([f"{stage:<34}", *(f"{cell:>24}" for cell in cells)])
        if len(sizes) > 1 and (values[:, 0] > 0).all():
            line += f"   ^{np.polyfit(np.log(events), np.log(values[:, 0]), 1)[0]:.2f}"
        print(line)


if __name__ == "__main__":
    main()
