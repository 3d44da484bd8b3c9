"""Whether the log can support a policy is seen in every kind of file: tables read in batches, long ones, DSJSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.evaluate.choice_input import ChoiceOptions
from api.evaluate.choices import evaluate_file
from api.run.progress import Quiet
from api.run.settings import load_settings

K = 8
PMF = "new=" + ",".join(f"p{a}" for a in range(K))


def choices(seed: int, n: int = 4_000, fault: str = "") -> pa.Table:
    """Contexts that differ, a logging policy that explores a third of the time, and a target near the best action."""
    rng = np.random.default_rng(seed)
    x, taste = rng.normal(size=(n, 3)), rng.normal(size=(3, K)) / 2
    logging = np.full((n, K), 0.3 / K)
    logging[np.arange(n), (x @ (taste + rng.normal(size=taste.shape) / 2)).argmax(axis=1)] += 0.7
    target = np.full((n, K), 0.1 / K)
    target[np.arange(n), (x @ taste).argmax(axis=1)] += 0.9
    action = (logging.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = (rng.random(n) < 1 / (1 + np.exp(1.5 - (x @ taste)[np.arange(n), action]))).astype(float)
    most = int(target.mean(axis=0).argmax())
    keep = action != most if fault == "an action is left out" else np.ones(n, dtype=bool)
    factor = 1.1 if fault == "propensities are too high" else 1.0
    columns: dict[str, Any] = {
        "reward": reward,
        "action": action,
        "propensity": np.minimum(logging[np.arange(n), action] * factor, 1.0),
        "best": target.argmax(axis=1),
        **{f"p{a}": target[:, a] for a in range(K)},
    }
    return pa.table({name: values[keep] for name, values in columns.items()})


def verdict(path: Path, kind: str = "table", at_once: int = 10**6, **options: Any) -> tuple[str, tuple[str, ...]]:
    report = evaluate_file(
        path, kind, ChoiceOptions(**options), load_settings({"seed": 3}), None, Quiet(), at_once=at_once
    )
    found = report["policies"][0]["estimates"]["snips"]
    return found["verdict"], tuple(w for w in found["warnings"] if "1 % of weights" not in w)


FAULTS = {"an action is left out": "that the log never took", "propensities are too high": "propensities are wrong"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at_once", [10**6, 100])
def test_a_fault_of_a_table_is_named_however_long_it_is(fault: str, at_once: int, tmp_path: Path) -> None:
    pq.write_table(choices(1, fault=fault), tmp_path / "log.parquet", row_group_size=700)
    found, why = verdict(tmp_path / "log.parquet", at_once=at_once, target_pmf=[PMF])
    assert found != "conclusive"
    assert any(FAULTS[fault] in words for words in why)


def test_sums_of_a_long_table_and_of_one_in_memory_say_the_same(tmp_path: Path) -> None:
    pq.write_table(choices(2, fault="an action is left out"), tmp_path / "log.parquet", row_group_size=700)
    targets: list[dict[str, Any]] = [{"target_pmf": [PMF]}, {"target_action": ["new=best"]}]
    for target in targets:
        memory, sums = (verdict(tmp_path / "log.parquet", at_once=n, **target) for n in (10**6, 100))
        assert (memory[0], len(memory[1])) == (sums[0], len(sums[1]))
        assert memory[0] == "unusable"


def test_rewards_that_fall_are_said_to_however_long_the_table_is(tmp_path: Path) -> None:
    table = choices(4)
    kept = np.random.default_rng(1).random(len(table)) < np.linspace(1, 0, len(table))
    at = table.column_names.index("reward")
    falling = table.set_column(at, "reward", pa.array(table["reward"].to_numpy() * kept))
    for name, log in (("falling", falling), ("clean", table)):
        pq.write_table(log, tmp_path / f"{name}.parquet", row_group_size=400)
    for at_once in (10**6, 100):
        found, why = verdict(tmp_path / "falling.parquet", at_once=at_once, target_pmf=[PMF])
        assert found == "weak"
        assert any("rewards are not constant" in words for words in why)
        assert not any(
            "constant" in w for w in verdict(tmp_path / "clean.parquet", at_once=at_once, target_pmf=[PMF])[1]
        )


def test_clean_tables_of_contexts_that_differ_are_conclusive(tmp_path: Path) -> None:
    found = []
    for seed in range(12):
        pq.write_table(choices(seed), tmp_path / "log.parquet")
        found.append(verdict(tmp_path / "log.parquet", target_pmf=[PMF])[0])
    assert found.count("conclusive") >= 10


def test_rows_of_an_event_that_came_twice_count_once_in_the_checks(tmp_path: Path) -> None:
    table = choices(3, fault="propensities are too high")
    table = table.append_column("event_id", pa.array([f"e{i}" for i in range(len(table))]))
    pq.write_table(table, tmp_path / "once.parquet", row_group_size=900)
    pq.write_table(pa.concat_tables([table, table.slice(100)]), tmp_path / "twice.parquet", row_group_size=900)
    once, twice = (verdict(tmp_path / f"{name}.parquet", target_pmf=[PMF]) for name in ("once", "twice"))
    assert once == twice


def test_actions_that_a_line_could_not_draw_are_mass_without_support(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(1), tmp_path / "log.dsjson"
    with path.open("w") as stream:
        for i in range(1_500):
            p = np.array([0.9, 0.1, 0.0]) if i % 3 else np.array([0.6, 0.2, 0.2])
            action = int(rng.choice(3, p=p))
            line = {
                "EventId": f"e{i}",
                "Timestamp": "2026-03-01T12:00:00Z",
                "a": [1, 2, 3],
                "p": p.tolist(),
                "_label_cost": -float(rng.random() < 0.3),
                "_label_probability": p[action],
                "_label_Action": action + 1,
                "c": {"_multi": [{"A": {"id": f"item {j}"}} for j in range(3)]},
            }
            stream.write(json.dumps(line) + "\n")
    found, why = verdict(path, "dsjson", policies=["uniform"])
    assert found == "unusable"
    assert any(
        "22% of the evaluation policy's choices are actions that the log never took (propensity 0)" in w for w in why
    )
