"""The engine on Spark, in a cluster of two workers on this machine: the very numbers of the local engine."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import signal
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import choice_files as files
import numpy as np
import page_export as exports
import pytest
from once import made_once
from quick_java import QUICK_JAVA

from bart.errors import DataError
from bart.ope.engine.choices import ChoiceKernel
from bart.ope.engine.run import Engine, kept, run_kernel
from bart.ope.engine.sums import Statistics

MASTER = "local-cluster[2,1,1024]"
SPARK = Engine("spark", master=MASTER)
PROCESSES = Engine("local", 2)
AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
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
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(LACKING), reason=f"{', '.join(LACKING)} not installed; expected the extra spark and Java 17"
    ),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds Spark's executors through /proc"),
    pytest.mark.filterwarnings("default"),  # PySpark's own
]


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


@dataclass(frozen=True, slots=True, eq=False)
class _Fails(ChoiceKernel):
    """Meets what nobody foresaw."""

    def __call__(self, batch: Any) -> Any:
        raise KeyError(f"unforeseen: {len(batch)} rows")


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both engines gave to all that is asked below. A cluster takes long to start: where several processes test,
    the first that comes here asks, and the others read what it was told."""

    def ask(folder: Path) -> None:
        run = request.getfixturevalue("built_run")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)
            environment.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
            (folder / "answers").write_bytes(pickle.dumps(_asked(run, tmp_path_factory.mktemp("spark"))))

    found: dict[str, Any] = pickle.loads((made_once(tmp_path_factory, "spark", ask) / "answers").read_bytes())
    return found


def _asked(run: Path, folder: Path) -> dict[str, Any]:
    """Answers by what was asked, in one session: the engine leaves a session alone that was there before."""
    from pyspark import cloudpickle

    from bart.ope.engine.spark import session

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    choices = files.write_files(folder / "choices", files.choice_table(np.random.default_rng(5), 8_000), 4)
    found: dict[str, Any] = {}
    with session(MASTER), kept(PROCESSES):
        kernel = ChoiceKernel(files.PLAIN, {"ips": {}, "snips": {}}, replicates=20)
        found["local"] = run_kernel(kernel, choices)
        found["spark"] = run_kernel(kernel, choices, SPARK)
        lacking = files.Columns("reward", "nothing", files.PLAIN.targets)
        try:
            run_kernel(ChoiceKernel(lacking, {"ips": {}}), choices, SPARK)
        except DataError as error:
            found["refused"] = str(error)
        try:
            run_kernel(_Fails(files.PLAIN, {"ips": {}}), choices, SPARK)
        except DataError as error:
            found["failed"] = str(error)
        found["pages"] = [_evaluated(run, folder, engine) for engine in (None, PROCESSES, SPARK)]
        found["choices"] = [_chosen(choices, engine) for engine in (None, PROCESSES, SPARK)]
        found["ranked"] = _ranked(run, folder)
        marker = folder / "killed"
        killer = _KillsItsExecutor(files.PLAIN, {"ips": {}, "snips": {}}, replicates=20, marker=str(marker))
        found["after a kill"] = run_kernel(killer, choices, SPARK)
        found["killed"] = marker.exists()
    return found


def _evaluated(run: Path, folder: Path, engine: Engine | None) -> Any:
    """Reports of pages in one block and in several, with all that can be asked: outside scores, a bundle of another
    batch with listening, a reward of one's own, every estimator."""
    from api.evaluate.pages_log import evaluate_log
    from api.run.listening import Listening
    from api.run.progress import Quiet
    from api.run.settings import load_settings
    from bart.reward.rewards import REWARDS

    log = folder / "pages" / "log"
    if not log.exists():
        log.parent.mkdir()
        REWARDS.setdefault("by_degrees", exports.by_degrees)
        exports.export_pages(run, log.parent, pages=60, reward="by_degrees")
        exports.scores_of(log, folder / "mine.parquet")
        shutil.copytree((run / "bundle").resolve(), folder / "other")
        manifest = json.loads((folder / "other" / "manifest.json").read_text())
        (folder / "other" / "manifest.json").write_text(json.dumps({**manifest, "batch_id": "0" * 16}))
    return [
        evaluate_log(
            log,
            ["popularity:0.2", f"{folder / 'other'}:0.1"],
            load_settings({}),
            None,
            Quiet(),
            scores=[f"mine={folder / 'mine.parquet'}:0.1"],
            events=Listening(run / "events.parquet"),
            everything=True,
            engine=engine,
            block_candidates=block,
        )
        for block in (None, 1_000)
    ]


