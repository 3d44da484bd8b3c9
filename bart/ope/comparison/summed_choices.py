"""Several evaluation policies on a log of single choices of any length: rows of a report, and comparisons, from sums.

The same as `bart.ope.policies.choices` and `bart.ope.comparison.choices` make of rows in memory, to the width of a cell
(see `bart.ope.engine.estimates`). Caps and shrinkages are chosen from one grid for all policies. Where rows of one user
hang together, errors are those of a bootstrap of users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from bart.ope.comparison.choices import BASELINE, only_selection
from bart.ope.comparison.selection import Selection, select
from bart.ope.comparison.selection_choices import pair_interval
from bart.ope.engine.choices import ROW_BY_ROW, WITH_MODEL, ChoiceKernel, label
from bart.ope.engine.estimates import ChoiceSums
from bart.ope.engine.sums import FEW, Statistics
from bart.ope.estimators.choices import ESTIMATORS, RECOMMENDED
from bart.ope.estimators.tuning import TUNABLE, slope
from bart.ope.inputs.table import Columns
from bart.ope.intervals.quantiles import chi_square_tail, student_quantile
from bart.ope.policies.choices import CHOSEN, MODEL_LACKING, NEEDS, Asked, grid, reasons_of, that_act, with_notes
from bart.ope.policies.pages import as_row
from bart.ope.records.estimate import Estimate
from bart.ope.verdict.tails import pareto_k, turning_factor

REPLICATES = 1_000
COMPARED = "snips"

Run: TypeAlias = "Callable[[ChoiceKernel, str], Statistics]"


@dataclass(frozen=True, slots=True, eq=False)
class SummedChoices:
    """sums: of the log. rows: of the report, one a policy. lacking: estimators left out, with the reason. compared: the
    parts of the report that compare policies. warnings: sentences on policies that are left out."""

    sums: Statistics
    rows: list[dict[str, Any]]
    lacking: dict[str, str]
    compared: dict[str, Any]
    warnings: Sequence[str] = ()


def summed_choices(
    run: Run,
    columns: Columns,
    asked: Sequence[Asked] = (),
    *,
    everything: bool = False,
    interval: str | None = None,
    level: float = 0.95,
    reward_range: tuple[float, float] | None = None,
    since: datetime | None = None,
    seed: int = 0,
) -> SummedChoices:
    """run: a kernel over the log, under the name of the pass. asked, everything: as of `evaluate_choices`.

    Raises ValueError for a named estimator that does not exist or lacks what it needs.
    """
    wanted, lacking = _wanted(columns, asked, everything)
    by_user, names = columns.user is not None, [*columns.targets, "logging"]
    kernel = ChoiceKernel(columns, {}, since, zero=0.0 if reward_range is None else reward_range[0], seed=seed)
    tuned = [each.name for each in wanted if each.name in TUNABLE and TUNABLE[each.name][0] not in each.parameters]
    grids: dict[str, list[float]] = {}
    if tuned:
        seen = run(kernel, "Looking at the weights")
        most = np.array([seen.total(f"{name}/weight most") for name in names])
        grids = {name: sorted(grid(name, most), reverse=TUNABLE[name][1]) for name in tuned}
    estimators: dict[str, Mapping[str, float]] = {COMPARED: {}}
    for each in wanted:
        tried: list[Mapping[str, float]] = [{TUNABLE[each.name][0]: value} for value in grids.get(each.name, ())]
        estimators |= {label(each.name, one): one for one in tried} or {each.name: each.parameters}
    draws = REPLICATES if by_user or interval == "percentile" else 0
    found = run(replace(kernel, estimators=estimators, replicates=draws, pairs=True), "Summing up the log")
    targets, told = that_act(columns.targets, lambda name: found.total(f"{name}/weight most") > 0)
    if told:  # rare: the others once more, as if they had been asked for alone
        rest = replace(columns, targets=targets)
        options: dict[str, Any] = {"everything": everything, "interval": interval, "level": level}
        again = summed_choices(run, rest, asked, **options, reward_range=reward_range, since=since, seed=seed)
        return replace(again, warnings=told)
    sums = {name: ChoiceSums(found, name, by_user) for name in names}
    rows: list[dict[str, Any]] = []
    for name, each_sums in sums.items():
        row, used = _estimates(each_sums, wanted, grids, interval, level, reward_range)
        rows.append({"name": name, "truth": None, "truth_error": None, "estimates": as_row(row), "parameters": used})
        rows[-1] |= {"weights": each_sums.weights(), **_sensitivity(each_sums)}
    selection = select_summed(sums, np.random.default_rng(seed), level=level, reward_range=reward_range)
    return SummedChoices(found, rows, reasons_of(lacking, len(columns.targets)), only_selection(selection))


def _wanted(
    columns: Columns, asked: Sequence[Asked], everything: bool
) -> tuple[list[Asked], dict[str, dict[str, list[str]]]]:
    """What is estimated for any policy; and the policies that lack an estimator, by its name and the reason."""
    wanted = list(asked) or [Asked(name) for name in (ESTIMATORS if everything else RECOMMENDED)]
    lacking: dict[str, dict[str, list[str]]] = {}
    for each in wanted:
        if each.name not in ESTIMATORS:
            raise ValueError(f"estimator is {each.name!r}; expected one of {', '.join(ESTIMATORS)}")
        for policy, target in columns.targets.items():
            if each.name in WITH_MODEL and not (columns.q_hat and target.kind != "probability"):
                why = MODEL_LACKING
            elif each.name not in ROW_BY_ROW:
                why = f"it needs {' and '.join(NEEDS[each.name])}"
            else:
                continue
            if asked:
                raise ValueError(f"{each.name} cannot be estimated for {policy!r}: {why}")
            lacking.setdefault(each.name, {}).setdefault(why, []).append(policy)
    whole = {name for name, why in lacking.items() if sum(map(len, why.values())) == len(columns.targets)}
    return [each for each in wanted if each.name not in whole], lacking


def _estimates(
    sums: ChoiceSums,
    wanted: Sequence[Asked],
    grids: Mapping[str, Sequence[float]],
    interval: str | None,
    level: float,
    reward_range: tuple[float, float] | None,
) -> tuple[dict[str, Estimate], dict[str, dict[str, float]]]:
    """Estimates of a policy by name, and the parameters that were chosen or given."""
    row: dict[str, Estimate] = {}
    used: dict[str, dict[str, float]] = {}
    there = set(sums.estimators())
    for each in wanted:
        named, given, notes = each.name, dict(each.parameters), list[str]()
        if each.name in grids:
            parameter = TUNABLE[each.name][0]
            tried = [label(each.name, {parameter: value}) for value in grids[each.name]]
            if tried[0] not in there:
                continue
            value, error = ([of(one) for one in tried] for of in (sums.value, sums.standard_error))
            best = slope(np.array(value), np.array(error), level)[0]
            named, given = tried[best], {parameter: grids[each.name][best]}
            notes = [CHOSEN.format(parameter=parameter, value=given[parameter])]
        if named in there:
            row[each.name] = with_notes(sums.estimate(named, interval, level, reward_range), (), notes)
            if given:
                used[each.name] = given
    return row, used


def _sensitivity(sums: ChoiceSums) -> dict[str, Any]:
    """As of rows in memory, from cells of nearly equal rows."""
    count, weight, reward = sums.cells()
    found: dict[str, Any] = {"pareto_k": pareto_k(weight, count)}
    if sums.policy != BASELINE:
        mean = sums.found.total("reward") / sums.n
        found["sensitivity"] = {"factor": turning_factor(weight, reward, mean, count)}
    return found


def select_summed(
    sums: Mapping[str, ChoiceSums],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    reward_range: tuple[float, float] | None = None,
) -> Selection:
    """As `select_choices`, from the sums of one log; the logging policy is what others are compared with."""
    names, each = tuple(sums), list(sums.values())
    found, n = each[0].found, each[0].n
    value = np.array([one.value(COMPARED) for one in each])
    terms, limits, _ = zip(*(one.ranged(COMPARED, reward_range) for one in each), strict=True)
    reach = limits[0][1] - limits[0][0]
    if each[0].by_user:
        drawn = np.stack([one.replicates(COMPARED) for one in each], axis=1)
        covariance, clusters = np.cov(drawn, rowvar=False), len(found.keys("users"))
    else:
        covariance, clusters = _covariance(each, value), n

    def by_user(i: int, j: int) -> tuple[float, float, float]:
        gap, error = value[i] - value[j], float((drawn[:, i] - drawn[:, j]).std(ddof=1))
        half = student_quantile(0.5 + level / 2, max(min(clusters, FEW) - 1, 1)) * error
        return float(gap - half), float(gap + half), chi_square_tail((gap / error) ** 2, 1) if error > 0 else 1.0

    def by_likelihood(i: int, j: int) -> tuple[float, float, float]:
        count, gap, product = (found.values(f"pair {i} {j}/{what}") for what in ("count", "weight", "sum"))
        zero = terms[i].residual_limits[0]
        moved = product + (found.total("zero") - zero) * (gap - count)
        cells = gap / count - 1, moved / count, count
        return pair_interval(terms[i], terms[j], *cells, float(value[i] - value[j]), level, reach, zero)

    selection = select(
        names,
        value,
        _standing_for(covariance, n),
        rng,
        baseline=BASELINE,
        level=level,
        verdicts=[one.diagnostics().verdict for one in each],
        pair_interval=by_user if each[0].by_user else by_likelihood,
        warnings=[f"users are counted up to {FEW}"] if each[0].by_user and clusters >= FEW else [],
        rows=n,
    )
    return replace(selection, clusters=clusters)


def _covariance(sums: Sequence[ChoiceSums], value: Any) -> Any:
    """[p, p] of the errors of self-normalised estimates, from the products of what each policy sums up."""
    p, n, found = len(sums), sums[0].n, sums[0].found
    total = [found.total(f"{one.policy}/{COMPARED}/weight") for one in sums]
    out = np.empty((p, p))
    for i in range(p):
        for j in range(i, p):
            both, left, right, weights = found.values(f"pair {i} {j}/moments")
            spread = both - value[j] * left - value[i] * right + value[i] * value[j] * weights
            out[i, j] = out[j, i] = spread / (total[i] * total[j]) * n / (n - 1)
    return out


def _standing_for(covariance: Any, n: int) -> Any:
    """[2 p, p] of influence, mean 0, that stands for n rows whose estimates have this covariance."""
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    half = (vectors * np.sqrt(np.maximum(values, 0.0))).T * n
    rows = np.concatenate([half, -half])
    return rows * np.sqrt((len(rows) - 1) / len(rows) / 2)
