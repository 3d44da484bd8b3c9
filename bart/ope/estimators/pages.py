"""Estimators for logged pages: each is one function from `LoggedPages` to `PageTerms`, and one line in the table.

The value of a page is the sum of the rewards of its cards. `exposure_dr` is the default: it uses what is known of the
policy's structure and of reading. The importance-sampling kind beside it assumes less of reading and pays in variance:
by how much, its effective sample size says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, Literal, TypeAlias

import numpy as np

from bart.ope.estimators.cascade import cascade_dr_terms, rest_of_page
from bart.ope.exposure.doubly_robust import CAP, ExposureFit, fit_exposure, influence, left_by_cap, refit, with_reach
from bart.ope.intervals.pages import DEFAULT_INTERVAL, PageSetting, Spread, allow_for_bias, page_interval
from bart.ope.models.browsing import in_scanning_order
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.choices import worse
from bart.ope.verdict.pages import (
    bias_by_cap,
    exposure_diagnostics,
    judge_cap,
    judge_exposure,
    judge_mean_field,
    judge_weights,
    left_out,
    precision,
    without_exploration,
)
from bart.ope.weights.pages import cascade_weight, joint_weight, marginal_weight, seen_prefix_weight
from bart.types import Bools, Floats


@dataclass(frozen=True, slots=True, eq=False)
class PageTerms:
    """What an estimator hands on.

    value: expected reward of a page. influence: [b] of each page on it, mean 0. refit: the value when page i counts
    multiplicity[i] times. page_weight: [b], mean 1 in expectation, whose effective sample size is that of the estimate;
    None for an estimator without weights. fit: the exposure model, where there is one. warnings: what is biased by
    design. beyond: [b] what a cap on weights leaves out, whose mean is the bias by it; None where there is no cap.
    drawn: the same without what pinned cards earned; None where that is all.
    """

    value: float
    influence: Floats
    refit: Callable[[Floats], float]
    page_weight: Floats | None
    fit: ExposureFit | None = None
    warnings: tuple[str, ...] = ()
    beyond: Floats | None = None
    drawn: PageTerms | None = None


Estimator: TypeAlias = Callable[..., PageTerms]
Reach: TypeAlias = Literal["mean_field", "conditioned", "draws"]


def with_pins(function: Callable[..., PageTerms]) -> Callable[..., PageTerms]:
    """An estimator of what drawn cards earn as one of whole pages: pinned cards stand there under both policies."""

    @wraps(function)
    def whole(data: LoggedPages, *arguments: Any, **parameters: Any) -> PageTerms:
        drawn = function(data, *arguments, **parameters)
        return drawn if data.pinned_reward is None else _plus(drawn, data.pinned_reward)

    return whole


def _plus(drawn: PageTerms, each: Floats) -> PageTerms:
    """Terms with what each page [b] earned beside."""
    mean = float(each.mean())
    return replace(
        drawn,
        value=drawn.value + mean,
        influence=drawn.influence + (each - mean),
        refit=lambda m: drawn.refit(m) + float(np.average(each, weights=m)),
        drawn=drawn,
    )


# ------------------------------------------------------------------------------------------------- importance weights


@with_pins
def slate_ips(data: LoggedPages) -> PageTerms:
    """Joint IPS: weight of the whole page. Assumes nothing of reading; hopeless beyond a few cards."""
    weight = _shared(data, joint_weight)
    return _weighted(weight, weight[:, None], data.drawn_reward[:, None])


@with_pins
def slate_snips(data: LoggedPages) -> PageTerms:
    """Joint IPS with weights divided by their sum."""
    weight = _shared(data, joint_weight)
    return _weighted(
        weight, weight[:, None], data.drawn_reward[:, None], normalised=np.ones((len(data), 1), dtype=bool)
    )


@with_pins
def independent_ips(data: LoggedPages) -> PageTerms:
    """IIPS: a card's reward depends on the card and its slot alone. Exact marginals. Source: Li et al. (2018)."""
    return _by_slot(data, _shared(data, marginal_weight))


@with_pins
def sn_independent_ips(data: LoggedPages) -> PageTerms:
    """IIPS with weights divided by their sum, slot by slot."""
    return _by_slot(data, _shared(data, marginal_weight), normalised=True)


