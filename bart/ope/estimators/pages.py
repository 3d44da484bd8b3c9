"""Estimators for logged pages: each is one function from `LoggedPages` to `PageTerms`, and one line in the table.

The value of a page is the sum of the rewards of its cards. `exposure_dr` is the default: it uses what is known of the
policy's structure and of reading. The importance-sampling kind beside it assumes less of reading and pays in variance:
by how much, its effective sample size says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from bart.ope.estimators.cascade import cascade_dr_terms, rest_of_page
from bart.ope.estimators.click import ASSUMED, click_terms
from bart.ope.estimators.page_terms import (
    PageTerms,
    by_slot,
    place_of_slots,
    shared,
    weighted,
    weighted_mean,
    with_pins,
)
from bart.ope.exposure.doubly_robust import CAP, ExposureFit, fit_exposure, left_by_cap, refit, with_reach
from bart.ope.exposure.influence import influence
from bart.ope.models.browsing import depends_on_streams
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.pages import cascade_weight, joint_weight, marginal_weight, seen_prefix_weight
from bart.types import Floats

Estimator: TypeAlias = Callable[..., PageTerms]
DIRECT = "the direct method has no weights: its interval cannot show the model's bias"
Reach: TypeAlias = Literal["corrected", "mean_field", "conditioned", "draws"]


# ------------------------------------------------------------------------------------------------- importance weights


@with_pins
def slate_ips(data: LoggedPages) -> PageTerms:
    """Joint IPS: weight of the whole page. Assumes nothing of reading; hopeless beyond a few cards."""
    weight = shared(data, joint_weight)
    return weighted(weight, weight[:, None], data.drawn_reward[:, None])


@with_pins
def slate_snips(data: LoggedPages) -> PageTerms:
    """Joint IPS with weights divided by their sum."""
    weight = shared(data, joint_weight)
    there = np.ones((len(data), 1), dtype=bool)
    totals = data.fits.get(place_of_slots("slate_snips"))
    return weighted(weight, weight[:, None], data.drawn_reward[:, None], there, totals=totals)


@with_pins
def independent_ips(data: LoggedPages) -> PageTerms:
    """IIPS: a card's reward depends on the card and its slot alone. Exact marginals. Source: Li et al. (2018)."""
    return by_slot(data, shared(data, marginal_weight))


@with_pins
def sn_independent_ips(data: LoggedPages) -> PageTerms:
    """IIPS with weights divided by their sum, slot by slot."""
    return by_slot(data, shared(data, marginal_weight), "sn_independent_ips")


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
    return by_slot(data, np.minimum(weight, cap), here, note if weight.max() > cap else ())


@with_pins
def cascade_ips(data: LoggedPages) -> PageTerms:
    """RIPS: a reward depends on everything above and left of its slot. Source: McInerney et al. (2020)."""
    return by_slot(data, shared(data, cascade_weight))


@with_pins
def sn_cascade_ips(data: LoggedPages) -> PageTerms:
    """RIPS with weights divided by their sum, slot by slot."""
    return by_slot(data, shared(data, cascade_weight), "sn_cascade_ips")


@with_pins
def cascade_dr(data: LoggedPages, predictor: str = "stacked") -> PageTerms:
    """RIPS with a model of the rest of the page as its base (bart/ope/estimators/cascade.py). Source: Kiyohara et al.
    (2022).

    Unbiased under the cascade assumption, whatever the model; needs seen flags for it. Equal policies give the mean
    reward in expectation, not to the digit: the base averages over choices that were not made.
    """
    each, weight = cascade_dr_terms(data, rest_of_page(fit_exposure(data, predictor)))
    value = float(each.mean())
    return PageTerms(value, each - value, partial(weighted_mean, each), weight)


@with_pins
def pseudo_inverse(data: LoggedPages) -> PageTerms:
    """PI: the page's reward is a sum of effects of each slot's card, on whichever slot they fall; approximate here.

    The page's reward is weighed by 1 - slots + sum over slots of marginal weights: exact where a logging policy fills
    slots independently, which rankings without replacement do not. Source: Swaminathan et al. (2017).
    """
    slots = (data.order >= 0).sum(axis=(1, 2))
    weight = 1.0 - slots + shared(data, marginal_weight).sum(axis=(1, 2))
    note = ("slots are treated as drawn independently: an approximation for rankings without replacement",)
    return weighted(weight, weight[:, None], data.drawn_reward[:, None], warnings=note)


@with_pins
def adaptive_ips(data: LoggedPages) -> PageTerms:
    """AIPS with the behaviour that the seen flags show: a slot is weighed by the earlier cards that were seen.

    Where nothing was seen the reward is 0 whatever the weight. Where the first slot in a row was reached, the rows
    above count with the cards seen in them. Unlike cascade_ips, cards below the end of reading do not enter.
    Source: Kiyohara et al. (2023), with behaviour read off the page instead of predicted.
    """
    return by_slot(data, seen_prefix_weight(data))


# ------------------------------------------------------------------------------------------------------------ exposure


@with_pins
def dm(data: LoggedPages, predictor: str = "stacked") -> PageTerms:
    """The direct method: modelled reward of the target's pages, browsing and level of the model fitted on the log."""
    fit = fit_exposure(data, predictor)
    direct = fit.direct * fit.scale
    value = float(direct.mean())
    # What is fitted moves it too, but the model's bias is larger than any of that: the spread is that of the pages.
    return PageTerms(value, direct - value, partial(weighted_mean, direct), None, fit, (DIRECT,))


@with_pins
def exposure_ips(data: LoggedPages, predictor: str = "stacked") -> PageTerms:
    """Rewards of seen cards weighed by the ratio of their exposures under both policies."""
    fit = fit_exposure(data, predictor)
    seen = fit.summary.seen
    each: Floats = np.bincount(seen.page, fit.terms.plain * seen.reward, len(data)).astype(np.float64)
    return PageTerms(float(each.mean()), each - each.mean(), partial(weighted_mean, each), _exposed(fit), fit)


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


def _exposed(fit: ExposureFit) -> Floats:
    """[b] sums of omega trust over the seen cards, divided by their expected mean."""
    each = np.bincount(fit.summary.seen.page, fit.terms.plain * fit.terms.trust, len(fit.summary))
    out: Floats = each / float(fit.terms.target.total.mean())
    return out
