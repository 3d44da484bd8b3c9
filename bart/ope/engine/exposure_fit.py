"""One fit of the exposure estimators to a whole log, from the sums that `exposure` made of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bart.ope.engine.exposure import MEANS, Caps, Shared, numbers, place_of_fit
from bart.ope.engine.sums import Statistics
from bart.ope.exposure.doubly_robust import calibration
from bart.ope.exposure.exposure import WIDE
from bart.ope.models.browsing import hazards
from bart.ope.verdict.pages import PAGE_GATES, ExposureDiagnostics
from bart.types import Floats

PASSES = 4  # at most, after the first
SETTLED = 0.5  # standard errors: what a step leaves out is then some hundredths of one


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """What a pass says of a policy's log.

    at: the parameters of the pass; step: [parameters] the Newton step from there. total: [1 + 6 + parameters] sums over
    pages of ones, `MEANS` and equations; drawn: [replicates, 1 + 6 + parameters] the same in each replicate. adjoint:
    [parameters, 6] how much an equation is worth to a mean. mean: [6] of `MEANS` after the step.
    """

    at: Shared
    step: Floats
    total: Floats
    drawn: Floats
    adjoint: Floats
    mean: Floats

    def value(self, kind: str) -> float:
        """Expected reward of a page. kind: exposure_dr, exposure_ips or dm."""
        return _value(self.mean, kind)

    def replicates(self, kind: str) -> Floats:
        """[replicates] the value to first order in how often each listener is drawn.

        As without an engine, only exposure_dr's spread has what is fitted move with the draw.
        """
        gradient = _gradient(self.mean, kind)
        return np.asarray(self.value(kind) + (self._means(self.drawn, kind) - self._means(self.total, kind)) @ gradient)

    def off(self, kind: str) -> float:
        """By how many standard errors the Newton step moved the value, or the modelled reward of the log."""
        here = self.total[1 : 1 + len(MEANS)] / self.total[0]
        moved = (abs(self.value(kind) - _value(here, kind)), abs(float(self.mean[1] - here[1])))
        drawn = (self.replicates(kind), self._means(self.drawn, kind)[:, 2])
        errors = [float(each[np.isfinite(each)].std()) if len(each) else 0.0 for each in drawn]
        return max(gap / error if error > 0 else 0.0 for gap, error in zip(moved, errors, strict=True))

    def beyond(self) -> tuple[float, float]:
        """What the correction would add beyond the cap, and its standard error (see `left_by_cap`)."""
        scale, k = calibration(float(self.mean[2]), float(self.mean[1])), MEANS.index("beyond")
        with np.errstate(divide="ignore", invalid="ignore"):
            each = self.drawn[:, 1 + k] / self.drawn[:, 0]
        error = float(each[np.isfinite(each)].std()) if len(each) else 0.0
        return scale * float(self.total[1 + k] / self.total[0]), scale * error

    def _means(self, sums: Floats, kind: str) -> Floats:
        means = sums[..., 1 : 1 + len(MEANS)]
        if kind == "exposure_dr":
            means = means - sums[..., 1 + len(MEANS) :] @ self.adjoint
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Floats = means / sums[..., :1]
        return out


def starts(found: Statistics, policies: Sequence[str], caps: Caps) -> dict[tuple[str, float], Shared] | None:
    """Parameters to start from by policy and cap: hazards of the whole log, of the others means over blocks by pages.

    None where blocks differ in what predicts. Raises ValueError where no card was seen in any block.
    """
    out: dict[tuple[str, float], Shared] = {}
    for policy in policies:
        for cap in caps:
            place = place_of_fit(policy, cap)
            pages = found.total(f"{place}/start pages")
            if not pages:
                raise ValueError("no card was seen on any page; exposure needs seen flags")
            head = f"{place}/names: "
            names = [name[len(head) :] for name in found.names() if name.startswith(head)]
            if len(names) > 1:
                return None
            mean = {k: found.values(f"{place}/start {k}") / pages for k in ("beta", "row", "column", "level")}
            out[policy, cap] = Shared(
                tuple(name for name in names[0].split("|") if name),
                numbers(mean["beta"]),
                numbers(hazards(found.values(f"{policy}/went"), found.values(f"{policy}/possible"))),
                numbers(mean["row"]),
                numbers(mean["column"]),
                float(np.clip(mean["level"][0], -WIDE[0], WIDE[0])),
                cap,
            )
    return out


def pooled(found: Statistics, policy: str, at: Shared) -> Pooled:
    """What the sums of a pass at these parameters say."""
    place, k = place_of_fit(policy, at.cap), len(MEANS)
    total = found.values(f"{place}/total")
    n, p = float(total[0]), len(total) - 1 - k
    prior, slope = at.prior()
    of_psi = found.values(f"{place}/of psi").reshape(p, p) / n + np.diag(slope / n)
    of_means = found.values(f"{place}/of means").reshape(k, p) / n
    # A position that nobody reached has no equation: the pseudo-inverse leaves its parameter alone.
    inverse = np.linalg.pinv(of_psi, rcond=1e-9)
    psi = (total[1 + k :] + prior) / n
    adjoint = (of_means @ inverse).T
    return Pooled(
        at=at,
        step=-inverse @ psi,
        total=total,
        drawn=found.values(f"{place}/drawn").reshape(-1, len(total)),
        adjoint=adjoint,
        mean=total[1 : 1 + k] / n - psi @ adjoint,
    )


def exposure_of(found: Statistics, policy: str, fit: Pooled) -> ExposureDiagnostics:
    """As `exposure_diagnostics` of the whole log, at the parameters of the pass."""
    place = place_of_fit(policy, fit.at.cap)
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


def judge_beyond_cap(found: Statistics, policy: str, fit: Pooled) -> tuple[str, ...]:
    """What is weak about the part of the target's exposure that the cap leaves to the prediction; as `judge_cap`."""
    place, cap, gates = place_of_fit(policy, fit.at.cap), fit.at.cap, PAGE_GATES
    exposed = found.total(f"{place}/exposed")
    beyond = 1.0 - found.total(f"{place}/below the cap") / exposed if exposed > 0 else 0.0
    weak = []
    if beyond > gates.beyond_cap:
        weak.append(
            f"{beyond:.0%} of the target's exposure lies beyond the cap of {cap:g}: the"
            " prediction is left alone with it"
        )
    gap, error = fit.beyond()
    if abs(gap) > gates.cap_errors * error and abs(gap) > gates.cap_share * abs(fit.value("exposure_dr")):
        weak.append(
            f"rewards beyond the cap of {cap:g} differ from the prediction by {gap:+.3g} a page, beyond its error: the"
            " value is biased; an infinite cap is not"
        )
    return tuple(weak)


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