@with_pins
def page_ncis(data: LoggedPages, cap: float = 20.0) -> PageTerms:
    """Normalised capped: sn_independent_ips with weights of at most `cap`; biased towards the logging policy's reward.

    Works without seen flags. Source: Gilotte et al. (2018).
    """
    if not cap > 0:
        raise ValueError(f"cap is {cap}; expected a number > 0")
    weight = _shared(data, marginal_weight)
    note = (f"weights above {cap:g} were capped: the value is biased towards that of the logging policy",)
    return _by_slot(data, np.minimum(weight, cap), True, note if weight.max() > cap else ())


@with_pins
def cascade_ips(data: LoggedPages) -> PageTerms:
    """RIPS: a reward depends on everything above and left of its slot. Source: McInerney et al. (2020)."""
    return _by_slot(data, _shared(data, cascade_weight))


@with_pins
def sn_cascade_ips(data: LoggedPages) -> PageTerms:
    """RIPS with weights divided by their sum, slot by slot."""
    return _by_slot(data, _shared(data, cascade_weight), normalised=True)


@with_pins
def cascade_dr(data: LoggedPages, predictor: str = "stacked") -> PageTerms:
    """RIPS with a model of the rest of the page as its base (bart/ope/estimators/cascade.py). Source: Kiyohara et al.
    (2022).

    Unbiased under the cascade assumption, whatever the model; needs seen flags for it. Equal policies give the mean
    reward in expectation, not to the digit: the base averages over choices that were not made.
    """
    each, weight = cascade_dr_terms(data, rest_of_page(fit_exposure(data, predictor)))
    value = float(each.mean())
    return PageTerms(value, each - value, partial(_average, each), weight)


@with_pins
def pseudo_inverse(data: LoggedPages) -> PageTerms:
    """PI: the page's reward is a sum of effects of each slot's card, on whichever slot they fall; approximate here.

    The page's reward is weighed by 1 - slots + sum over slots of marginal weights: exact where a logging policy fills
    slots independently, which rankings without replacement do not. Source: Swaminathan et al. (2017).
    """
    slots = (data.order >= 0).sum(axis=(1, 2))
    weight = 1.0 - slots + _shared(data, marginal_weight).sum(axis=(1, 2))
    note = ("slots are treated as drawn independently: an approximation for rankings without replacement",)
    return _weighted(weight, weight[:, None], data.drawn_reward[:, None], warnings=note)


@with_pins
def adaptive_ips(data: LoggedPages) -> PageTerms:
    """AIPS with the behaviour that the seen flags show: a slot is weighed by the earlier cards that were seen.

    Where nothing was seen the reward is 0 whatever the weight. Where the first slot in a row was reached, the rows
    above count with the cards seen in them. Unlike cascade_ips, cards below the end of reading do not enter.
    Source: Kiyohara et al. (2023), with behaviour read off the page instead of predicted.
    """
    return _by_slot(data, seen_prefix_weight(data))


# ------------------------------------------------------------------------------------------------------------ exposure


@with_pins
def dm(data: LoggedPages, predictor: str = "stacked") -> PageTerms:
    """The direct method: modelled reward of the target's pages, browsing and level of the model fitted on the log."""
    fit = fit_exposure(data, predictor)
    direct = fit.direct * fit.scale
    value = float(direct.mean())
    note = ("the direct method has no weights: its interval cannot show the model's bias",)
    # What is fitted moves it too, but the model's bias is larger than any of that: the spread is that of the pages.
    return PageTerms(value, direct - value, partial(_average, direct), None, fit, note)


@with_pins
def exposure_ips(data: LoggedPages, predictor: str = "stacked") -> PageTerms:
    """Rewards of seen cards weighed by the ratio of their exposures under both policies."""
    fit = fit_exposure(data, predictor)
    seen = fit.summary.seen
    each: Floats = np.bincount(seen.page, fit.terms.plain * seen.reward, len(data)).astype(np.float64)
    return PageTerms(float(each.mean()), each - each.mean(), partial(_average, each), _exposed(fit), fit)


