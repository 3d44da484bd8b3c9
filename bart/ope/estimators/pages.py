"""Estimators for logged pages: each is one function from `LoggedPages` to `PageTerms`, and one line in the table.

The value of a page is the sum of the rewards of its cards. `exposure_dr` is the default: it uses what is known of the
policy's structure and of reading. The importance-sampling kind beside it assumes less of reading and pays in variance:
by how much, its effective sample size says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, Literal, TypeAlias

import numpy as np

from bart.ope.estimators.cascade import cascade_dr_terms, rest_of_page
from bart.ope.estimators.click import ASSUMED, click_terms
from bart.ope.estimators.conclude import checked_call
from bart.ope.exposure.doubly_robust import CAP, ExposureFit, fit_exposure, left_by_cap, refit, with_reach
from bart.ope.exposure.influence import influence
from bart.ope.intervals.pages import DEFAULT_INTERVAL, PageSetting, Spread, allow_for_bias, page_interval
from bart.ope.models.browsing import depends_on_streams, in_scanning_order
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.choices import worse
from bart.ope.verdict.order import BLOCKS, judge_stretches
from bart.ope.verdict.pages import (
    ExposureDiagnostics,
    WeightFacts,
    bias_by_cap,
    exposure_diagnostics,
    judge_cap,
    judge_exposure,
    judge_listeners,
    judge_mean_field,
    judge_reach,
    judge_weights,
    left_of_reach,
    left_out,
    precision,
    weight_facts,
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
    drawn: the same without what pinned cards earned; None where that is all. slots: [3, slots + 1] what weights are
    divided by, see `slot_totals`; None where they are not. reach_bias: of the mean-field reach, which was taken off.
    """

    value: float
    influence: Floats
    refit: Callable[[Floats], float]
    page_weight: Floats | None
    fit: ExposureFit | None = None
    warnings: tuple[str, ...] = ()
    beyond: Floats | None = None
    drawn: PageTerms | None = None
    slots: Floats | None = None
    reach_bias: float = 0.0


Estimator: TypeAlias = Callable[..., PageTerms]
DIRECT = "the direct method has no weights: its interval cannot show the model's bias"
Reach: TypeAlias = Literal["corrected", "mean_field", "conditioned", "draws"]


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
    weight = shared(data, joint_weight)
    return _weighted(weight, weight[:, None], data.drawn_reward[:, None])


@with_pins
def slate_snips(data: LoggedPages) -> PageTerms:
    """Joint IPS with weights divided by their sum."""
    weight = shared(data, joint_weight)
    there = np.ones((len(data), 1), dtype=bool)
    totals = data.fits.get(place_of_slots("slate_snips"))
    return _weighted(weight, weight[:, None], data.drawn_reward[:, None], there, totals=totals)


@with_pins
def independent_ips(data: LoggedPages) -> PageTerms:
    """IIPS: a card's reward depends on the card and its slot alone. Exact marginals. Source: Li et al. (2018)."""
    return _by_slot(data, shared(data, marginal_weight))


@with_pins
def sn_independent_ips(data: LoggedPages) -> PageTerms:
    """IIPS with weights divided by their sum, slot by slot."""
    return _by_slot(data, shared(data, marginal_weight), "sn_independent_ips")


@with_pins
def page_ncis(data: LoggedPages, cap: float = 20.0) -> PageTerms:
    """Normalised capped: sn_independent_ips with weights of at most `cap`; biased by the cap, to either side.

    The value is that of a policy which takes less of what the log rarely took, in slots that are reached as in the log:
    too low in some worlds where the target is better, too high in others (docs/page_study.md). Works without seen
    flags. Source: Gilotte et al. (2018).
    """
    if not cap > 0:
        raise ValueError(f"cap is {cap}; expected a number > 0")
    weight = shared(data, marginal_weight)
    note = (f"weights above {cap:g} were capped: the value is biased, to either side",)
    here = f"page_ncis {cap:g}"
    return _by_slot(data, np.minimum(weight, cap), here, note if weight.max() > cap else ())


