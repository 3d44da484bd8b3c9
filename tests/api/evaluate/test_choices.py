"""Single choices and slates from files: every way in gives the same estimates, and mistakes name column and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import choice_files as files
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from api.cli import main
from api.evaluate.choice_input import ChoiceOptions
from api.evaluate.choices import evaluate_file
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.errors import DataError
from bart.ope import LoggedChoices, estimate
from bart.ope.inputs import files as inputs_files
from bart.ope.inputs.kinds import format_of
from bart.ope.policies.choices import parse_estimator
from bart.ope.records.reduced_choices import reduced

K = 4
PMF = ",".join(f"p{a}" for a in range(K))
Q = ",".join(f"q{a}" for a in range(K))


def world(n: int = 3_000, seed: int = 0) -> dict[str, np.ndarray]:
    """A softmax log over 4 actions with two context numbers; action 2 earns .3, the others .1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    score = x @ rng.normal(size=(2, K))
    logging, target = (np.exp(s) / np.exp(s).sum(axis=1, keepdims=True) for s in (score, -0.5 * score))
    action = np.minimum((np.cumsum(logging, axis=1) < rng.random((n, 1))).sum(axis=1), K - 1)
    reward = (rng.random(n) < 0.1 + 0.2 * (action == 2)).astype(np.float64)
    return {
        "x": x,
        "reward": reward,
        "action": action,
        "propensity": logging[np.arange(n), action],
        "target_pmf": target,
        "q_hat": np.clip(0.1 + 0.2 * (np.arange(K) == 2) + 0.05 * rng.normal(size=(n, K)), 0, 1),
        "user": rng.integers(0, n // 5, n),
    }


def table(w: dict[str, np.ndarray], names: bool = False) -> pa.Table:
    row = np.arange(len(w["reward"]))
    return pa.table(
        {
            "reward": w["reward"],
            "action": [f"p{a}" for a in w["action"]] if names else w["action"],
            "propensity": w["propensity"],
            "of logged": w["target_pmf"][row, w["action"]],
            "best": [f"p{a}" for a in w["target_pmf"].argmax(axis=1)] if names else w["target_pmf"].argmax(axis=1),
            "user": [f"user {u}" for u in w["user"]],
            "at": [f"2026-03-{1 + i % 20:02d}T12:00:00Z" for i in row],
            **{f"x{j}": w["x"][:, j] for j in range(2)},
            **{f"p{a}": w["target_pmf"][:, a] for a in range(K)},
            **{f"q{a}": w["q_hat"][:, a] for a in range(K)},
        }
    )


def evaluated(path: Path, kind: str = "table", options: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return evaluate_file(
        path, kind, ChoiceOptions(**(options or {})), load_settings({"seed": 3}), None, Quiet(), **more
    )


def estimates(report: dict[str, Any], policy: str) -> dict[str, Any]:
    return dict(next(row for row in report["policies"] if row["name"] == policy)["estimates"])


ALL = {"target_pmf": [f"new={PMF}"], "q_hat": Q.split(",")}


def test_a_reduced_record_gives_what_the_full_one_gives() -> None:
    w = world()
    row = np.arange(len(w["reward"]))
    full = LoggedChoices(*(w[key] for key in ("reward", "action", "propensity", "target_pmf", "q_hat")))
    pmf = w["target_pmf"]
    small = reduced(
        w["reward"],
        w["propensity"],
        pmf[row, w["action"]],
        value=(pmf * w["q_hat"]).sum(axis=1),
        predicted=w["q_hat"][row, w["action"]],
        limits=(pmf.min(), pmf.max()),
    )
    for name, parameters in {
        "ips": {},
        "snips": {},
        "dm": {},
        "dr": {},
        "sndr": {},
        "clipped_ips": {"cap": 3.0},
        "ncis": {"cap": 3.0},
        "switch_dr": {"tau": 2.0},
        "dros": {"lam": 2.0},
        "sg_ips": {"lam": 0.1},
        "sg_dr": {"lam": 0.1},
    }.items():
        one, other = estimate(name, full, **parameters), estimate(name, small, **parameters)
        for key in ("value", "lower", "upper", "effective_sample_size", "max_weight"):
            assert getattr(one, key) == pytest.approx(getattr(other, key), rel=1e-10), (name, key)
        assert one.verdict == other.verdict
    with pytest.raises(ValueError, match="pmf of this log was not kept"):
        estimate("mips", small, embedding=np.arange(K), logging_pmf=pmf)


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.gz"])
@pytest.mark.parametrize("names", [False, True])
def test_a_table_read_in_batches_gives_what_the_arrays_give(
    ending: str, names: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs_files, "BATCH", 700)
    monkeypatch.setattr(inputs_files, "_BLOCK", 1 << 16)
    w, path = world(), tmp_path / f"log.{ending}"
    if ending == "parquet":
        pq.write_table(table(w, names), path)
    else:
        with pa.output_stream(path, compression="detect") as stream:
            csv.write_csv(table(w, names), stream)
    found = estimates(evaluated(path, options=ALL, level=0.9), "new")
    full = LoggedChoices(*(w[key] for key in ("reward", "action", "propensity", "target_pmf", "q_hat")))
    assert set(found) == {"snips", "dr", "ips", "dm"}
    for name, got in found.items():
        expected = estimate(name, full, level=0.9)
        for key in ("value", "lower", "upper"):
            assert got[key] == pytest.approx(getattr(expected, key), rel=1e-9), (name, key)


def test_the_ways_to_state_a_policy_agree(tmp_path: Path) -> None:
    w, path = world(), tmp_path / "log.parquet"
    pq.write_table(table(w, names=True), path)
    report = evaluated(
        path, options={**ALL, "target_probability": ["p=of logged"], "target_action": ["best"]}, everything=True
    )
    by_pmf, by_probability = estimates(report, "new"), estimates(report, "p")
    for name in ("ips", "snips"):
        assert by_pmf[name]["value"] == pytest.approx(by_probability[name]["value"], rel=1e-12)
    greedy = np.eye(K)[w["target_pmf"].argmax(axis=1)]
    full = LoggedChoices(w["reward"], w["action"], w["propensity"], greedy, w["q_hat"])
    for name in ("ips", "snips", "dr", "dm"):
        assert estimates(report, "best")[name]["value"] == pytest.approx(estimate(name, full).value, rel=1e-9)
    assert report["estimators_left_out"]["dr"].startswith("for p: ")
    logging = estimates(report, "logging")
    assert logging["ips"]["value"] == pytest.approx(w["reward"].mean())
    assert logging["ips"]["max_weight"] == pytest.approx(1.0)


def test_an_npz_of_choices_or_slates_is_read_by_its_names(tmp_path: Path) -> None:
    w = world(500)
    np.savez(tmp_path / "c.npz", **{key: w[key] for key in ("reward", "action", "propensity", "target_pmf", "q_hat")})
    report = evaluated(tmp_path / "c.npz", "npz")
    full = LoggedChoices(*(w[key] for key in ("reward", "action", "propensity", "target_pmf", "q_hat")))
    assert estimates(report, "target")["dr"]["value"] == estimate("dr", full).value
    rng = np.random.default_rng(0)
    p, t = rng.uniform(0.2, 0.6, (400, 3)), rng.uniform(0.2, 0.6, (400, 3))
    arrays = {
        "reward": (rng.random((400, 3)) < 0.3).astype(float),
        **{f"{kind}_propensity": v for kind, v in (("slate", p.prod(1)), ("marginal", p), ("cascade", p.cumprod(1)))},
        **{f"target_{kind}": v for kind, v in (("slate", t.prod(1)), ("marginal", t), ("cascade", t.cumprod(1)))},
    }
    np.savez(tmp_path / "s.npz", **arrays)
    report = evaluated(tmp_path / "s.npz", "npz", everything=True)
    assert report["kind"] == "slates"
    value = estimates(report, "target")["independent_ips"]["value"]
    assert value == pytest.approx((arrays["reward"] * t / p).sum(axis=1).mean(), rel=1e-12)
    with pytest.raises(DataError, match="do not go with npz"):
        evaluated(tmp_path / "s.npz", "npz", {"policies": ["uniform"]})
    np.savez(tmp_path / "bad.npz", reward=np.ones(3))
    with pytest.raises(DataError, match="has no array 'action'"):
        evaluated(tmp_path / "bad.npz", "npz")


def test_without_propensities_only_a_model_speaks_and_the_warning_comes_first(tmp_path: Path) -> None:
    w, path = world(), tmp_path / "log.csv"
    csv.write_csv(table(w).drop(["propensity"]), path)
    report = evaluated(path, options={**ALL, "propensities": "none"}, everything=True)
    found = estimates(report, "new")
    assert list(found) == ["dm"]
    assert found["dm"]["verdict"] == "weak"
    assert found["dm"]["warnings"][0] == report["warnings"][0]
    assert "no propensities" in report["warnings"][0]
    fitted = evaluated(path, options={"target_pmf": [PMF], "context": ["x0", "x1"], "propensities": "fit"})
    assert "estimated, not logged" in fitted["warnings"][0]
    # The model that fits them is the one that drew them: near the value by logged propensities.
    csv.write_csv(table(w), path)
    logged = estimates(evaluated(path, options={"target_pmf": [PMF]}), "target")["snips"]
    value = estimates(fitted, "target")["snips"]["value"]
    assert logged["lower"] < value < logged["upper"]


def test_rows_of_one_user_hang_together_and_earlier_rows_can_be_left_out(tmp_path: Path) -> None:
    w, path = world(), tmp_path / "log.csv"
    csv.write_csv(table(w), path)
    from api.options import moment

    report = evaluated(
        path,
        options={"target_probability": ["of logged"], "user": "user", "timestamp": "at"},
        since=moment("2026-03-11", "--since"),
    )
    kept = np.arange(3_000) % 20 >= 10
    assert report["log"]["choices"] == kept.sum()
    assert report["left_out"] == {"before the time asked for": int((~kept).sum())}
    assert estimates(report, "of logged")["ips"]["interval"] == "empirical_likelihood"
    with pytest.raises(ValueError, match="takes rows as independent"):
        evaluated(path, options={"target_probability": ["of logged"], "user": "user"}, interval="normal")


def dsjson(path: Path, n: int = 1_500) -> np.ndarray:
    rng = np.random.default_rng(1)
    rewards = np.zeros(n)
    with path.open("w") as stream:
        for i in range(n):
            p = np.full(K, 0.2 / K)
            p[i % K] += 0.8
            order = np.argsort(-p, kind="stable")
            a = int(rng.choice(K, p=p))
            rewards[i] = rng.random() < 0.1 + 0.3 * (a == 1)
            line = {
                "EventId": f"e{i}",
                "Timestamp": "2026-03-01T12:00:00Z",
                "a": (order + 1).tolist(),
                "p": p[order].tolist(),
                "c": {"_multi": [{"A": {"id": f"item {j}"}} for j in range(K)]},
                "_label_cost": -rewards[i],
                "_label_probability": p[a],
                "_label_Action": a + 1,
                "_labelIndex": a,
                "_skipLearn": i % 10 == 9,
            }
            stream.write(json.dumps(line) + "\n")
        stream.write("{not json\n")
    return rewards


def test_a_dsjson_log_gives_the_value_of_known_policies(tmp_path: Path) -> None:
    path = tmp_path / "log.dsjson"
    dsjson(path)
    rows = [
        {"request_id": f"e{i}", "item_id": f"item {j}", "score": float(j == 1)} for i in range(1_500) for j in range(K)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "scores.parquet")
    report = evaluated(
        path, "dsjson", options={"policies": ["uniform", "first:0.2"], "scores": [f"{tmp_path}/scores.parquet:0.2"]}
    )
    assert report["left_out"] == {"not JSON": 1, "not displayed (_skipLearn)": 150}
    for policy, truth in (("uniform", 0.175), ("first, epsilon 0.2", 0.115), ("scores, epsilon 0.2", 0.355)):
        found = estimates(report, policy)["snips"]
        assert found["lower"] < truth < found["upper"], policy
    half = pa.Table.from_pylist(rows[: len(rows) // 2])
    pq.write_table(half, tmp_path / "half.parquet")
    with pytest.raises(DataError, match=r"has no score for .* expected at most 10%"):
        evaluated(path, "dsjson", options={"scores": [f"{tmp_path}/half.parquet"]})


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("propensity", 7, 0.0, r"column 'propensity', row 8 is 0; expected \(0, 1\]"),
        ("reward", 3, float("inf"), r"column 'reward', row 4 is inf; expected a finite number"),
        ("p1", 900, 0.9999, r"columns 'p0' to 'p3', row 901 sum to .*; expected 1"),
        ("p2", 2, -0.5, r"column 'p2', row 3 is -0.5; expected \[0, 1\]"),
    ],
)
def test_a_bad_value_is_named_by_column_and_row(
    column: str, row: int, value: float, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs_files, "BATCH", 256)
    whole = table(world(1_000))
    values = whole[column].to_numpy().copy()
    values[row] = value
    for ending, write in (("csv", csv.write_csv), ("parquet", pq.write_table)):
        write(
            whole.set_column(whole.schema.get_field_index(column), column, pa.array(values)), tmp_path / f"l.{ending}"
        )
        with pytest.raises(ValueError, match=message):
            evaluated(tmp_path / f"l.{ending}", options=ALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-probability", "nothing"], "has no column 'nothing'; expected one of reward, action,"),
        ([], "no evaluation policy is named; expected --target-probability"),
        (["--target-pmf", "p0,p1"], "column 'action', row"),
        (["--target-probability", "user"], "column 'user', row 1 is 'user"),
        (["--target-probability", "of logged", "--estimator", "foo"], "estimator is 'foo'; expected one of ips,"),
        (["--target-probability", "of logged", "--estimator", "dr"], "dr cannot be estimated for 'of logged'"),
        (["--target-probability", "of logged", "--interval", "foo"], "interval is 'foo'; expected one of"),
        (["--target-probability", "of logged", "--level", "2"], "--level is 2.0; expected a number in (0, 1)"),
        (["--policy", "popularity"], "go with page logs and DSJSON"),
        (["--target-pmf", PMF, "--reward-range", "3"], "--reward-range is '3'; expected two numbers"),
        (["--target-pmf", PMF, "--propensities", "maybe"], "expected one of logged, fit, none"),
        (["--format", "spreadsheet"], "--format is 'spreadsheet'; expected one of pages"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_expected(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv.write_csv(table(world(200)), tmp_path / "log.csv")
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(tmp_path / "log.csv"), *options])
    said = capsys.readouterr().err
    assert done.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_the_command_writes_a_report_of_every_estimator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv.write_csv(table(world(800)), tmp_path / "log.csv")
    with pytest.raises(SystemExit) as done:
        options = ["--target-pmf", PMF, "--context", "x0,x1", "--all", "--out", str(tmp_path / "report")]
        main(["evaluate", str(tmp_path / "log.csv"), *options])
    assert done.value.code == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    found = estimates(report, "target")
    assert {"ips", "snips", "dm", "dr", "mrdr", "switch_dr", "clipped_ips"} <= set(found)
    assert report["policies"][0]["parameters"]["clipped_ips"]["cap"] >= 1
    html = (tmp_path / "report" / "report.html").read_text()
    assert "expected reward a choice" in html
    assert "src=" not in html
    assert "mips left out" in capsys.readouterr().out


def test_kinds_are_told_by_the_name_and_estimators_take_parameters(tmp_path: Path) -> None:
    for name, kind in (("a.csv", "table"), ("a.tsv.gz", "table"), ("a.jsonl", "dsjson"), ("a.npz", "npz")):
        (tmp_path / name).write_text("")
        assert format_of(tmp_path / name) == kind
    assert format_of(tmp_path) == "pages"
    (tmp_path / "a.xls").write_text("")
    with pytest.raises(DataError, match="does not tell by its name"):
        format_of(tmp_path / "a.xls")
    assert parse_estimator("clipped_ips:cap=10").parameters == {"cap": 10.0}
    with pytest.raises(ValueError, match="expected NAME or NAME:parameter=number"):
        parse_estimator("clipped_ips:10")


def test_a_long_log_is_summed_up_to_the_report_of_its_rows(tmp_path: Path) -> None:
    pq.write_table(files.choice_table(np.random.default_rng(5), 20_000), tmp_path / "log.parquet")
    options = {"target_pmf": ["new=p0,p1,p2"], "target_probability": ["other=target"], "q_hat": ["q0", "q1", "q2"]}
    rows, sums = (
        evaluated(tmp_path / "log.parquet", options=options, everything=True, at_once=n) for n in (10**6, 100)
    )
    assert sums["log"] == pytest.approx(rows["log"], rel=1e-12)
    for one, two in zip(rows["policies"], sums["policies"], strict=True):
        assert two["pareto_k"] == pytest.approx(one["pareto_k"], abs=0.02)
        assert (two["name"], set(two["estimates"])) == (one["name"], set(one["estimates"]))
        for name in one["estimates"]:
            for key in ("value", "lower", "upper", "effective_sample_size"):
                assert two["estimates"][name][key] == pytest.approx(one["estimates"][name][key], rel=1e-4), (name, key)
            assert two["estimates"][name]["verdict"] == one["estimates"][name]["verdict"]
    for one, two in zip(rows["selection"]["pairwise"], sums["selection"]["pairwise"], strict=True):
        for key in ("value", "lower", "upper", "standard_error"):
            assert two[key] == pytest.approx(one[key], rel=1e-4, abs=1e-6), key
        assert two["decision"] == one["decision"]
    assert sums["estimators_left_out"].keys() == rows["estimators_left_out"].keys()


def test_what_needs_all_rows_at_once_takes_a_long_log_in_one_piece(tmp_path: Path) -> None:
    table = files.choice_table(np.random.default_rng(5), 2_000)
    pq.write_table(table.append_column("stands_for", pa.array(np.ones(2_000))), tmp_path / "log.parquet")
    options: dict[str, Any] = {"target_probability": ["new=target"]}
    for more, interval in (
        ({"weight": "stands_for"}, None),
        ({}, "studentised"),
        ({"user": "user"}, "studentised"),
        ({"target_probability": (), "target_pmf": ["new=p0,p1,p2"], "context": ["q0"], "action": "action"}, None),
    ):
        asked = {**options, **more}
        one, two = (
            evaluated(tmp_path / "log.parquet", options=asked, interval=interval, at_once=n) for n in (10**6, 100)
        )
        assert one == two


def test_users_of_a_long_log_widen_intervals_as_they_do_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    one = files.choice_table(rng, 4_000, 200)
    pq.write_table(pa.concat_tables([one] * 4), tmp_path / "log.parquet")  # everything four times, by the same users
    options = {"target_probability": ["new=target"], "user": "user"}
    rows, sums = (evaluated(tmp_path / "log.parquet", options=options, at_once=n) for n in (10**6, 100))
    for name in ("ips", "snips"):
        width = [
            report["policies"][0]["estimates"][name]["upper"] - report["policies"][0]["estimates"][name]["lower"]
            for report in (rows, sums)
        ]
        assert width[1] == pytest.approx(width[0], rel=0.1)
        assert rows["policies"][0]["estimates"][name]["verdict"] == sums["policies"][0]["estimates"][name]["verdict"]
    errors = [report["selection"]["versus_baseline"][0]["standard_error"] for report in (rows, sums)]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)


@pytest.mark.parametrize("at_once", [10**6, 0])
def test_a_policy_that_takes_none_of_the_logged_actions_is_left_out_alone(tmp_path: Path, at_once: int) -> None:
    """As rows and summed up. The others have the numbers that they have without it."""
    rows = table(world(500))
    path = tmp_path / "log.parquet"
    pq.write_table(rows.append_column("never", pa.array(np.zeros(len(rows)))), path)
    told = "never is left out: it takes none of the logged actions, so this log tells nothing of its value"
    alone, beside = (
        evaluated(path, options={"target_probability": targets}, at_once=at_once)
        for targets in (["new=of logged"], ["new=of logged", "never=never"])
    )
    assert (alone["warnings"], beside["warnings"]) == ([], [told])
    assert [row["name"] for row in beside["policies"]] == [row["name"] for row in alone["policies"]]
    for name in ("ips", "snips"):
        assert estimates(beside, "new")[name]["value"] == estimates(alone, "new")[name]["value"]
        assert estimates(beside, "new")[name]["verdict"] == estimates(alone, "new")[name]["verdict"]
    with pytest.raises(ValueError, match=told):
        evaluated(path, options={"target_probability": ["never=never"]}, at_once=at_once)