@with_pins
def exposure_dr(
    data: LoggedPages,
    predictor: str = "stacked",
    cap: float = CAP,
    reach: Reach = "mean_field",
    draws: int = 64,
    rng: np.random.Generator | None = None,
) -> PageTerms:
    """Doubly robust by exposures (docs/exposure_dr.md): the default for pages. Needs seen flags.

    predictor: "stacked" regresses rewards on the given models' predictions and both policies' ranks; "target" and
    "logged" take one model as it is, its level apart. cap: of the ratio of exposures, inf for none; what lies beyond
    rests on the prediction. reach: "mean_field" is exact where going on does not depend on streams; "conditioned" takes
    the pages that hold the card, at a few times the work; "draws" averages `draws` pages of either policy and is right
    wherever reading is as assumed (needs rng; some 50 times the work).
    """
    fit = fit_exposure(data, predictor, cap)
    if reach == "mean_field":
        again = partial(refit, data, fit)
        return PageTerms(fit.value, influence(data, fit), again, _exposed(fit), fit, beyond=left_by_cap(fit))
    if reach == "conditioned":
        from bart.ope.exposure.conditioned import conditioned_exposure

        pages, at = np.arange(len(data)), fit.parameters
        other = with_reach(
            fit, lambda level, who: conditioned_exposure(data, pages, fit.appeal.score, at.browsing, level, who)
        )
    elif reach == "draws":
        if rng is None:
            raise ValueError("rng is None; expected a numpy Generator, reach by draws needs one")
        from bart.ope.exposure.draws import refine

        other = refine(data, fit, draws, rng)
    else:
        raise ValueError(f"reach is {reach!r}; expected mean_field, conditioned or draws")
    shift = other.value - fit.value
    # The influence of the mean-field fit: another reach moves the estimate, hardly its spread.
    return PageTerms(
        other.value,
        influence(data, fit),
        lambda m: refit(data, fit, m) + shift,
        _exposed(other),
        other,
        beyond=left_by_cap(other),
    )


PAGE_ESTIMATORS: Mapping[str, Estimator] = {
    "exposure_dr": exposure_dr,
    "page_ncis": page_ncis,
    "sn_independent_ips": sn_independent_ips,
    "independent_ips": independent_ips,
    "dm": dm,
    "exposure_ips": exposure_ips,
    "sn_cascade_ips": sn_cascade_ips,
    "cascade_ips": cascade_ips,
    "cascade_dr": cascade_dr,
    "adaptive_ips": adaptive_ips,
    "pseudo_inverse": pseudo_inverse,
    "slate_snips": slate_snips,
    "slate_ips": slate_ips,
}
RECOMMENDED_PAGES = ("exposure_dr", "page_ncis", "sn_independent_ips", "independent_ips", "dm")


def estimate_pages(
    name: str,
    data: LoggedPages,
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    *,
    replicates: int = 1_000,
    **parameters: Any,
) -> Estimate:
    """The `Estimate` of one estimator of `PAGE_ESTIMATORS`; see `bart.ope.estimate`.

    interval: a key of `PAGE_INTERVALS`, "student" where None; all are clustered by listener. rng: for the jackknife,
    bootstraps and drawn reach. Raises ValueError for an unknown name, interval or parameter.
    """
    return estimate_with_spread(name, data, interval, level, rng, replicates=replicates, **parameters)[0]


def estimate_with_spread(
    name: str,
    data: LoggedPages,
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    *,
    replicates: int = 1_000,
    **parameters: Any,
) -> tuple[Estimate, Spread]:
    """The same and the influence of every page, from which policies on one log are compared."""
    if name not in PAGE_ESTIMATORS:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(PAGE_ESTIMATORS)}")
    from inspect import signature

    function = PAGE_ESTIMATORS[name]
    accepted = signature(function).parameters
    if "rng" in accepted and rng is not None:
        parameters = {"rng": rng, **parameters}
    try:
        signature(function).bind(data, **parameters)
    except TypeError as error:
        known = ", ".join(list(accepted)[1:]) or "none"
        raise ValueError(f"{name}: {error}; its parameters are: {known}") from None
    terms = function(data, **parameters)
    chosen = interval or DEFAULT_INTERVAL
    spread = Spread(terms.value, terms.influence, data.user, terms.refit)
    # A joint or pseudo-inverse value may fall below 0, a page's reward may not.
    setting = PageSetting(level, rng, replicates, lowest=min(0.0, terms.value))
    lower, upper = page_interval(chosen, spread, setting)
    if terms.beyond is not None:
        lower, upper = allow_for_bias((lower, upper), terms.value, bias_by_cap(terms.beyond, data.user), setting)
    verdict, reasons, size, largest, mean = _judge(data, terms)
    if data.cautions:
        verdict, reasons = worse(verdict, "weak"), (*data.cautions, *reasons)
    if name == "exposure_dr" and terms.fit is not None:
        checks = [judge_cap(data, terms.fit)]
        if parameters.get("reach", "mean_field") == "mean_field":
            checks.append(judge_mean_field(data, terms.fit, spread.standard_error(), rng))
        for off, note in checks:
            verdict, reasons = worse(verdict, off), (*reasons, *note)
    verdict, needed = precision(terms.value, (upper - lower) / 2, len(data), verdict)
    found = Estimate(
        name=name,
        value=terms.value,
        lower=lower,
        upper=upper,
        level=level,
        interval=chosen,
        n=len(data),
        effective_sample_size=size,
        max_weight=largest,
        mean_weight=mean,
        verdict=verdict,
        warnings=(*reasons, *terms.warnings, *needed, *without_exploration(data), *left_out(data)),
    )
    return found, spread


