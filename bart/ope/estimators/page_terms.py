"""What an estimator of pages hands on, with pinned cards beside, and sums over slots made into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import numpy as np

from bart.ope.exposure.doubly_robust import ExposureFit
from bart.ope.records.pages import LoggedPages
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


def shared(data: LoggedPages, weight: Callable[[LoggedPages], Floats]) -> Floats:
    """The weights, made once a record: several estimators start from the same."""
    if weight.__name__ not in data.fits:
        data.fits[weight.__name__] = weight(data)
    found: Floats = data.fits[weight.__name__]
    return found


def by_slot(data: LoggedPages, weight: Floats, normalised: str = "", warnings: tuple[str, ...] = ()) -> PageTerms:
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
        return weighted(page_weight, flat, reward, None, warnings)
    return weighted(page_weight, flat, reward, shown, warnings, data.fits.get(place_of_slots(normalised)))


def weighted(
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
        return PageTerms(value, each - value, partial(weighted_mean, each), page_weight, warnings=warnings)
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


def weighted_mean(each: Floats, multiplicity: Floats) -> float:
    return float(np.average(each, weights=multiplicity))


def _self_normalised(product: Floats, weight: Floats, there: Bools, multiplicity: Floats) -> float:
    total = multiplicity @ weight
    ratio = np.divide(multiplicity @ product, total, out=np.zeros_like(total), where=total > 0)
    return float((ratio * (multiplicity @ there)).sum() / multiplicity.sum())
