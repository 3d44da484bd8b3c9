"""Sums of logs in parts: they add up, they are what the rows give at once, and intervals follow from them."""

from __future__ import annotations

import math
import pickle
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import choice_files as files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from bart.errors import DataError, SupportError
from bart.ope import estimate
from bart.ope.engine.choices import ROW_BY_ROW, ChoiceKernel
from bart.ope.engine.estimates import ChoiceSums
from bart.ope.engine.run import Engine, kept, log_files, run_kernel
from bart.ope.engine.sums import Part, Statistics, part_statistics
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.inputs.choices import choice_input
from bart.ope.inputs.table import Columns, Target, read_table
from bart.ope.intervals.choices import corners_of
from bart.ope.intervals.empirical_likelihood import empirical_likelihood
from bart.ope.intervals.poisson_hash import counts, hash_rows, hash_text, replicate_sums
from bart.ope.verdict.choices import diagnose

MODEL, PLAIN, choice_table, write_files = files.MODEL, files.PLAIN, files.choice_table, files.write_files

GIVEN: dict[str, dict[str, float]] = {
    "clipped_ips": {"cap": 3.0},
    "ncis": {"cap": 3.0},
    "switch_dr": {"tau": 2.0},
    "dros": {"lam": 5.0},
    "sg_ips": {"lam": 0.1},
    "sg_dr": {"lam": 0.1},
}
EVERY = {name: GIVEN.get(name, {}) for name in ROW_BY_ROW}


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return choice_table(np.random.default_rng(5), 30_000)


@pytest.fixture(scope="module")
def log(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("engine") / "log", table, 3)


@pytest.fixture(scope="module")
def sums(log: Path) -> ChoiceSums:
    return ChoiceSums(run_kernel(ChoiceKernel(MODEL, EVERY), log), "new")


@pytest.fixture(scope="module")
def record(log: Path) -> Any:
    return choice_input(read_table(log, MODEL), "logged", np.random.default_rng(0)).policies["new"]


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_every_estimate_from_sums_is_that_of_the_rows_at_once(name: str, sums: ChoiceSums, record: Any) -> None:
    rows = estimate(name, record, "normal", **GIVEN.get(name, {}))
    here = sums.estimate(name, "normal")
    for field in ("value", "lower", "upper", "effective_sample_size", "max_weight", "mean_weight"):
        assert getattr(here, field) == pytest.approx(getattr(rows, field), rel=1e-11), field
    assert (here.n, here.verdict) == (rows.n, rows.verdict)
    assert [w for w in here.warnings if "1 % of weights" not in w] == [
        w for w in rows.warnings if "1 % of weights" not in w
    ]


@pytest.mark.parametrize("name", [name for name in ROW_BY_ROW if name != "dm"])
def test_the_binned_interval_is_the_exact_one_within_a_thousandth_of_its_width(
    name: str, sums: ChoiceSums, record: Any
) -> None:
    terms = ESTIMATORS[name](record, **GIVEN.get(name, {}))
    s = terms.base + terms.control * terms.residual
    one = np.ones(len(s))  # counts of 1: every row by itself, however many
    exact = empirical_likelihood(terms.control, s, corners_of(terms), 0.95, (0.0, 1.0), one)
    binned = sums.interval(name, "empirical_likelihood", sums.terms(name), _setting())
    assert np.abs(np.subtract(binned, exact)).max() < 1e-3 * (exact[1] - exact[0])


def test_limits_and_diagnostics_from_sums_are_those_of_the_rows(sums: ChoiceSums, record: Any) -> None:
    rows, here = diagnose(record), sums.diagnostics()
    assert sums.terms("dr").weight_limits == pytest.approx(ESTIMATORS["dr"](record).weight_limits, rel=1e-12)
    assert sums.terms("dr").residual_limits == ESTIMATORS["dr"](record).residual_limits
    assert sums.terms("dr").base_limits == ESTIMATORS["dr"](record).base_limits
    assert here.mean_weight_error == pytest.approx(rows.mean_weight_error, rel=1e-9)
    assert here.overlap == pytest.approx(rows.overlap, rel=1e-12)
    assert here.needed == rows.needed
    assert here.top_reward_share == pytest.approx(rows.top_reward_share, rel=0.02)


