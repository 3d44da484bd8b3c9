"""The engine on Spark, in a cluster of two workers on this machine: the very numbers of the local engine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bart.errors import DataError
from bart.ope.engine import Statistics, run_kernel
from bart.ope.engine_choices import ChoiceKernel

_spec = importlib.util.spec_from_file_location("choice_files", Path(__file__).with_name("choice_files.py"))
assert _spec is not None
assert _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("choice_files", files)
_spec.loader.exec_module(files)

MASTER = "local-cluster[2,1,1024]"
LACKING = [
    name
    for name, there in (
        ("pyspark", importlib.util.find_spec("pyspark") is not None),
        ("pandas", importlib.util.find_spec("pandas") is not None),
        ("java", shutil.which("java") is not None),
    )
    if not there
]
pytestmark = [
    pytest.mark.skipif(
        bool(LACKING), reason=f"{', '.join(LACKING)} not installed; expected the extra spark and Java 17"
    ),
    pytest.mark.filterwarnings("default"),  # PySpark's own
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """One session for all: the engine leaves a session alone that was there before."""
    from bart.ope.engine_spark import session

    with session(MASTER) as found:
        yield found


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = files.write_files(
        tmp_path_factory.mktemp("spark") / "log", files.choice_table(np.random.default_rng(5), 20_000), 4
    )
    return path


@pytest.mark.usefixtures("spark")
def test_spark_gives_the_very_sums_of_the_local_engine(log: Path) -> None:
    kernel = ChoiceKernel(files.PLAIN, {"ips": {}, "snips": {}}, replicates=20)
    _equal(run_kernel(kernel, log, workers=1), run_kernel(kernel, log, engine="spark", master=MASTER))


@dataclass(frozen=True, slots=True, eq=False)
class _KillsItsExecutor(ChoiceKernel):
    """Kills the executor that runs it, the first time that it is called."""

    marker: str = ""

    def __call__(self, batch: Any) -> Any:
        if not os.path.exists(self.marker):
            with open(self.marker, "w") as file:
                file.write("killed")
            with open(f"/proc/{os.getppid()}/stat") as file:  # the worker's parent is a daemon, whose parent it is
                executor = int(file.read().rsplit(")", 1)[1].split()[1])
            os.kill(executor, signal.SIGKILL)
        return ChoiceKernel.__call__(self, batch)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the executor through /proc")
@pytest.mark.usefixtures("spark")
def test_an_executor_killed_in_a_task_changes_nothing(log: Path, tmp_path: Path) -> None:
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    kernel = _KillsItsExecutor(files.PLAIN, {"ips": {}}, marker=str(tmp_path / "killed"))
    found = run_kernel(kernel, log, engine="spark", master=MASTER)
    assert (tmp_path / "killed").exists()
    _equal(run_kernel(ChoiceKernel(files.PLAIN, {"ips": {}}), log, workers=1), found)


@pytest.mark.usefixtures("spark")
def test_pages_of_listeners_are_those_of_the_local_engine(built_run: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from api.rank_all import Compared, compare_pages, rank_all

    table = tmp_path / "listeners.parquet"
    pq.write_table(pa.table({"user_id": [f"listener-{i:02d}" for i in range(20)]}), table)
    at = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    rank_all(built_run, table, tmp_path / "local", at=at, rows=3, columns=3, workers=1, shard=10)
    rank_all(built_run, table, tmp_path / "spark", at=at, rows=3, columns=3, engine="spark", master=MASTER, shard=10)
    assert compare_pages(tmp_path / "local", tmp_path / "spark") == Compared(20, 20, 0, 0)


@pytest.mark.usefixtures("spark")
def test_what_a_worker_refuses_is_one_line(log: Path) -> None:
    lacking = files.Columns("reward", "nothing", files.PLAIN.targets)
    with pytest.raises(DataError, match=r"^[^\n]*part-000\.parquet has no column 'nothing'; expected one of [^\n]*$"):
        run_kernel(ChoiceKernel(lacking, {"ips": {}}), log, engine="spark", master=MASTER)


def _equal(one: Statistics, other: Statistics) -> None:
    assert one.names() == other.names()
    for name in one.names():
        assert (one.keys(name) == other.keys(name)).all(), name
        assert one.values(name).tobytes() == other.values(name).tobytes(), name
