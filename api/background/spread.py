"""A function of parts of a job spread over this process, several processes or Spark, to the same answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from bart.errors import DataError

ENGINES = ("local", "spark")
Part = TypeVar("Part")


def check_engine(engine: str, workers: int | None, master: str | None) -> None:
    """Raises DataError for options of a command that do not go together."""
    if engine not in ENGINES:
        raise DataError(f"--engine is {engine!r}; expected {' or '.join(ENGINES)}")
    if master is not None and engine != "spark":
        raise DataError("--master goes with --engine spark; expected no --master for local")
    if workers is not None and workers < 1:
        raise DataError(f"--workers is {workers}; expected at least 1")


def spread(
    work: Callable[[Part], bytes], parts: Sequence[Part], engine: str, workers: int | None, master: str | None
) -> Iterator[bytes]:
    """What `work` finds for each part, in order; both are pickled.

    engine: "local" (`workers` processes, one a core by default) or "spark" (at `master`; every worker must see the same
    files under the same paths). Raises DataError where a part does, or a worker is gone.
    """
    if not parts:
        return  # nothing to start workers for
    if engine == "spark":
        yield from _on_spark(work, parts, master)
        return
    workers = min(workers or os.cpu_count() or 1, len(parts))
    if workers <= 1:
        yield from map(work, parts)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, parts)
        except BrokenProcessPool:
            raise DataError("a worker process was killed; expected fewer --workers or more memory") from None


def _on_spark(work: Callable[[Part], bytes], parts: Sequence[Part], master: str | None) -> Iterator[bytes]:
    from bart.ope.engine.spark import collected, session

    def worked(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            for number in batch.column(0).to_pylist():
                found, refused = b"", ""
                try:
                    found = work(parts[number])
                except (ValueError, OSError) as error:  # the same at every attempt: told, not tried again
                    refused = str(error) or type(error).__name__
                columns = [pa.array([number], pa.int64()), pa.array([found]), pa.array([refused])]
                yield pa.RecordBatch.from_arrays(columns, names=["part", "found", "refused"])

    with session(master or "local[*]") as spark:
        numbers = spark.range(0, len(parts), 1, len(parts))  # a range has one row a partition: one task a part
        rows = collected(numbers.mapInArrow(worked, "part long, found binary, refused string"))
    for row in sorted(rows, key=lambda row: int(row["part"])):
        yield bytes(row["found"])