def _judge(data: LoggedPages, terms: PageTerms) -> tuple[Verdict, tuple[str, ...], float, float, float]:
    """Verdict, reasons, effective sample size, largest and mean weight."""
    if terms.fit is not None:
        found = exposure_diagnostics(terms.fit, in_scanning_order(data))
        verdict, reasons = judge_exposure(found, len(data))
        if terms.page_weight is None:
            return worse(verdict, "weak"), reasons, float(len(data)), found.max_weight, found.balance
        return verdict, reasons, found.effective_sample_size, found.max_weight, found.balance
    weight = np.ones(len(data)) if terms.page_weight is None else terms.page_weight
    verdict, reasons, size = judge_weights(weight, data.drawn_reward, averages_one=not terms.warnings)
    if terms.warnings:
        verdict = worse(verdict, "weak")
    return verdict, reasons, size, float(weight.max()), float(weight.mean())


# -------------------------------------------------------------------------------------------------------------- helpers


def _shared(data: LoggedPages, weight: Callable[[LoggedPages], Floats]) -> Floats:
    """The weights, made once a record: several estimators start from the same."""
    if weight.__name__ not in data.fits:
        data.fits[weight.__name__] = weight(data)
    found: Floats = data.fits[weight.__name__]
    return found


def _by_slot(data: LoggedPages, weight: Floats, normalised: bool = False, warnings: tuple[str, ...] = ()) -> PageTerms:
    """Slots [b, rows, columns] as columns; a page's weight is the mean of its slots'."""
    b = len(data)
    shown = (data.order >= 0).reshape(b, -1)
    flat = weight.reshape(b, -1)
    drawn = shown.sum(axis=1)
    # A page of pins alone is the same under both policies.
    page_weight = np.where(drawn > 0, flat.sum(axis=1) / np.maximum(drawn, 1), 1.0)
    reward = np.where(data.seen, data.reward, 0.0).reshape(b, -1)
    return _weighted(page_weight, flat, reward, shown if normalised else None, warnings)


def _weighted(
    page_weight: Floats,
    weight: Floats,
    reward: Floats,
    normalised: Bools | None = None,
    warnings: tuple[str, ...] = (),
) -> PageTerms:
    """Terms of a weighted sum over slots; weight, reward: [b, slots].

    normalised: [b, slots], which slots a page has; weights are then divided by their sum in the slot, and the slot
    counts by the share of pages that have it. None: divided by the number of pages.
    """
    product = weight * reward
    if normalised is None:
        each = product.sum(axis=1)
        value = float(each.mean())
        return PageTerms(value, each - value, partial(_average, each), page_weight, warnings=warnings)
    total = weight.sum(axis=0)
    ratio = np.divide(product.sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    share = normalised.mean(axis=0)
    scale = np.divide(len(weight) * share, total, out=np.zeros_like(total), where=total > 0)
    influence = ((product - weight * ratio) * scale).sum(axis=1) + ((normalised - share) * ratio).sum(axis=1)
    again = partial(_self_normalised, product, weight, normalised)
    return PageTerms(float((share * ratio).sum()), influence, again, page_weight, warnings=warnings)


def _average(each: Floats, multiplicity: Floats) -> float:
    return float(np.average(each, weights=multiplicity))


def _self_normalised(product: Floats, weight: Floats, there: Bools, multiplicity: Floats) -> float:
    total = multiplicity @ weight
    ratio = np.divide(multiplicity @ product, total, out=np.zeros_like(total), where=total > 0)
    return float((ratio * (multiplicity @ there)).sum() / multiplicity.sum())


def _exposed(fit: ExposureFit) -> Floats:
    """[b] sums of omega trust over the seen cards, divided by their expected mean."""
    each = np.bincount(fit.summary.seen.page, fit.terms.plain * fit.terms.trust, len(fit.summary))
    out: Floats = each / float(fit.terms.target.total.mean())
    return out