def test_several_processes_give_the_very_numbers_of_one_and_are_started_once(log: Path) -> None:
    kernel = ChoiceKernel(PLAIN, {"ips": {}, "snips": {}}, replicates=20)
    processes = Engine("local", 2)
    one, before = run_kernel(kernel, log), set(active_children())
    with kept(processes):
        run_kernel(kernel, log, processes)
        started = set(active_children())
        two = run_kernel(kernel, log, processes)
        assert set(active_children()) == started > before
    assert set(active_children()) == before
    assert one.names() == two.names()
    for name in one.names():
        assert one.values(name).tobytes() == two.values(name).tobytes(), name


def test_other_files_of_the_same_rows_agree_to_twelve_digits(table: pa.Table, log: Path, tmp_path: Path) -> None:
    kernel = ChoiceKernel(PLAIN, EVERY, replicates=10)
    first = run_kernel(kernel, log)
    other = run_kernel(kernel, write_files(tmp_path / "seven", table, 7))
    assert first.names() == other.names()
    for name in first.names():
        if name.startswith("part "):  # the means of parts, which are others
            assert other.values(name).sum() == pytest.approx(first.values(name).sum(), rel=1e-12), name
            continue
        assert (first.keys(name) == other.keys(name)).all()
        assert other.values(name) == pytest.approx(first.values(name), rel=1e-12), name


def test_sums_carry_what_rounding_takes() -> None:
    numbers = np.random.default_rng(1).normal(size=2_000) * 10.0 ** np.random.default_rng(2).integers(-8, 9, 2_000)
    total = Statistics()
    for number in numbers:
        total.put("x", number)
    assert total.total("x") == pytest.approx(math.fsum(numbers), rel=1e-15)


def test_statistics_go_through_arrow_unchanged_and_merge_by_key() -> None:
    found = Statistics()
    found.put("cells", [1.0, 2.0], key=[7, -3])
    found.put("least", 4.0, "min")
    found = Statistics.from_arrow(found.to_arrow())
    other = Statistics()
    other.put("cells", [10.0], key=[5])
    other.put("least", 3.0, "min")
    found.add(other)
    assert found.keys("cells").tolist() == [-3, 5, 7]
    assert found.values("cells").tolist() == [2.0, 10.0, 1.0]
    assert found.total("least") == 3.0
    distinct = np.random.default_rng(0).integers(-(2**62), 2**62, 500)
    for keys in (distinct, distinct[::7]):
        part = Statistics()
        part.put("users", np.ones(len(keys)), "few", key=np.unique(keys))
        found.add(Statistics.from_arrow(part.to_arrow()))
    assert found.keys("users").tolist() == np.sort(distinct)[:64].tolist()
    with pytest.raises(ValueError, match="least is a min and a sum"):
        found.put("least", 1.0)


def test_a_kernel_is_a_function_of_its_batch_and_can_be_pickled(log: Path) -> None:
    kernel = ChoiceKernel(PLAIN, {"ips": {}})
    again = pickle.loads(pickle.dumps(kernel))
    file = log_files(log)[0]
    assert part_statistics(kernel, Part.of(file)).to_arrow() == part_statistics(again, Part.of(file)).to_arrow()


def test_the_percentile_interval_follows_from_counts_by_user(log: Path, table: pa.Table) -> None:
    kernel = ChoiceKernel(PLAIN, {"snips": {}, "ips": {}}, replicates=300, seed=4)
    sums = ChoiceSums(run_kernel(kernel, log), "new", by_user=True)
    weight = table["target"].to_numpy() / table["propensity"].to_numpy()
    times = counts(hash_text(table["user"].to_pylist()), 300, 4).astype(float)
    value = times @ (weight * table["reward"].to_numpy()) / (times @ weight)
    assert sums.replicates("snips") == pytest.approx(value, rel=1e-11)
    found = sums.estimate("snips", "percentile")
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(value, [0.025, 0.975])), rel=1e-11)
    with pytest.raises(ValueError, match="takes rows as independent"):
        sums.estimate("snips", "normal")