def _chosen(log: Path, engine: Engine | None) -> Any:
    """Reports of single choices as they are and summed up, with all that can be asked: every estimator, comparisons,
    users, and a model and propensities fitted from context."""
    from api.evaluate.choice_input import ChoiceOptions
    from api.evaluate.choices import evaluate_file
    from api.run.progress import Quiet
    from api.run.settings import load_settings

    pmf = {"target_pmf": ["new=p0,p1,p2"], "target_action": ["same=action"]}
    model = {**pmf, "q_hat": ["q0", "q1", "q2"]}
    fitted = {**pmf, "action": "action", "context": ["q0", "q1"], "propensities": "fit"}
    asked: list[tuple[dict[str, Any], int]] = [
        (model, 10**6),
        ({**model, "user": "user"}, 10**6),
        (fitted, 100),
        (model, 100),
        ({**model, "user": "user"}, 100),
    ]
    return [
        evaluate_file(
            log,
            "table",
            ChoiceOptions(**options),
            load_settings({"seed": 3}),
            None,
            Quiet(),
            everything=True,
            engine=engine,
            at_once=rows,
        )
        for options, rows in asked
    ]


def _ranked(run: Path, folder: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from api.jobs.rank_all import compare_pages, rank_all

    table = folder / "listeners.parquet"
    pq.write_table(pa.table({"user_id": [f"listener-{i:02d}" for i in range(20)]}), table)
    shape = {"rows": 3, "columns": 3, "shard": 10}
    rank_all(run, table, folder / "here", at=AT, workers=1, **shape)
    rank_all(run, table, folder / "there", at=AT, engine="spark", master=MASTER, **shape)
    return compare_pages(folder / "here", folder / "there")


def test_spark_gives_the_very_sums_of_the_local_engine(answers: dict[str, Any]) -> None:
    _equal(answers["local"], answers["spark"])


def test_an_executor_killed_in_a_task_changes_nothing(answers: dict[str, Any]) -> None:
    assert answers["killed"]
    _equal(answers["local"], answers["after a kill"])


@pytest.mark.parametrize("other", ["processes", "Spark"])
def test_a_report_of_pages_is_the_same_in_this_process_in_processes_and_on_spark(
    answers: dict[str, Any], other: str
) -> None:
    here, there = answers["pages"][0], answers["pages"][("processes", "Spark").index(other) + 1]
    assert [report["blocks"] > 1 for report in here] == [False, True]
    for one, two in zip(here, there, strict=True):
        assert one["recomputed"][0]["pages"] == one["log"]["pages"]
        assert one["scores"][0]["missing"] > 0
        assert one["slices"]
        assert one["rewards"]
        assert json.dumps(one) == json.dumps(two)


@pytest.mark.parametrize("other", ["processes", "Spark"])
def test_a_report_of_single_choices_is_the_same_in_this_process_in_processes_and_on_spark(
    answers: dict[str, Any], other: str
) -> None:
    here, there = answers["choices"][0], answers["choices"][("processes", "Spark").index(other) + 1]
    for one, two in zip(here, there, strict=True):
        assert one["selection"]["pairwise"]
        assert {"clipped_ips", "dr", "switch_dr"} <= set(one["policies"][0]["estimates"])
        assert json.dumps(one) == json.dumps(two)


def test_pages_of_listeners_are_those_of_the_local_engine(answers: dict[str, Any]) -> None:
    from api.jobs.rank_all import Compared

    assert answers["ranked"] == Compared(20, 20, 0, 0)


def test_what_a_worker_refuses_is_one_line(answers: dict[str, Any]) -> None:
    refused = answers["refused"]
    assert "\n" not in refused
    assert "part-000.parquet has no column 'nothing'; expected one of " in refused


def test_what_ends_a_worker_is_named(answers: dict[str, Any]) -> None:
    assert answers["failed"] == "Spark gave up: KeyError: 'unforeseen: 2000 rows'"


def _equal(one: Statistics, other: Statistics) -> None:
    assert one.names() == other.names()
    for name in one.names():
        assert (one.keys(name) == other.keys(name)).all(), name
        assert one.values(name).tobytes() == other.values(name).tobytes(), name
