"""Where a kernel runs: over the parts of a log in this process, in processes of this machine, or on Spark."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from bart.errors import DataError
from bart.ope.engine.sums import Kernel, OnProgress, Part, Statistics, part_statistics

ENGINES = ("local", "spark")
_POOL: ContextVar[ProcessPoolExecutor | None] = ContextVar("_POOL", default=None)  # of `kept`


@dataclass(frozen=True, slots=True)
class Engine:
    """Where a kernel runs. name: "local" for `workers` processes (one a core where None), "spark" at `master` (such as
    local[4] or spark://host:7077); None for this process."""

    name: str | None = None
    workers: int | None = None
    master: str | None = None

    def __post_init__(self) -> None:
        if self.name is None and (self.master is not None or self.workers is not None):
            raise DataError("--master and --workers go with --engine; expected --engine local or --engine spark")
        if self.name is not None and self.name not in ENGINES:
            raise DataError(f"--engine is {self.name!r}; expected local or spark")
        if self.name == "local" and self.master is not None:
            raise DataError("--master goes with --engine spark; expected no --master for local")
        if self.workers is not None and self.workers < 1:
            raise DataError(f"--workers is {self.workers}; expected at least 1")


HERE = Engine()


def run_kernel(
    kernel: Kernel, log: Path | Sequence[Part], engine: Engine = HERE, on_progress: OnProgress | None = None
) -> Statistics:
    """The kernel's statistics of a log: of its parts, or of all Parquet files of a path (see `log_files`).

    Raises DataError for a log that cannot be read and for a worker that died twice.
    """
    parts = [Part.of(file) for file in log_files(log)] if isinstance(log, Path) else log
    if engine.name == "spark":
        from bart.ope.engine.spark import spark_parts

        found = spark_parts(kernel, parts, engine.master or "local[*]", on_progress)
    else:
        found = _local(kernel, parts, _workers(engine), on_progress)
    total = Statistics()
    for each in found:
        total.add(each)
    return total


@contextmanager
def kept(engine: Engine) -> Iterator[None]:
    """Keeps worker processes or a Spark session between the runs inside, whose start costs more than most of them."""
    if engine.name == "spark":
        from bart.ope.engine.spark import session

        with session(engine.master or "local[*]"):
            yield
    elif _workers(engine) == 1 or _POOL.get() is not None:
        yield
    else:
        with _pool(_workers(engine)) as pool:
            before = _POOL.set(pool)
            try:
                yield
            finally:
                _POOL.reset(before)


def log_files(path: Path) -> list[Path]:
    """The Parquet files of a log, by name: the file itself, a directory's, or those of an exported log by date.

    Raises DataError where there is none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    files = sorted(path.glob("date=*/*.parquet")) or sorted(path.glob("*.parquet"))
    files = [file for file in files if not file.name.startswith((".", "_"))]
    if not files:
        raise DataError(f"{path} holds no Parquet file; expected *.parquet or date=YYYY-MM-DD/*.parquet")
    return files


def _workers(engine: Engine) -> int:
    return 1 if engine.name is None else engine.workers or os.cpu_count() or 1


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy locks that Arrow's threads may hold.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def _local(kernel: Kernel, parts: Sequence[Part], workers: int, on_progress: OnProgress | None) -> Iterator[Statistics]:
    """Statistics of each part, in order, by this process or by several of this machine."""
    total, done = sum(part.size for part in parts), 0
    with _mapped(kernel, parts, min(workers, len(parts))) as results:
        for part, found in zip(parts, results, strict=True):
            done += part.size
            if on_progress is not None:
                on_progress(done, total, part.files[-1].name)
            yield found


@contextmanager
def _mapped(kernel: Kernel, parts: Sequence[Part], workers: int) -> Iterator[Iterator[Statistics]]:
    if workers == 1:
        yield (part_statistics(kernel, part) for part in parts)
        return
    there = _POOL.get()
    begun: AbstractContextManager[ProcessPoolExecutor] = _pool(workers) if there is None else nullcontext(there)
    with begun as pool:
        try:
            yield pool.map(_one_part, [(kernel, part) for part in parts])
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed (by the system, where memory ran out); expected fewer --workers"
            ) from None


def _one_part(job: tuple[Kernel, Part]) -> Statistics:
    return part_statistics(*job)
