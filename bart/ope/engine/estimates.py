"""Estimates of single choices from the sums that a `ChoiceKernel` made, whatever the number of rows.

Values, effective sample sizes and normal intervals follow from sums exactly. The empirical likelihood interval sees
rows in cells about 1 to 2 % wide with their exact sums (tests/bart/ope/engine/test_choices.py states how close it
comes), the percentile interval the replicates of the Poisson bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.ope.engine.choices import EDGES, WITH_MODEL, kind_of
from bart.ope.engine.sums import FEW, Statistics
from bart.ope.estimators.conclude import FEW_USERS, conclude, seen_range, with_range
from bart.ope.intervals.choices import Setting, likelihood_limits
from bart.ope.intervals.quantiles import normal_quantile, student_quantile
from bart.ope.records.balance_sums import BY_ACTION, BalanceSums
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.terms import Terms, reward_limits
from bart.ope.verdict.balance import judge_sums
from bart.ope.verdict.choices import GATES, Diagnostics, judge, worse
from bart.ope.verdict.order import judge_parts
from bart.ope.weights.choices import FEW_ROWS
from bart.types import Floats

ENGINE_INTERVALS = ("empirical_likelihood", "percentile", "normal", "student")
BY_USER_INTERVALS = ENGINE_INTERVALS[:2]
NORMALISED = ("snips", "ncis", "sndr")
SHRUNK = ("clipped_ips", "ncis", "switch_dr", "dros", "sg_ips", "sg_dr")


@dataclass(frozen=True, slots=True)
class ChoiceSums:
    """Read-offs of one policy from the summed statistics of a log. by_user: rows of one user hang together."""

    found: Statistics
    policy: str
    by_user: bool = False

    def __post_init__(self) -> None:
        if self.found.total("rows") < 1:
            outside = int(self.found.total("outside"))
            raise DataError(
                f"the log holds no row{' in the time asked for' if outside else ''}; expected logged choices"
            )

    @property
    def n(self) -> int:
        return int(self.found.total("rows"))

    def estimators(self) -> list[str]:
        """Those that the kernel could run for this policy."""
        head, tail = f"{self.policy}/", "/own square"
        return [
            name[len(head) : -len(tail)] for name in self.found.names() if name.startswith(head) and name.endswith(tail)
        ]

    def value(self, name: str) -> float:
        """The estimate."""
        base, product, weight = (self._sum(name, what) for what in ("base", "product", "weight"))
        if kind_of(name) not in NORMALISED:
            return (base + product) / self.n
        if not weight > 0:
            raise ValueError("the weights sum to 0: the evaluation policy takes none of the logged actions")
        return base / self.n + product / weight

    def replicates(self, name: str) -> Floats:
        """The estimate in each replicate of the bootstrap."""
        rows = self.found.values(f"{self.policy}/drawn rows")
        if not len(rows):
            raise ValueError("no replicates were drawn; expected a kernel with replicates for the percentile interval")
        base, product, weight = (
            self.found.values(f"{self.policy}/{name}/drawn {what}") for what in ("base", "product", "weight")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Floats = base / rows + product / (weight if kind_of(name) in NORMALISED else rows)
        return out[np.isfinite(out)]

    def standard_error(self, name: str) -> float:
        """Of the mean influence of a row, as in `Terms.influence`."""
        n = self.n
        if n < 2:
            return np.inf
        parts = ["base", "product", "weight"]
        mean = np.array([self._sum(name, what) for what in parts]) / n
        square = np.empty((3, 3))
        for i, one in enumerate(parts):
            for j in range(i, 3):
                square[i, j] = square[j, i] = self._sum(name, f"{one} {parts[j]}") / n
        # The influence is linear in the three: base + product, or base + (product - ratio x weight) n / sum of weights.
        if kind_of(name) in NORMALISED and mean[2] > 0:
            part = np.array([1.0, 1 / mean[2], -mean[1] / mean[2] ** 2])
        else:
            part = np.array([1.0, 1.0, 0.0])
        variance = float(part @ square @ part) - float(part @ mean) ** 2
        return float(np.sqrt(max(variance, 0.0) / (n - 1)))

    def terms(self, name: str) -> Terms:
        """A record of the estimator's kind and limits; its arrays are not the log's."""
        reward = self._least_and_most("reward", of_policy=False)
        low, high = reward_limits(*reward)
        if kind_of(name) in WITH_MODEL:
            least, most = self._least_and_most("predicted")
            residual = (0.0, 0.0) if name == "dm" else (low - most, high - least)
            base = self._least_and_most(f"{name}/base")
        else:
            residual, base = (low, high), (0.0, 0.0)
        one = np.ones(1)
        return Terms(
            np.zeros(1),
            one,
            np.zeros(1),
            normalised=kind_of(name) in NORMALISED,
            control=None if name == "dm" else one,
            shrunk=kind_of(name) in SHRUNK,
            weight_limits=(0.0, np.inf) if name == "dm" else self.weight_limits(),
            residual_limits=residual,
            base_limits=base,
        )

    def ranged(
        self, name: str, reward_range: tuple[float, float] | None
    ) -> tuple[Terms, tuple[float, float], tuple[str, ...]]:
        """`terms` for rewards in a range, that range (what was seen where None), and what is to be said of it."""
        terms, seen = self.terms(name), self._least_and_most("reward", of_policy=False)
        if reward_range is not None:
            return *with_range(terms, seen, reward_range), ()
        return terms, *seen_range(seen)

    def cells(self) -> tuple[Floats, Floats, Floats]:
        """Rows, mean weight and mean reward of each cell of nearly equal rows."""
        place = f"{self.policy}/cells ips"
        count, weight, total = (self.found.values(f"{place}/{what}") for what in ("count", "weight", "sum"))
        reward = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0) + self.found.total("zero")
        return count, weight / count, reward

    def weight_limits(self) -> tuple[float, float]:
        """As `weights.choice_weight_limits` of the whole log."""
        target, propensity = self._least_and_most("target"), self._least_and_most("propensity")
        lower, upper = target[0] / propensity[1], target[1] / propensity[0]
        if self.n > FEW_ROWS and lower < 1 < upper:
            return lower, upper
        other = self._least_and_most("other")
        return min(lower, other[0]), max(upper, other[1])

    def diagnostics(self) -> Diagnostics:
        """As `diagnostics.diagnose` of the whole log; the largest 1 % of weights to the width of a cell."""
        n = self.n
        total, square = self._sum("weight"), self._sum("weight square")
        mean = total / n
        variance = max(square - n * mean**2, 0.0) / (n - 1) if n > 1 else np.inf
        error = float(np.sqrt(variance / n))
        size = total**2 / square if square > 0 else 0.0
        overlap = self._sum("overlap") / n
        top = self._top_share()
        verdict, reasons = judge(n, size, n * overlap, mean, error, top)
        for lowered, why in (judge_sums(self._balance()), self._order()):
            verdict, reasons = worse(verdict, lowered), (*reasons, *why)
        needed = int(np.ceil(n * GATES.weak_below / size)) if size > 0 else 0
        return Diagnostics(
            n, size, self._sum("weight most"), mean, error, overlap, n * overlap, top, max(needed, n), verdict, reasons
        )

    def _order(self) -> tuple[Verdict, tuple[str, ...]]:
        if self.by_user:  # users one after the other are no drift
            return "conclusive", ()
        least = reward_limits(*self._least_and_most("reward", of_policy=False))[0]
        rows, reward, square = (self.found.values(f"part {name}") for name in ("rows", "reward", "square"))
        return judge_parts(rows, reward, square, least)

    def _balance(self) -> BalanceSums | None:
        place = f"{self.policy}/balance"
        rows: dict[str, list[Floats]] = {name: [] for name in BY_ACTION}
        for name, found in rows.items():
            while len(values := self.found.values(f"{place}/{name} {len(found)}")):
                found.append(values)
        if not rows["taken"]:
            return None
        arrays: dict[str, Any] = {name: np.stack(found) if found else np.zeros((5, 0)) for name, found in rows.items()}
        arrays["taken"] = arrays["taken"][0]
        least, most = (self.found.total(f"{place}/{what}") for what in ("least", "most"))
        return BalanceSums(self.n, least, most, **arrays, unsupported=0.0)

    def weights(self) -> dict[str, list[float]]:
        """Histogram of the plain weights, for plots."""
        count = self.found.values(f"{self.policy}/weights")
        return {"edges": [float(e) for e in EDGES], "share": (count / max(count.sum(), 1)).tolist()}

    def interval(self, name: str, how: str, terms: Terms, setting: Setting) -> tuple[float, float]:
        """(lower, upper) within the setting's limits."""
        low, high = setting.limits
        if how == "empirical_likelihood":
            if terms.control is None:
                raise ValueError("this estimator has no weights; expected another interval, e.g. student")
            place = f"{self.policy}/cells {'dr' if kind_of(name) in WITH_MODEL else 'ips'}"
            count, weight, total = (self.found.values(f"{place}/{what}") for what in ("count", "weight", "sum"))
            if kind_of(name) not in WITH_MODEL:
                total = total + self.found.total("zero") * weight
            together: dict[str, Any] = {}
            if self.by_user:
                effect = float(self.replicates(name).var(ddof=1)) / max(self.standard_error(name) ** 2, 1e-300)
                users = len(self.found.keys("users"))
                together = {"effect": max(effect, 1.0), "clusters": users if users < FEW else None}
            return likelihood_limits(terms, setting, weight / count, total / count, count, **together)
        if how == "percentile":
            drawn = self.replicates(name)
            if not len(drawn):
                raise ValueError("the weights sum to 0 in every replicate: the policy takes none of the actions")
            lower, upper = (float(q) for q in np.quantile(drawn, [setting.tail, 1 - setting.tail]))
        else:
            freedom = max(self._effective(name) - 1, 1.0)
            above = 1 - setting.tail
            quantile = normal_quantile(above) if how == "normal" else student_quantile(above, freedom)
            half = quantile * self.standard_error(name)
            lower, upper = self.value(name) - half, self.value(name) + half
        return min(max(lower, low), high), max(min(upper, high), low)

    def estimate(
        self,
        name: str,
        interval: str | None = None,
        level: float = 0.95,
        reward_range: tuple[float, float] | None = None,
    ) -> Estimate:
        """The `Estimate`, as `bart.ope.estimate` would make it of the rows.

        interval: of `ENGINE_INTERVALS`; empirical likelihood where None; for the direct method student, or percentile
        where rows of one user hang together. Raises ValueError for another.
        """
        default = "empirical_likelihood" if name != "dm" else "percentile" if self.by_user else "student"
        chosen = interval or default
        if chosen not in ENGINE_INTERVALS:
            raise ValueError(f"interval is {chosen!r}; expected on an engine one of {', '.join(ENGINE_INTERVALS)}")
        if self.by_user and chosen not in BY_USER_INTERVALS:
            known = " or ".join(BY_USER_INTERVALS)
            raise ValueError(f"user is given, but {chosen} takes rows as independent; expected {known}")
        terms, limits, warnings = self.ranged(name, reward_range)
        setting = Setting(level, limits)
        diagnostics = self.diagnostics()
        verdict = worse(diagnostics.verdict, "weak") if name == "dm" else diagnostics.verdict
        users = len(self.found.keys("users"))  # counted up to `engine.FEW`
        if self.by_user and users < FEW_USERS:
            verdict = worse(verdict, "weak")
            few = f"{users} users: an interval clustered by fewer than {FEW_USERS} of them is too short"
            warnings = (*warnings, few)
        found = self.interval(name, chosen, terms, setting)
        square = self._sum(name, "own square")
        size = float(self.n) if name == "dm" else self._sum(name, "weight") ** 2 / square if square > 0 else 0.0
        return conclude(
            kind_of(name), terms, self.value(name), found, chosen, self.n, size, setting, diagnostics, verdict, warnings
        )

    def _effective(self, name: str) -> float:
        square = self._sum(name, "control square")
        return self._sum(name, "control") ** 2 / square if square > 0 else float(self.n)

    def _sum(self, *names: str) -> float:
        return self.found.total("/".join((self.policy, *names)))

    def _least_and_most(self, name: str, of_policy: bool = True) -> tuple[float, float]:
        place = f"{self.policy}/{name}" if of_policy else name
        return self.found.total(f"{place} least"), self.found.total(f"{place} most")

    def _top_share(self, fraction: float = 0.01) -> float:
        place = f"{self.policy}/cells ips"
        count, weight, size = (self.found.values(f"{place}/{what}") for what in ("count", "weight", "size"))
        if not len(count) or size.sum() <= 0:
            return 0.0
        # Cells of one weight share the places that are left, so that ties are not drawn by their order.
        key = self.found.keys(f"{place}/count") >> 32
        each, number = np.unique(key, return_inverse=True)
        rows, carried = np.bincount(number, count), np.bincount(number, size)
        order = np.argsort(-np.bincount(number, weight) / rows)
        places = np.clip(max(np.ceil(fraction * self.n), 1) - (np.cumsum(rows[order]) - rows[order]), 0, rows[order])
        return float((carried[order] * places / rows[order]).sum() / size.sum()) if len(each) else 0.0
