"""The engine on Spark: one task a part of the log through `DataFrame.mapInArrow`, the kernel in Python workers.

Every worker must see the log under the same path and have this package installed. A task that dies with its worker is
run again by Spark; the result is the same, because what a part adds depends on the part alone.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from bart.errors import DataError
from bart.ope.engine.sums import Kernel, OnProgress, Part, Statistics, part_statistics

RESULT = "part int, found binary, refused string"
MISSING = "the engine spark needs PySpark 4 and Java 17; expected pip install 'bart-home[spark]'"


def spark_parts(
    kernel: Kernel, log: Sequence[Part], master: str, on_progress: OnProgress | None = None
) -> Iterator[Statistics]:
    """Statistics of each part, in order."""
    parts = [replace(part, files=tuple(file.resolve() for file in part.files)) for part in log]

    def work(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                found, refused = b"", ""
                try:
                    found = packed(part_statistics(kernel, parts[number]).to_arrow())
                except (ValueError, OSError) as error:  # the same at every attempt: told, not tried again
                    refused = str(error) or type(error).__name__
                columns = [pa.array([number], pa.int32()), pa.array([found]), pa.array([refused])]
                yield pa.RecordBatch.from_arrays(columns, names=["part", "found", "refused"])

    with session(master) as spark:
        if on_progress is not None:
            on_progress(0, len(parts), "waiting for Spark")
        # A range has one row a partition: one task a part, whatever the parts' sizes.
        table = spark.range(0, len(parts), 1, len(parts)).mapInArrow(work, RESULT)
        rows = collected(table) if on_progress is None else _watched(spark, table, len(parts), on_progress)
    for row in sorted(rows, key=lambda row: int(row["part"])):
        yield Statistics.from_arrow(unpacked(bytes(row["found"])))


def packed(batch: Any) -> bytes:
    """A record batch as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def unpacked(data: bytes) -> Any:
    """The record batch in those bytes."""
    with pa.ipc.open_stream(data) as stream:
        return stream.read_next_batch()


@contextmanager
def session(master: str) -> Iterator[Any]:
    """A Spark session whose workers run this very Python; stopped at the end unless it was there before.

    Raises DataError where PySpark or Java is absent or the master cannot be reached.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise DataError(MISSING) from None
    java = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (java and (Path(java) / "bin" / "java").exists()):
        raise DataError(MISSING)
    before = SparkSession.getActiveSession()
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    builder: Any = SparkSession.builder
    builder = (
        builder.master(master)
        .appName("bart")
        .config("spark.pyspark.python", sys.executable)
        # Spark would give workers one thread, and the last bits of a matrix product depend on how many there are.
        .config("spark.executorEnv.OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1)))
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1" if master.startswith("local") else "0.0.0.0")
        .config("spark.task.maxFailures", "4")
    )
    if master.startswith("local"):
        builder = builder.config("spark.driver.host", "127.0.0.1")
        # A Java machine that runs already keeps the environment of its start; its workers get that of now by this.
        builder = builder.config("spark.executorEnv.PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    try:
        spark = builder.getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        raise DataError(f"--master {master}: Spark cannot be started: {_first_line(error)}") from None
    except Exception as error:  # py4j hands on what Java threw under types of its own
        raise DataError(f"--master {master}: Spark cannot be started: {_first_line(error)}") from None
    if before is None:
        spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        if before is None:
            spark.stop()


def collected(table: Any) -> Any:
    """The rows of a small table. Raises DataError with what a worker refused (column `refused`)."""
    try:
        rows = table.collect()
    except Exception as error:
        raise DataError(f"Spark gave up: {_cause(error)}") from None
    for row in rows:
        if row["refused"]:
            raise DataError(row["refused"])
    return rows


def _watched(spark: Any, table: Any, parts: int, on_progress: OnProgress) -> Any:
    """The same while another thread reads off how many tasks are done."""
    from threading import Event, Thread

    over = Event()

    def watch() -> None:
        tracker = spark.sparkContext.statusTracker()
        while not over.wait(0.5):
            done = 0
            for job in tracker.getActiveJobsIds():
                info = tracker.getJobInfo(job)
                for stage in info.stageIds if info is not None else ():
                    found = tracker.getStageInfo(stage)
                    done += found.numCompletedTasks if found is not None else 0
            on_progress(min(done, parts), parts, f"{done} of {parts} parts of the log")

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        return collected(table)
    finally:
        over.set()
        thread.join()


def _cause(error: object) -> str:
    """What ended a Python worker, the last line of its traceback; where none did, the first line."""
    _, traceback, after = str(error).partition("Traceback (most recent call last):\n")
    named = next((line for line in after.splitlines() if line and not line[0].isspace()), "") if traceback else ""
    return named or _first_line(error)


def _first_line(error: object) -> str:
    found = [line.strip() for line in str(error).splitlines() if line.strip()]
    return found[0] if found else type(error).__name__