@with_pins
def cascade_ips(data: LoggedPages) -> PageTerms:
    """RIPS: a reward depends on everything above and left of its slot. Source: McInerney et al. (2020)."""
    return _by_slot(data, shared(data, cascade_weight))


@with_pins
def sn_cascade_ips(data: LoggedPages) -> PageTerms:
    """RIPS with weights divided by their sum, slot by slot."""
    return _by_slot(data, shared(data, cascade_weight), "sn_cascade_ips")


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
    weight = 1.0 - slots + shared(data, marginal_weight).sum(axis=(1, 2))
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
    # What is fitted moves it too, but the model's bias is larger than any of that: the spread is that of the pages.
    return PageTerms(value, direct - value, partial(_average, direct), None, fit, (DIRECT,))


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
    reach: Reach = "corrected",
    draws: int = 64,
    rng: np.random.Generator | None = None,
) -> PageTerms:
    """Doubly robust by exposures (docs/exposure_dr.md): the default for pages. Needs seen flags.

    predictor: "stacked" regresses rewards on the given models' predictions and both policies' ranks; "target" and
    "logged" take one model as it is, its level apart. cap: of the ratio of exposures, inf for none; what lies beyond
    rests on the prediction. reach: "mean_field" is exact where going on does not depend on streams; "corrected" is the
    same without the bias that drawn pages show where going on does; "conditioned" takes the pages that hold the card,
    at a few times the work; "draws" averages `draws` pages of either policy and is right wherever reading is as assumed
    (needs rng; some 50 times the work).
    """
    fit = fit_exposure(data, predictor, cap)
    if reach in ("corrected", "mean_field"):
        return _by_mean_field(data, fit, corrects=reach == "corrected")
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
        raise ValueError(f"reach is {reach!r}; expected corrected, mean_field, conditioned or draws")
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


def _by_mean_field(data: LoggedPages, fit: ExposureFit, *, corrects: bool) -> PageTerms:
    from bart.ope.exposure.draws import Corrected, corrected, reach_gaps

    found = Corrected(fit.value, influence(data, fit), 0.0)
    if corrects and not data.is_logging and depends_on_streams(fit.parameters.browsing):
        found = corrected(found.value, found.influence, reach_gaps(data, fit), len(data))
    return PageTerms(
        found.value,
        found.influence,
        lambda m: refit(data, fit, m) - found.bias,
        _exposed(fit),
        fit,
        beyond=left_by_cap(fit),
        reach_bias=found.bias,
    )


@with_pins
def click_ips(data: LoggedPages) -> PageTerms:
    """Weights from how often each slot is read: what reordering a page would earn, without any exploration.

    Needs seen flags. Right where a card earns alike in every slot and is read by its slot alone; never conclusive.
    """
    found = click_terms(data, data.fits.get(place_of_slots("click_ips")))
    return PageTerms(
        found.value, found.influence, found.refit, found.page_weight, warnings=(ASSUMED,), slots=found.slots
    )


