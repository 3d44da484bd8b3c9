"""Open Bandit as its authors use it: each policy from the other's log, beside what that policy earned when it ran.

Two more things than estimates with intervals: the replay method (rows of the log kept so that they are distributed as
the other policy's, Li et al. 2011), and relative errors over bootstrap samples of the log, the figure that the data
set's paper compares estimators by. And the original CSV files, of any campaign, from where the user has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from bart.errors import DataError
from bart.ope.estimate import estimate
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Estimate
from bart.types import Floats, Ints
from simulator.datasets.generic_logs import accepted

Policy = Literal["random", "bts"]
RESAMPLED = 20_000_000  # rows that are drawn again for relative errors: the whole data set has 26 million


@dataclass(frozen=True, slots=True)
class RelativeError:
    """|estimate - on-policy mean| / on-policy mean over bootstrap samples of the log: mean, and its central 95 %."""

    mean: float
    lower: float
    upper: float


def on_policy(reward: Floats, level: float, name: str = "on_policy") -> Estimate:
    """The mean of rewards 0 and 1 with the exact binomial interval."""
    n = len(reward)
    same = LoggedChoices(reward, np.zeros(n, dtype=np.int64), np.ones(n), np.ones((n, 1)))
    return replace(estimate("ips", same, "clopper_pearson", level=level), name=name)


def replay_estimate(data: LoggedChoices, rng: np.random.Generator, level: float = 0.95) -> Estimate:
    """The mean reward of the rows that rejection sampling keeps; `n` is how many those are.

    Unbiased in what it keeps, and wasteful: one row in (largest weight). Raises DataError where it keeps none.
    """
    kept = accepted(data.propensity, data.target_propensity(), rng)
    if not kept.any():
        raise DataError("replay keeps no row of the log; expected policies that agree more often")
    return on_policy(data.reward[kept], level, "replay")


def relative_errors(
    data: LoggedChoices, truth: float, names: Sequence[str], rng: np.random.Generator, samples: int = 200
) -> Mapping[str, RelativeError]:
    """Of each estimator of `ESTIMATORS`, and of "replay", over bootstrap samples of the rows.

    truth: mean reward of the evaluated policy's own log, taken as it is: its own error is part of what is shown.
    """
    if truth <= 0 or samples < 2:
        raise ValueError(f"truth is {truth} and samples {samples}; expected a positive mean and at least 2 samples")
    value: dict[str, list[float]] = {name: [] for name in (*names, "replay")}
    data = collapsed(data)
    for _ in range(samples):
        drawn = _rows(data, rng.integers(0, len(data), size=len(data)))
        for name in names:
            value[name].append(ESTIMATORS[name](drawn).value())
        kept = accepted(drawn.propensity, drawn.target_propensity(), rng)
        value["replay"].append(float(drawn.reward[kept].mean()) if kept.any() else 0.0)
    out = {}
    for name, found in value.items():
        error = np.abs(np.array(found) - truth) / truth
        lower, upper = np.quantile(error, [0.025, 0.975])
        out[name] = RelativeError(float(error.mean()), float(lower), float(upper))
    return out


@dataclass(frozen=True, slots=True, eq=False)
class CsvLog:
    """Impressions of one policy and campaign: item, position [n] int from 0, click [n], propensity [n]."""

    item: Ints
    position: Ints
    click: Floats
    propensity: Floats

    def __len__(self) -> int:
        return len(self.click)

    def frequency(self, n_items: int) -> Floats:
        """[n_items, positions] how often each item stood there: the mean pmf of a policy without context."""
        count = np.zeros((n_items, int(self.position.max()) + 1))
        np.add.at(count, (self.item, self.position), 1.0)
        return np.asarray(count / count.sum(axis=0))


def read_csv_log(folder: Path, policy: str, campaign: str) -> CsvLog:
    """The log in FOLDER/policy/campaign/campaign.csv, as the data set is laid out. Raises DataError."""
    file = Path(folder) / policy / campaign / f"{campaign}.csv"
    if not file.is_file():
        there = sorted({f.stem for f in Path(folder).glob("*/*/*.csv") if f.stem == f.parent.name})
        raise DataError(
            f"{file} does not exist; expected the Open Bandit Dataset's own layout, policy/campaign/campaign.csv"
            + (f", and --campaign {' or '.join(there)}" if there else "")
        )
    names = ("item_id", "position", "click", "propensity_score")
    try:
        table = csv.read_csv(file, convert_options=csv.ConvertOptions(include_columns=list(names)))
    except (pa.ArrowInvalid, KeyError, pa.ArrowKeyError) as error:
        raise DataError(f"{file} is not a log of the data set: {str(error).splitlines()[0]}") from None
    item, position, click, propensity = (table[name].to_numpy() for name in names)
    return CsvLog(
        item.astype(np.int64),
        position.astype(np.int64) - 1,
        click.astype(np.float64),
        propensity.astype(np.float64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class BothWays:
    """One policy from the other's log. estimates: by name, with replay and on_policy. data: the log as it was used."""

    estimates: dict[str, Estimate]
    relative_errors: Mapping[str, RelativeError]
    data: LoggedChoices


def both_directions(
    folder: Path, campaign: str, rng: np.random.Generator, level: float = 0.95, samples: int = 200
) -> dict[tuple[Policy, Policy], BothWays]:
    """{(log, policy): what was found} of a campaign's CSV files.

    Thompson sampling is evaluated as it ran, by its item frequencies at each position: it had no context, and its
    propensities moved over the week.
    """
    names: tuple[Policy, Policy] = ("random", "bts")
    logs = {policy: read_csv_log(folder, policy, campaign) for policy in names}
    n_items = 1 + max(int(log.item.max()) for log in logs.values())
    pmf = {"random": np.full((n_items, 3), 1 / n_items), "bts": logs["bts"].frequency(n_items)}
    out: dict[tuple[Policy, Policy], BothWays] = {}
    for log, policy in (names, names[::-1]):
        a = logs[log]
        data = LoggedChoices(
            a.click, a.item, a.propensity, np.broadcast_to(pmf[policy], (len(a), *pmf[policy].shape)), None, a.position
        )
        own = on_policy(logs[policy].click, level)
        found = {name: estimate(name, data, level=level) for name in ("ips", "snips")}
        found |= {"replay": replay_estimate(data, rng, level), "on_policy": own}
        few = max(2, min(samples, RESAMPLED // len(a)))
        errors = relative_errors(data, own.value, ("ips", "snips"), rng, few)
        out[log, policy] = BothWays(found, errors, data)
    return out


def collapsed(data: LoggedChoices) -> LoggedChoices:
    """The log with two actions, the logged one and all others together: the same to estimators, and small to resample.

    What estimators of single choices take of the actions not logged is their share of the target's expected reward.
    """
    pmf, row = data.pmf(), np.arange(len(data))
    own = data.target_propensity()
    rest = np.maximum(1 - own, 0.0)
    q_hat = None
    if data.q_hat is not None:
        logged = data.q_hat[row, data.action]
        others = np.einsum("nk,nk->n", pmf, data.q_hat) - own * logged
        q_hat = np.column_stack([logged, others / np.where(rest > 0, rest, 1.0)])
    pair = np.column_stack([own, rest])
    return LoggedChoices(data.reward, np.zeros(len(data), dtype=np.int64), data.propensity, pair, q_hat)


def _rows(data: LoggedChoices, row: Ints) -> LoggedChoices:
    return LoggedChoices(
        data.reward[row],
        data.action[row],
        data.propensity[row],
        data.target_pmf[row],
        None if data.q_hat is None else data.q_hat[row],
    )