@pytest.mark.parametrize(("users", "weak"), [(39, True), (40, False), (2_000, False)])
def test_few_users_make_a_clustered_interval_weak_as_without_an_engine(users: int, weak: bool, tmp_path: Path) -> None:
    rows = choice_table(np.random.default_rng(3), 9_000, users)
    log = write_files(tmp_path, rows, 3)
    kernel = ChoiceKernel(PLAIN, {"snips": {}}, replicates=100)
    here = ChoiceSums(run_kernel(kernel, log), "logging", by_user=True).estimate("snips")
    record = choice_input(read_table(log, PLAIN), "logged", np.random.default_rng(0)).policies["logging"]
    there = estimate("snips", record, user=rows["user"].to_numpy(), rng=np.random.default_rng(0))
    said = f"{users} users: an interval clustered by fewer than 40 of them is too short"
    assert (said in here.warnings, said in there.warnings) == (weak, weak)
    assert here.verdict == there.verdict == ("weak" if weak else "conclusive")


def test_the_bootstrap_error_of_independent_rows_is_that_of_the_delta_method(log: Path) -> None:
    columns = Columns(PLAIN.reward, PLAIN.propensity, PLAIN.targets)
    sums = ChoiceSums(run_kernel(ChoiceKernel(columns, {"snips": {}}, replicates=400), log), "new")
    assert sums.replicates("snips").std() == pytest.approx(sums.standard_error("snips"), rel=4 / np.sqrt(2 * 400))


def test_counts_follow_the_poisson_law_of_mean_one() -> None:
    found = counts(hash_text([f"user {i}" for i in range(4_000)]), 100, seed=1)
    observed = np.bincount(np.minimum(found.ravel(), 6), minlength=7)
    expected = np.append(stats.poisson.pmf(np.arange(6), 1), stats.poisson.sf(5, 1)) * found.size
    assert stats.chisquare(observed, expected).pvalue > 0.001


@pytest.mark.parametrize("pair", ["replicates", "users", "seeds", "rows"])
def test_counts_of_different_pairs_are_independent(pair: str) -> None:
    if pair == "replicates":
        both = counts(hash_text([str(i) for i in range(50_000)]), 2)
    elif pair == "users":
        both = counts(hash_text(["a", "b"]), 50_000).T
    elif pair == "seeds":
        users = hash_text([str(i) for i in range(50_000)])
        both = np.concatenate([counts(users, 1, seed=1), counts(users, 1, seed=2)])
    else:
        both = counts(hash_rows("part-0.parquet", 0, 50_000), 1).reshape(-1, 2).T  # neighbours in a file
    table = np.histogram2d(np.minimum(both[0], 4), np.minimum(both[1], 4), bins=np.arange(6) - 0.5)[0]
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_fast_replicate_sums_are_those_of_the_counts() -> None:
    rng = np.random.default_rng(0)
    user = hash_text([str(i) for i in rng.integers(0, 300, 2_000)])
    columns = rng.normal(size=(2_000, 3))
    assert replicate_sums(user, columns, 50, seed=9) == pytest.approx(
        counts(user, 50, 9).astype(float) @ columns, rel=1e-10, abs=1e-9
    )


def test_a_wrong_propensity_is_named_with_its_file_and_row(table: pa.Table, tmp_path: Path) -> None:
    bad = table["propensity"].to_numpy().copy()
    bad[7] = 0.0
    spoilt = table.set_column(table.schema.get_field_index("propensity"), "propensity", pa.array(bad))
    pq.write_table(spoilt, tmp_path / "part.parquet")
    with pytest.raises(SupportError, match=r"part\.parquet: column 'propensity', row 8 is 0; expected \(0, 1\]"):
        run_kernel(ChoiceKernel(PLAIN, {"ips": {}}), tmp_path)


def test_mistakes_are_one_line(tmp_path: Path, log: Path) -> None:
    with pytest.raises(DataError, match="holds no Parquet file"):
        run_kernel(ChoiceKernel(PLAIN, {"ips": {}}), tmp_path)
    with pytest.raises(ValueError, match="estimator is 'mrdr'; expected on an engine one of"):
        ChoiceKernel(PLAIN, {"mrdr": {}})
    with pytest.raises(DataError, match="--engine is 'ray'; expected local or spark"):
        Engine("ray")
    with pytest.raises(DataError, match="--master goes with --engine spark"):
        Engine("local", master="local[2]")
    lacking = Columns("reward", "propensity", {"new": Target("probability", ("nothing",))})
    with pytest.raises(DataError, match="has no column 'nothing'"):
        run_kernel(ChoiceKernel(lacking, {"ips": {}}), log)


def _setting() -> Any:
    from bart.ope.intervals.choices import Setting

    return Setting()