PAGE_ESTIMATORS: Mapping[str, Estimator] = {
    "exposure_dr": exposure_dr,
    "page_ncis": page_ncis,
    "sn_independent_ips": sn_independent_ips,
    "independent_ips": independent_ips,
    "dm": dm,
    "exposure_ips": exposure_ips,
    "click_ips": click_ips,
    "sn_cascade_ips": sn_cascade_ips,
    "cascade_ips": cascade_ips,
    "cascade_dr": cascade_dr,
    "adaptive_ips": adaptive_ips,
    "pseudo_inverse": pseudo_inverse,
    "slate_snips": slate_snips,
    "slate_ips": slate_ips,
}


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
    drawing = {} if rng is None else {"rng": rng}
    terms = checked_call(name, PAGE_ESTIMATORS, data, parameters, **drawing)
    spread = Spread(terms.value, terms.influence, data.user, terms.refit)
    judged = _judge(data, terms).with_cautions(data.cautions)
    if name == "exposure_dr" and terms.fit is not None:
        checks = [judge_cap(data, terms.fit), judge_reach(terms.reach_bias, spread.standard_error())]
        if parameters.get("reach") == "mean_field":
            checks.append(judge_mean_field(terms.fit.parameters.browsing))
        judged = judged.lowered(checks)
    judged = judged.lowered([_judge_order(data, terms.fit)])
    allowance = 0.0 if terms.beyond is None else bias_by_cap(terms.beyond, data.user)
    allowance = float(np.hypot(allowance, left_of_reach(terms.reach_bias)))
    # A joint or pseudo-inverse value may fall below 0, a page's reward may not.
    setting = PageSetting(level, rng, replicates, lowest=min(0.0, terms.value))
    notes = (*without_exploration(data), *left_out(data.left_out))
    return conclude_pages(name, spread, interval, setting, judged, allowance, terms.warnings, notes), spread


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdict and reasons, effective sample size, largest and mean weight of an estimate."""

    verdict: Verdict
    reasons: tuple[str, ...]
    size: float
    largest: float
    mean: float

    def with_cautions(self, cautions: Sequence[str]) -> Judged:
        """The same where the whole log is to be taken with care."""
        if not cautions:
            return self
        return replace(self, verdict=worse(self.verdict, "weak"), reasons=(*cautions, *self.reasons))

    def lowered(self, checks: Iterable[tuple[Verdict, tuple[str, ...]]]) -> Judged:
        """The same after further checks."""
        verdict, reasons = self.verdict, self.reasons
        for off, note in checks:
            verdict, reasons = worse(verdict, off), (*reasons, *note)
        return replace(self, verdict=verdict, reasons=reasons)


def conclude_pages(
    name: str,
    spread: Spread,
    interval: str | None,
    setting: PageSetting,
    judged: Judged,
    allowance: float = 0.0,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    ends: tuple[float, float] | None = None,
) -> Estimate:
    """The `Estimate`: the interval with a bias of standard deviation `allowance` in it, and what it says of precision.

    interval: a key of `PAGE_INTERVALS`, the default where None. warnings: of the estimator; notes: of the log. ends: of
    the interval, where it was made before.
    """
    chosen, value = interval or DEFAULT_INTERVAL, spread.value
    lower, upper = page_interval(chosen, spread, setting) if ends is None else ends
    if name == "exposure_dr":
        lower, upper = allow_for_bias((lower, upper), value, allowance, setting)
    judged = judged.lowered([judge_listeners(spread.size())])
    verdict, needed = precision(value, (upper - lower) / 2, len(spread), judged.verdict)
    return Estimate(
        name=name,
        value=value,
        lower=lower,
        upper=upper,
        level=setting.level,
        interval=chosen,
        n=len(spread),
        effective_sample_size=judged.size,
        max_weight=judged.largest,
        mean_weight=judged.mean,
        verdict=verdict,
        warnings=(*judged.reasons, *warnings, *needed, *notes),
    )


def _judge(data: LoggedPages, terms: PageTerms) -> Judged:
    if terms.fit is not None:
        found = exposure_diagnostics(terms.fit, in_scanning_order(data))
        return judged_exposure(found, len(data), weighted=terms.page_weight is not None)
    weight = np.ones(len(data)) if terms.page_weight is None else terms.page_weight
    facts = weight_facts(weight, data.drawn_reward)
    return judged_weights(facts, biased=bool(terms.warnings), averages_one=averages_one(terms.warnings))


def _judge_order(data: LoggedPages, fit: ExposureFit | None) -> tuple[Verdict, tuple[str, ...]]:
    """Whether rewards drift over tenths of the pages, in the order of the log."""
    pages, earned = np.ones(len(data)), data.drawn_reward
    modelled = pages if fit is None else fit.terms.logged.reward
    if not modelled.sum() > 0:
        return "conclusive", ()
    rest = earned - modelled * (earned.sum() / modelled.sum())
    sums = np.bincount(np.unique(data.user, return_inverse=True)[1].reshape(-1), rest)
    tenth = np.arange(len(data)) * BLOCKS // len(data)
    return judge_stretches(tenth, pages, earned, modelled, float(sums @ sums))


def judged_exposure(found: ExposureDiagnostics, pages: int, *, weighted: bool) -> Judged:
    """Of an exposure kind; the largest ratio of exposures and their balance stand for weights. weighted: whether the
    estimator weighs, which the direct method does not."""
    verdict, reasons = judge_exposure(found, pages)
    size = found.effective_sample_size if weighted else float(pages)
    return Judged(verdict if weighted else worse(verdict, "weak"), reasons, size, found.max_weight, found.balance)


def averages_one(warnings: Sequence[str]) -> bool:
    """Whether the weights of an estimator with these warnings average 1: nobody capped them."""
    return not any(words != ASSUMED for words in warnings)


def judged_weights(found: WeightFacts, *, biased: bool, averages_one: bool) -> Judged:
    """Of an estimator by page weights. biased: by design, or it rests on what its warnings say."""
    verdict, reasons = judge_weights(found, averages_one=averages_one)
    return Judged(worse(verdict, "weak") if biased else verdict, reasons, found.size, found.largest, found.mean)


# -------------------------------------------------------------------------------------------------------------- helpers


def shared(data: LoggedPages, weight: Callable[[LoggedPages], Floats]) -> Floats:
    """The weights, made once a record: several estimators start from the same."""
    if weight.__name__ not in data.fits:
        data.fits[weight.__name__] = weight(data)
    found: Floats = data.fits[weight.__name__]
    return found


def _by_slot(data: LoggedPages, weight: Floats, normalised: str = "", warnings: tuple[str, ...] = ()) -> PageTerms:
    """Slots [b, rows, columns] as columns; a page's weight is the mean of its slots'. normalised: the name under which
    the record may keep totals of a whole log."""
    b = len(data)
    shown = (data.order >= 0).reshape(b, -1)
    flat = weight.reshape(b, -1)
    drawn = shown.sum(axis=1)
    # A page of pins alone is the same under both policies.
    page_weight = np.where(drawn > 0, flat.sum(axis=1) / np.maximum(drawn, 1), 1.0)
    reward = np.where(data.seen, data.reward, 0.0).reshape(b, -1)
    if not normalised:
        return _weighted(page_weight, flat, reward, None, warnings)
    return _weighted(page_weight, flat, reward, shown, warnings, data.fits.get(place_of_slots(normalised)))


def _weighted(
    page_weight: Floats,
    weight: Floats,
    reward: Floats,
    normalised: Bools | None = None,
    warnings: tuple[str, ...] = (),
    totals: Floats | None = None,
) -> PageTerms:
    """Terms of a weighted sum over slots; weight, reward: [b, slots].

    normalised: [b, slots], which slots a page has; weights are then divided by their sum in the slot, and the slot
    counts by the share of pages that have it. None: divided by the number of pages. totals: of the log that the pages
    are a part of, see `slot_totals`; of the pages themselves where None.
    """
    product = weight * reward
    if normalised is None:
        each = product.sum(axis=1)
        value = float(each.mean())
        return PageTerms(value, each - value, partial(_average, each), page_weight, warnings=warnings)
    slots = slot_totals(product, weight, normalised) if totals is None else totals
    (of_product, total, there), pages = slots[:, :-1], float(slots[0, -1])
    ratio = np.divide(of_product, total, out=np.zeros_like(total), where=total > 0)
    share = there / pages
    scale = np.divide(there, total, out=np.zeros_like(total), where=total > 0)
    influence = ((product - weight * ratio) * scale).sum(axis=1) + ((normalised - share) * ratio).sum(axis=1)
    again = partial(_self_normalised, product, weight, normalised)
    value = float((share * ratio).sum())
    return PageTerms(value, influence, again, page_weight, warnings=warnings, slots=slots)


def slot_totals(product: Floats, weight: Floats, there: Bools) -> Floats:
    """[3, slots + 1] sums over pages of weight x reward, weight and which slots there are; the last column counts the
    pages. Totals add up over the parts of a log."""
    sums = np.stack([product.sum(axis=0), weight.sum(axis=0), there.sum(axis=0)])
    return np.concatenate([sums, np.full((3, 1), float(len(weight)))], axis=1)


def place_of_slots(kind: str) -> str:
    """Where a record that is a part of a log keeps the whole log's totals, among its fits."""
    return f"slots of {kind}"


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
