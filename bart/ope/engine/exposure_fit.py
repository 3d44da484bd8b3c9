"""One fit of the exposure estimators to a whole log, from the sums of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bart.ope.engine.exposure import Shared, numbers, place_of_fit
from bart.ope.engine.listeners import by_listener, spread_of
from bart.ope.engine.sums import Statistics
from bart.ope.exposure.doubly_robust import calibration
from bart.ope.exposure.draws import corrected
from bart.ope.exposure.exposure import WIDE
from bart.ope.exposure.influence import MEANS
from bart.ope.intervals.pages import Spread
from bart.ope.models.appeal import RIDGE
from bart.ope.models.browsing import hazards
from bart.ope.records.estimate import Verdict
from bart.ope.verdict.pages import ExposureDiagnostics, judge_beyond
from bart.types import Floats

PASSES = 4  # at most, after the first
SETTLED = 0.5  # standard errors: what a step leaves out is then some hundredths of one


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """The fit of a policy to a whole log, from sums over its pages at common parameters.

    cap: of the fit. pages: [u] of each listener; sums: [u, 6 + parameters] of `MEANS` and equations. adjoint:
    [parameters, 6] how much an equation is worth to a mean. mean: [6] of `MEANS`; step: [parameters] the Newton step
    that it is told after, 0 where the parameters were fitted to this very log. gaps: [u, 4] sums of `reach_gaps`, by
    which exposure_dr is corrected; None where its reach is right.
    """

    cap: float
    pages: Floats
    sums: Floats
    adjoint: Floats
    mean: Floats
    step: Floats
    gaps: Floats | None = None

    def value(self, kind: str) -> float:
        """Expected reward of a page. kind: exposure_dr, exposure_ips or dm."""
        value = _value(self.mean, kind)
        return value - self.reach_bias() if kind == "exposure_dr" else value

    def reach_bias(self) -> float:
        """What was taken off exposure_dr, which the mean-field reach gives too much."""
        if self.gaps is None:
            return 0.0
        return corrected(_value(self.mean, "exposure_dr"), np.zeros(len(self.gaps)), self.gaps, len(self.pages)).bias

    def spread(self, kind: str) -> Spread:
        """The value, and how much each listener moves it; only exposure_dr's has what is fitted move along."""
        here, k = self.sums.sum(axis=0) / self.pages.sum(), len(MEANS)
        centred = self.sums - self.pages[:, None] * here
        each = centred[:, :k] - centred[:, k:] @ self.adjoint if kind == "exposure_dr" else centred[:, :k]
        value, sums = _value(self.mean, kind), each @ _gradient(self.mean, kind)
        if kind == "exposure_dr" and self.gaps is not None:
            found = corrected(value, sums, self.gaps, int(self.pages.sum()))
            value, sums = found.value, found.influence
        return spread_of(value, sums, self.pages)

    def earned(self) -> Spread:
        """The log's mean reward a page."""
        return self._plain(MEANS.index("reward"), 1.0)

    def beyond(self) -> Spread:
        """What the correction would add beyond the cap (see `exposure_dr.left_by_cap`)."""
        return self._plain(MEANS.index("beyond"), calibration(float(self.mean[2]), float(self.mean[1])))

    def off(self, kind: str) -> float:
        """By how many standard errors the Newton step moved the value, or the modelled reward of the log; by those of
        exposure_dr where a kind leaves out what fitting adds."""
        here = self.sums.sum(axis=0)[: len(MEANS)] / self.pages.sum()
        moved = (abs(_value(self.mean, kind) - _value(here, kind)), abs(float(self.mean[1] - here[1])))
        own = max(self.spread(each).standard_error() for each in {kind, "exposure_dr"})
        errors = (own, self.earned().standard_error())
        return max(gap / error if error > 0 else 0.0 for gap, error in zip(moved, errors, strict=True))

    def _plain(self, column: int, scale: float) -> Spread:
        each = self.sums[:, column]
        mean = float(each.sum() / self.pages.sum())
        return spread_of(scale * mean, scale * (each - self.pages * mean), self.pages)


