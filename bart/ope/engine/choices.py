"""The kernel for single choices: what estimates, intervals and verdicts need of a batch, in a few numbers.

The estimators are those of `bart.ope.estimators.choices`, called on each batch: every one that reads a row by itself
fits. Of a policy and estimator are kept the sums of base, weight x residual and weight, and of their products; of
weights and contributions their cells, for intervals and shares that need all weights; for bootstraps the sums of each
replicate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bart.ope.engine.sums import Part, Statistics, cell_key, place_of, placed
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.inputs import files as inputs_files
from bart.ope.inputs.table import Columns, read_batch
from bart.ope.intervals.poisson_hash import Hashes, hash_rows, hash_text, replicate_sums
from bart.ope.records.balance_sums import of_chosen
from bart.ope.records.reduced_choices import reduced
from bart.ope.records.terms import Terms
from bart.ope.weights.choices import choice_weight, other_weight_limits
from bart.types import Floats

ROW_BY_ROW = (
    "dm", "ips", "snips", "clipped_ips", "ncis", "dr", "sndr", "switch_dr", "dros", "sg_ips", "sg_dr",
)  # fmt: skip
WITH_MODEL = ("dm", "dr", "sndr", "switch_dr", "dros", "sg_dr")
EDGES = (0, 0.1, 0.3, 1, 3, 10, 30, 100, 1_000)  # of the histogram of weights


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceKernel:
    """Sufficient statistics of single choices.

    columns: which column holds what; targets are the evaluation policies. estimators: parameters by `label`, of
    `ROW_BY_ROW`. pairs: whether policies are compared, by self-normalised weights. since: only rows whose timestamp is
    not before it. replicates: of the Poisson bootstrap, 0 for none; seed: of it. Rows of one user are drawn together
    where `columns.user` is given, rows by themselves otherwise.
    """

    columns: Columns
    estimators: Mapping[str, Mapping[str, float]]
    since: datetime | None = None
    replicates: int = 0
    seed: int = 0
    logging: bool = field(default=True)  # whether the logging policy is estimated too
    pairs: bool = False
    zero: float = 0.0  # the least possible reward: cells tell rewards apart by their distance from it

    def __post_init__(self) -> None:
        for name in self.estimators:
            if kind_of(name) not in ROW_BY_ROW:
                raise ValueError(f"estimator is {name!r}; expected on an engine one of {', '.join(ROW_BY_ROW)}")

    def read(self, part: Part) -> Iterator[Any]:
        """The record batches of a file, of the columns that are needed."""
        names, (file,), first = [*dict.fromkeys([*self.columns.numbers(), *self.columns.texts()])], part.files, 0
        for batch, _ in inputs_files.record_batches(file, names):
            yield placed(batch, file, first)
            first += batch.num_rows

    def __call__(self, batch: Any) -> Any:
        out = Statistics()
        if not batch.num_rows:
            return out.to_arrow()
        file, first = place_of(batch)
        found = read_batch(file, self.columns, batch, first, self.since)
        reward, propensity = found["reward"], found["propensity"]
        out.put("outside", batch.num_rows - len(reward))
        if not len(reward):
            return out.to_arrow()
        if "user" in found:
            user = hash_text(found["users"])
            seen = np.unique(user[np.unique(found["user"])])
            out.put("users", np.ones(len(seen)), "few", key=seen.view(np.int64))
        draws = self._draws(found, file, first)
        out.put("rows", len(reward))
        out.put("zero", self.zero, "min")
        out.put("reward", reward.sum())
        part = hash_text([f"{file.name} {first}"]).view(np.int64)
        for name, value in (
            ("rows", len(reward)),
            ("reward", reward.sum()),
            ("square", np.einsum("i,i->", reward, reward)),
        ):
            out.put(f"part {name}", [value], key=part)
        out.put("reward least", reward.min(), "min")
        out.put("reward most", reward.max(), "max")
        weights = []
        for policy, target in self.columns.targets.items():
            data = reduced(
                reward,
                propensity,
                found[f"target {policy}"],
                value=found.get(f"value {policy}"),
                predicted=found.get(f"predicted {policy}"),
                limits=found.get(f"limits {policy}", (0.0, 1.0)) if target.kind == "pmf" else (0.0, 1.0),
            )
            weights.append(self._policy(out, policy, data, draws))
            put_balance(out, policy, found)
        if self.logging:
            weights.append(self._policy(out, "logging", reduced(reward, propensity, propensity), draws))
        if self.pairs:
            put_pairs(out, weights, reward, self.zero)
        return out.to_arrow()

    def _draws(self, found: Mapping[str, Any], file: Path, first: int) -> Hashes | None:
        if not self.replicates:
            return None
        if "user" not in found:
            return hash_rows(file.name, first, len(found["reward"]))
        by_code: Hashes = hash_text(found["users"])
        return np.asarray(by_code[found["user"]], dtype=np.uint64)

    def _policy(self, out: Statistics, policy: str, data: Any, draws: Hashes | None) -> Floats:
        weight = choice_weight(data)
        put_weights(out, policy, weight, data)
        if data.q_hat is not None:
            out.put(f"{policy}/predicted least", data.q_hat[:, 0].min(), "min")
            out.put(f"{policy}/predicted most", data.q_hat[:, 0].max(), "max")
        drawn: list[Floats] = []
        kept: set[str] = set()
        for name, parameters in self.estimators.items():
            kind = kind_of(name)
            if kind in WITH_MODEL and data.q_hat is None:
                continue
            terms = ESTIMATORS[kind](data, **parameters)
            put_terms(out, f"{policy}/{name}", terms)
            if terms.control is not None:
                family = "dr" if kind in WITH_MODEL else "ips"
                if family not in kept:  # shrunk or not, normalised or not: the interval is of the plain weights
                    kept.add(family)
                    earned = terms.base + terms.control * (terms.residual - (0.0 if family == "dr" else self.zero))
                    put_cells(out, f"{policy}/cells {family}", terms.control, earned)
            drawn += [terms.base, terms.weight * terms.residual, terms.weight]
        if draws is not None and drawn:
            one = np.ones(len(weight))
            sums = replicate_sums(draws, np.stack([one, *drawn], axis=1), self.replicates, self.seed)
            used = [name for name in self.estimators if kind_of(name) not in WITH_MODEL or data.q_hat is not None]
            out.put(f"{policy}/drawn rows", sums[:, 0])
            for i, name in enumerate(used):
                for j, what in enumerate(("base", "product", "weight")):
                    out.put(f"{policy}/{name}/drawn {what}", sums[:, 1 + 3 * i + j])
        return weight


def label(name: str, parameters: Mapping[str, float]) -> str:
    """An estimator with a parameter as a kernel tells it from the same one with another."""
    return " ".join([name, *(repr(float(value)) for value in parameters.values())])


def kind_of(label: str) -> str:
    """The name of the estimator."""
    return label.partition(" ")[0]


def put_weights(out: Statistics, policy: str, weight: Floats, data: Any) -> None:
    """What diagnostics and limits say of the plain weights."""
    out.put(f"{policy}/weight", weight.sum())
    out.put(f"{policy}/weight square", np.dot(weight, weight))
    out.put(f"{policy}/weight most", weight.max(), "max")
    out.put(f"{policy}/overlap", np.minimum(weight, 1.0).sum())
    out.put(f"{policy}/weights", np.histogram(weight, [*EDGES, np.inf])[0])
    other = other_weight_limits(data.target_propensity(), data.propensity)
    for name, least, most in (
        ("propensity", float(data.propensity.min()), float(data.propensity.max())),
        ("target", float(data.target_pmf.min()), float(data.target_pmf.max())),
        ("other", *other),
    ):
        out.put(f"{policy}/{name} least", least, "min")
        out.put(f"{policy}/{name} most", most, "max")


def put_balance(out: Statistics, policy: str, found: Mapping[str, Any]) -> None:
    """What is known of all actions: by the column's number, or by the action's name where no columns stand for them."""
    sums, key = found.get(f"balance {policy}"), None
    if f"chosen {policy}" in found:
        chosen, names = found[f"chosen {policy}"], found["actions"]
        sums, key = of_chosen(found["action"], found["propensity"], chosen, len(names)), hash_text(names).view(np.int64)
    if sums is None:
        return
    place = f"{policy}/balance"
    out.put(f"{place}/least", sums.least, "min")
    out.put(f"{place}/most", sums.most, "max")
    for name, rows in sums.arrays().items():
        for i, row in enumerate(np.atleast_2d(rows)):
            out.put(f"{place}/{name} {i}", row, key=key)


def put_terms(out: Statistics, place: str, terms: Terms) -> None:
    """Sums of an estimator's terms and of their products, and the limits of what they can be."""
    product, own = terms.weight * terms.residual, terms.own_weight()
    pieces = {"base": terms.base, "product": product, "weight": terms.weight}
    names = list(pieces)
    for i, one in enumerate(names):
        out.put(f"{place}/{one}", pieces[one].sum())
        for other in names[i:]:
            # einsum needs no temporary of n rows; dot would split the sum by the machine's threads.
            out.put(f"{place}/{one} {other}", np.einsum("i,i->", pieces[one], pieces[other]))
    out.put(f"{place}/own square", np.einsum("i,i->", own, own))
    out.put(f"{place}/base least", terms.base_limits[0], "min")
    out.put(f"{place}/base most", terms.base_limits[1], "max")
    if terms.control is not None:
        out.put(f"{place}/control square", np.einsum("i,i->", terms.control, terms.control))
        out.put(f"{place}/control", terms.control.sum())


def put_pairs(out: Statistics, weights: Sequence[Floats], reward: Floats, zero: float) -> None:
    """Of each two policies by number: products of weights and of what they carry, and cells of their differences."""
    carried = [weight * reward for weight in weights]
    for i, one in enumerate(weights):
        for j in range(i, len(weights)):
            products = ((carried[i], carried[j]), (carried[i], weights[j]), (one, carried[j]), (one, weights[j]))
            out.put(f"pair {i} {j}/moments", [np.einsum("i,i->", a, b) for a, b in products])
            if j > i:
                put_cells(out, f"pair {i} {j}", 1 + one - weights[j], (one - weights[j]) * (reward - zero))


def put_cells(out: Statistics, place: str, weight: Floats, contribution: Floats) -> None:
    """Count, sums of weight, contribution and its size, by cells of nearly equal rows that are the same for any log."""
    key = (cell_key(weight) << 32) | (cell_key(contribution) & 0xFFFFFFFF)
    cell, group = np.unique(key, return_inverse=True)
    for name, values in (("count", None), ("weight", weight), ("sum", contribution), ("size", np.abs(contribution))):
        out.put(f"{place}/{name}", np.bincount(group, values, len(cell)), key=cell)
