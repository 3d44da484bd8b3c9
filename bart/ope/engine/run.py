"""Where a kernel runs: over the files of a log in this process, in processes of this machine, or on Spark."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from bart.errors import DataError
from bart.ope.engine.sums import Kernel, OnProgress, Statistics, file_statistics


def run_kernel(
    kernel: Kernel,
    path: Path,
    *,
    engine: str = "local",
    workers: int | None = None,
    master: str | None = None,
    on_progress: OnProgress | None = None,
) -> Statistics:
    """The kernel's statistics of all Parquet files of a log.

    path: a file, or a directory of files (see `log_files`). engine: "local" or "spark". workers: processes of the local
    engine, by default one a core. master: where Spark runs, such as local[4] or spark://host:7077.
    Raises DataError for a log that cannot be read and for a worker that died twice.
    """
    files = log_files(path)
    if engine == "spark":
        from bart.ope.engine.spark import spark_files

        found = spark_files(kernel, files, master or "local[*]", on_progress)
    elif engine == "local":
        if master is not None:
            raise DataError("--master goes with --engine spark; expected no --master for local")
        found = local_files(kernel, files, workers, on_progress)
    else:
        raise DataError(f"--engine is {engine!r}; expected local or spark")
    total = Statistics()
    for part in found:
        total.add(part)
    return total


@contextmanager
def kept_engine(engine: str, master: str | None) -> Iterator[None]:
    """Keeps a Spark session between the runs inside, whose start costs more than most of them."""
    if engine != "spark":
        yield
        return
    from bart.ope.engine.spark import session

    with session(master or "local[*]"):
        yield


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


def local_files(
    kernel: Kernel, files: Sequence[Path], workers: int | None = None, on_progress: OnProgress | None = None
) -> Iterator[Statistics]:
    """Statistics of each file, in order, by processes of this machine."""
    workers = min(workers or os.cpu_count() or 1, len(files))
    if workers < 1:
        raise DataError(f"--workers is {workers}; expected at least 1")
    size = [file.stat().st_size for file in files]
    done = 0
    results: Iterator[Statistics]
    with _mapped(kernel, files, workers) as results:
        for file, bytes_, found in zip(files, size, results, strict=True):
            done += bytes_
            if on_progress is not None:
                on_progress(done, sum(size), file.name)
            yield found


@contextmanager
def _mapped(kernel: Kernel, files: Sequence[Path], workers: int) -> Iterator[Iterator[Statistics]]:
    if workers == 1:
        yield (file_statistics(kernel, file) for file in files)
        return
    # Spawned, not forked: a fork would copy locks that Arrow's threads may hold.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield pool.map(_one_file, [(kernel, file) for file in files])
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed (by the system, where memory ran out); expected fewer --workers"
            ) from None


def _one_file(job: tuple[Kernel, Path]) -> Statistics:
    return file_statistics(*job)