def starts(found: Statistics, policy: str, caps: Sequence[float]) -> dict[float, Shared]:
    """Parameters to start from by cap: hazards of the whole log, of the others means over blocks by pages.

    Raises ValueError where no card was seen in any block, and where blocks differ in what predicts.
    """
    out = {}
    for cap in caps:
        place = place_of_fit(policy, cap)
        pages = found.total(f"{place}/start pages")
        if not pages:
            raise ValueError("no card was seen on any page; exposure needs seen flags")
        head = f"{place}/names: "
        names = [name[len(head) :] for name in found.names() if name.startswith(head)]
        if len(names) > 1:
            raise ValueError("blocks of the log differ in what predicts rewards; expected the same for all")
        mean = {k: found.values(f"{place}/start {k}") / pages for k in ("beta", "row", "column", "level")}
        out[cap] = Shared(
            tuple(name for name in names[0].split("|") if name),
            numbers(mean["beta"]),
            numbers(hazards(found.values(f"{policy}/went"), found.values(f"{policy}/possible"))),
            numbers(mean["row"]),
            numbers(mean["column"]),
            float(np.clip(mean["level"][0], -WIDE[0], WIDE[0])),
            cap,
        )
    return out


def pooled(found: Statistics, policy: str, cap: float, at: Shared | None = None) -> Pooled:
    """What the sums say. at: the blocks' common parameters; None for a log of one block, which has its own fit."""
    place, k = place_of_fit(policy, cap), len(MEANS)
    pages, sums = by_listener(found, policy)[:, 0], by_listener(found, place)
    n, total = float(pages.sum()), sums.sum(axis=0)
    p, slopes = len(total) - k, int(found.total(f"{place}/slopes"))
    of_psi = found.values(f"{place}/of psi").reshape(p, p) / n
    of_psi -= np.diag(np.where(np.arange(p) < p - slopes, 0.0, RIDGE / n))
    of_means = found.values(f"{place}/of means").reshape(k, p) / n
    # A position that nobody reached has no equation: the pseudo-inverse leaves its parameter alone.
    inverse = np.linalg.pinv(of_psi, rcond=1e-9)
    psi = np.zeros(p) if at is None else (total[k:] + at.prior()) / n
    adjoint = (of_means @ inverse).T
    gaps = by_listener(found, f"{place}/reach")
    return Pooled(cap, pages, sums, adjoint, total[:k] / n - psi @ adjoint, -inverse @ psi, gaps if len(gaps) else None)


def exposure_of(found: Statistics, policy: str, fit: Pooled) -> ExposureDiagnostics:
    """As `exposure_diagnostics` of the whole log, at the parameters of the pass."""
    place = place_of_fit(policy, fit.cap)
    exposed, modelled, square = (found.total(f"{place}/{name}") for name in ("exposed", "modelled", "exposed square"))
    balance = exposed / modelled
    # Of exposed - modelled x balance, whose mean is 0.
    variance = square - 2 * balance * found.total(f"{place}/exposed modelled")
    variance += balance**2 * found.total(f"{place}/modelled square")
    return ExposureDiagnostics(
        effective_sample_size=exposed**2 / square if square > 0 else 0.0,
        max_weight=found.total(f"{place}/ratio most"),
        balance=balance,
        balance_error=float(np.sqrt(max(variance, 0.0))) / modelled,
        log_exposure=found.total(f"{place}/trust") / found.total(f"{place}/logged"),
        scanning_order=found.total(f"{place}/in order") / max(found.total(f"{place}/seen"), 1.0),
    )


def beyond_cap(found: Statistics, policy: str, fit: Pooled) -> tuple[Verdict, tuple[str, ...]]:
    """As `judge_cap` of the whole log."""
    place = place_of_fit(policy, fit.cap)
    exposed, gap = found.total(f"{place}/exposed"), fit.beyond()
    share = 1.0 - found.total(f"{place}/below the cap") / exposed if exposed > 0 else 0.0
    return judge_beyond(fit.cap, share, gap.value, gap.standard_error(), fit.value("exposure_dr"))


def _value(mean: Floats, kind: str) -> float:
    if kind == "exposure_ips":
        return float(mean[3])
    scale = calibration(float(mean[2]), float(mean[1]))
    return scale * float(mean[0] if kind == "exposure_dr" else mean[4])


def _gradient(mean: Floats, kind: str) -> Floats:
    """[6] of the value by the means."""
    out = np.zeros(len(MEANS))
    modelled, earned = float(mean[1]), float(mean[2])
    if kind == "exposure_ips":
        out[3] = 1.0
    elif kind == "dm":
        out[4] = calibration(earned, modelled)
    else:
        out[0] = calibration(earned, modelled)
        if modelled > 0:
            out[1] = -float(mean[0]) * earned / modelled**2
            out[2] = float(mean[0]) / modelled
    return out
