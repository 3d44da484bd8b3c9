"""The Open Bandit Dataset: two logged policies of one A/B test, so each can be estimated from the other's log.

The sample (campaign `all`, 10,000 impressions a policy) is under data/open_bandit, with its attribution: Saito, Aihara,
Matsutani and Narita, Open Bandit Dataset and Pipeline (2021), CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.errors import DataError
from bart.ope.estimate import estimate
from bart.ope.models.reward_regression import cross_fit
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.verdict.choices import Diagnostics, diagnose
from bart.types import Floats, Ints, Strings
from simulator.datasets.open_bandit.replay import (
    Policy,
    RelativeError,
    both_directions,
    on_policy,
    relative_errors,
    replay_estimate,
)

POLICIES: tuple[Policy, ...] = ("random", "bts")
NAMES = {"random": "uniform", "bts": "Thompson sampling"}
N_ITEMS = 80
POSITIONS = 3
ESTIMATED = ("ips", "snips", "dr", "dm")
ATTRIBUTION = "Open Bandit Dataset, (c) ZOZO, Inc., CC BY 4.0; Saito, Aihara, Matsutani and Narita (2021)"


@dataclass(frozen=True, slots=True, eq=False)
class OpenBanditLog:
    """One policy's impressions, in the order of time.

    timestamp: [n] datetime64[us] UTC. item: [n] int in [0, 80). position: [n] int, 0 to 2 (left, centre, right).
    click: [n] 0.0 or 1.0. propensity: [n], of that item at that position. user_feature: [n, 4] str, hashed.
    """

    policy: Policy
    timestamp: Strings
    item: Ints
    position: Ints
    click: Floats
    propensity: Floats
    user_feature: Strings

    def __len__(self) -> int:
        return len(self.click)


@dataclass(frozen=True, slots=True)
class Direction:
    """One policy estimated from the log of the other.

    estimates: by estimator, off-policy, the last by the replay method. on_policy: the mean of the policy's own log,
    with its interval; for Thompson sampling the policy of that log went on learning, while the evaluated one stays at
    its priors. relative_errors: by estimator, over bootstrap samples of the log.
    """

    log: str
    policy: str
    estimates: Mapping[str, Estimate]
    diagnostics: Diagnostics
    on_policy: Estimate
    relative_errors: Mapping[str, RelativeError]

    @property
    def verdict(self) -> Verdict:
        """Of the doubly robust estimate, or of the self-normalised one where there is no model."""
        return self._main.verdict

    @property
    def _main(self) -> Estimate:
        return self.estimates.get("dr", self.estimates["snips"])

    @property
    def verdict_line(self) -> str:
        """The verdict, its reasons and the figures behind it, in one line."""
        figures = self.diagnostics
        reasons = "; ".join(self._main.warnings) or "no gate fires"
        return (
            f"{self.verdict}: {reasons}. {figures.n:,} choices, effective sample size"
            f" {figures.effective_sample_size:,.0f}, largest weight {figures.max_weight:,.1f}, mean weight"
            f" {figures.mean_weight:.3f} +- {figures.mean_weight_error:.3f}, overlap {figures.overlap:.2f}"
        )


def data_directory() -> Path:
    """Where the files are: beside this room in an installed wheel, data/open_bandit in a source checkout."""
    here = Path(__file__).resolve().parents[1]
    places = (here / "data" / "open_bandit", here.parents[1] / "data" / "open_bandit")
    for place in places:
        if (place / "random_all.parquet").is_file():
            return place
    raise DataError(f"the Open Bandit sample is missing; expected random_all.parquet in {places[0]} or {places[1]}")


def load(policy: Policy) -> OpenBanditLog:
    """The log of one policy, "random" or "bts"."""
    if policy not in POLICIES:
        raise ValueError(f"policy is {policy!r}; expected one of {', '.join(POLICIES)}")
    table = pq.read_table(data_directory() / f"{policy}_all.parquet")
    feature = [_strings(table, f"user_feature_{i}") for i in range(4)]
    return OpenBanditLog(
        policy,
        table["timestamp"].to_numpy().astype("datetime64[us]"),
        table["item_id"].to_numpy().astype(np.int64),
        table["position"].to_numpy().astype(np.int64) - 1,
        table["click"].to_numpy().astype(np.float64),
        table["propensity"].to_numpy(),
        np.stack(feature, axis=1),
    )


def policy_pmf(policy: Policy) -> Floats:
    """[80 items, 3 positions], each column a pmf: uniform, or Thompson sampling from its published priors."""
    if policy == "random":
        return np.full((N_ITEMS, POSITIONS), 1 / N_ITEMS)
    return np.asarray(np.load(data_directory() / "thompson_pmf.npy"), dtype=np.float64)


def choices(log: OpenBanditLog, target: Policy, q_hat: Floats | None = None) -> LoggedChoices:
    """The log as single choices, to be evaluated under the target policy."""
    pmf = policy_pmf(target)
    return LoggedChoices(
        reward=log.click,
        action=log.item,
        propensity=log.propensity,
        target_pmf=np.broadcast_to(pmf, (len(log), *pmf.shape)),
        q_hat=q_hat,
        position=log.position,
    )


def click_model(log: OpenBanditLog, rng: np.random.Generator, folds: int = 5) -> Floats:
    """q_hat [n, 80]: cross-fitted logistic regression on user features, position and item."""
    return cross_fit(
        user_features(log), log.item, log.click, N_ITEMS, rng, folds=folds, position=log.position, crossed=False
    )


def user_features(log: OpenBanditLog) -> Floats:
    """[n, values] the hashed user features, one-hot."""
    columns = []
    for i in range(log.user_feature.shape[1]):
        distinct, code = np.unique(log.user_feature[:, i].astype(str), return_inverse=True)
        columns.append(np.eye(len(distinct))[code])
    return np.concatenate(columns, axis=1)


def directions(rng: np.random.Generator, level: float = 0.95) -> tuple[Direction, Direction]:
    """Thompson sampling from the uniform log and the converse, each beside what the policy itself earned."""
    logs = {policy: load(policy) for policy in POLICIES}
    own = {policy: on_policy(log.click, level) for policy, log in logs.items()}
    first, second = rng.spawn(2)
    return (
        _direction(logs["random"], "bts", own, level, first),
        _direction(logs["bts"], "random", own, level, second),
    )


def evaluate(rng: np.random.Generator, level: float = 0.95) -> dict[str, Any]:
    """The report of both directions as plain values: verdict first, then estimates, the last one on-policy."""
    return _report("all", directions(rng, level), level)


def evaluate_folder(folder: Path, campaign: str, rng: np.random.Generator, level: float = 0.95) -> dict[str, Any]:
    """The same report of a campaign's CSV files, as the data set is laid out: FOLDER/policy/campaign/campaign.csv.

    Thompson sampling is evaluated as it ran, by its item frequencies at each position. Raises DataError.
    """
    found = tuple(
        Direction(
            NAMES[log],
            NAMES[policy],
            {name: e for name, e in run.estimates.items() if name != "on_policy"},
            diagnose(run.data),
            run.estimates["on_policy"],
            run.relative_errors,
        )
        for (log, policy), run in both_directions(folder, campaign, rng, level).items()
    )
    return _report(campaign, found, level)


def _report(campaign: str, found: Sequence[Direction], level: float) -> dict[str, Any]:
    return {
        "dataset": ATTRIBUTION,
        "campaign": campaign,
        "level": level,
        "directions": [
            {
                "title": f"{d.policy} policy, estimated from the {d.log} policy's log",
                "verdict": d.verdict,
                "verdict_line": d.verdict_line,
                "log": d.log,
                "policy": d.policy,
                "diagnostics": asdict(d.diagnostics),
                "estimates": [
                    asdict(e) | {"relative_error": abs(e.value - d.on_policy.value) / d.on_policy.value}
                    for e in (*d.estimates.values(), d.on_policy)
                ],
                "bootstrap_relative_error": {name: asdict(e) for name, e in d.relative_errors.items()},
            }
            for d in found
        ],
    }


def _direction(
    log: OpenBanditLog, target: Policy, own: dict[Policy, Estimate], level: float, rng: np.random.Generator
) -> Direction:
    data = choices(log, target, click_model(log, rng))
    estimates = {name: estimate(name, data, level=level, rng=rng) for name in ESTIMATED}
    estimates["replay"] = replay_estimate(data, rng, level)
    errors = relative_errors(data, own[target].value, ESTIMATED, rng)
    return Direction(NAMES[log.policy], NAMES[target], estimates, diagnose(data), own[target], errors)


def _strings(table: pa.Table, name: str) -> Strings:
    return np.asarray(table[name].cast(pa.string()).to_pylist(), dtype=object)
