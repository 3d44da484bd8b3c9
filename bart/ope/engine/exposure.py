"""The exposure estimators in sums: one fit for the whole log, in passes over its blocks.

Hazards, trust in positions, slopes, levels and the value are means over pages of things that average to zero (see
`exposure_dr`). A log of one block is fitted as it is. Of several, the first pass fits every block by itself; the mean
of their parameters, by pages, is where all start from. A further pass sums the estimating equations and their
derivatives at common parameters over all blocks: their Newton step is the fit of the whole log but for an error of
second order in the step. Where the step moves a value by too much, there is another pass from the new parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bart.ope.engine.listeners import Listeners
from bart.ope.engine.sums import Statistics, cell_key
from bart.ope.exposure.doubly_robust import CAP, ExposureFit, Parameters, fit_exposure, terms
from bart.ope.exposure.exposure import CLOSE, NARROW, WIDE, Summary, exposure, summarise
from bart.ope.exposure.influence import derivatives, equations
from bart.ope.models.appeal import LOGIT_BOUND, RIDGE, Appeal, features, fit_appeal, predicted
from bart.ope.models.browsing import PRIOR_STREAMS, Browsing, in_scanning_order, seen_cards, transitions
from bart.ope.records.pages import LoggedPages, take
from bart.types import Floats

STACKED = "stacked"


@dataclass(frozen=True, slots=True)
class Shared:
    """Parameters of all blocks. names: of what predicts. beta: intercept, then a coefficient each. hazard: [5]."""

    names: tuple[str, ...]
    beta: tuple[float, ...]
    hazard: tuple[float, ...]
    row_trust: tuple[float, ...]
    column_trust: tuple[float, ...]
    target_level: float
    cap: float

    def browsing(self) -> Browsing:
        h = self.hazard
        return Browsing(h[0], (h[1], h[2]), (h[3], h[4]), np.array(self.column_trust), np.array(self.row_trust))

    def prior(self) -> Floats:
        """[parameters] what priors add to the sums of the equations, in the order of `influence`."""
        start = [1.0 if name.startswith("logit") and i == 0 else 0.0 for i, name in enumerate(self.names)]
        trust = np.array([*self.row_trust[1:], *self.column_trust[1:]])
        slopes = np.array(self.beta[1:]) - start
        return np.concatenate([np.zeros(7), PRIOR_STREAMS * (1 - trust), -RIDGE * slopes])

    def moved(self, step: Floats) -> Shared:
        """The parameters a step further, [parameters] in the order of `influence`, each within what it can be."""
        rows, columns = len(self.row_trust), len(self.column_trust)
        step = np.clip(step, -1.0, 1.0)
        row = np.maximum(np.array(self.row_trust) + np.concatenate([[0.0], step[7 : 6 + rows]]), 1e-6)
        column = np.concatenate([[0.0], step[6 + rows : 5 + rows + columns]])
        column = np.maximum(np.array(self.column_trust) + column, 1e-6)
        beta = np.array(self.beta) + np.concatenate([step[5:6], step[5 + rows + columns :]])
        # Both levels are shifts of one intercept, which takes up the log's.
        level = np.clip(self.target_level + step[6] - step[5], -WIDE[0], WIDE[0])
        return Shared(
            self.names,
            numbers(np.append(np.clip(beta[:1], -2 * LOGIT_BOUND, 2 * LOGIT_BOUND), beta[1:])),
            numbers(np.clip(np.array(self.hazard) + step[:5], 0.0, 1.0)),
            numbers(row),
            numbers(column),
            float(level),
            self.cap,
        )


def cap_of(kind: str, parameters: Mapping[str, float]) -> float:
    """The cap of the fit that an estimator reads."""
    return float(parameters.get("cap", CAP)) if kind == "exposure_dr" else CAP


def put_hazards(out: Statistics, policy: str, data: LoggedPages) -> None:
    """Adds how listeners went on, from which hazards follow for the whole log."""
    for name, each in zip(("went", "possible"), transitions(data), strict=True):
        out.put(f"{policy}/{name}", each.sum(axis=0))


def put_start(out: Statistics, policy: str, data: LoggedPages, caps: Sequence[float], most: int) -> None:
    """Adds the parameters of a block's own fits, counted by its pages, where a card was seen.

    most: pages that levels are fitted to, evenly spread; predictions and trust are fitted to all.
    """
    if not data.seen.any():
        return
    b, appeal = len(data), fit_appeal(data, seen_cards(data), STACKED)
    pages = np.unique(np.linspace(0, b - 1, min(b, most)).astype(np.int64))
    if not data.seen[pages].any():
        pages = np.arange(b)
    some, candidates = take(data, pages)
    columns = np.stack(list(features(some, STACKED, seen_cards(some).card).values()), axis=1)
    some.fits[STACKED] = replace(appeal, score=appeal.score[candidates], feature=columns)
    beta = np.array(list(appeal.coefficient.values()))
    for cap in caps:
        at, place = fit_exposure(some, STACKED, cap).parameters, place_of_fit(policy, cap)
        out.put(f"{place}/start pages", b)
        out.put(f"{place}/names: {'|'.join(list(appeal.coefficient)[1:])}", b)
        out.put(f"{place}/start beta", b * beta)
        out.put(f"{place}/start row", b * appeal.row_trust)
        out.put(f"{place}/start column", b * appeal.column_trust)
        out.put(f"{place}/start level", b * (at.target_level - at.logged_level))


def put_exposure(
    out: Statistics, place: str, data: LoggedPages, fit: ExposureFit, listeners: Listeners, most: int
) -> None:
    """Adds sums by listener of terms and equations, and derivatives, at the parameters of a fit.

    most: pages to read derivatives from.
    """
    b, features = len(data), fit.summary.feature.shape[1]
    psi, means = equations(fit)
    of_psi, of_means = derivatives(data, fit, most)
    listeners.put(out, place, np.concatenate([means, psi], axis=1))
    out.put(f"{place}/of psi", b * of_psi.ravel())
    out.put(f"{place}/of means", b * of_means.ravel())
    out.put(f"{place}/slopes", features, "max")
    _put_exposed(out, place, fit, in_scanning_order(data) * float(data.seen.sum()))


def _put_exposed(out: Statistics, place: str, fit: ExposureFit, in_order: float) -> None:
    """What diagnostics say of exposures. in_order: seen cards that were read in the order of the model."""
    now, seen = fit.terms, fit.summary.seen
    exposed = np.bincount(seen.page, now.plain * now.trust, len(fit.summary))
    modelled = now.target.total
    for name, value in (
        ("exposed", exposed.sum()),
        ("exposed square", np.einsum("i,i->", exposed, exposed)),
        ("modelled", modelled.sum()),
        ("modelled square", np.einsum("i,i->", modelled, modelled)),
        ("exposed modelled", np.einsum("i,i->", exposed, modelled)),
        ("below the cap", (now.weight * now.trust).sum()),
        ("logged", now.logged.total.sum()),
        ("trust", now.trust.sum()),
        ("seen", len(seen.card)),
        ("in order", in_order),
    ):
        out.put(f"{place}/{name}", value)
    out.put(f"{place}/ratio most", now.plain.max(initial=0.0), "max")
    rate = np.divide(seen.reward, now.trust, out=np.zeros(len(seen.card)), where=now.trust > 0)
    cell, group = np.unique(cell_key(rate), return_inverse=True)
    for name, value in (("exposed", now.plain * now.trust), ("earned", now.plain * seen.reward)):
        out.put(f"{place}/{name} by rate", np.bincount(group, value, len(cell)), key=cell)


def fit_at(data: LoggedPages, at: Shared) -> ExposureFit:
    """The fit of a block at given parameters; kept where `fit_exposure` looks for its own."""
    by_name = features(data, STACKED, seen_cards(data).card)
    if tuple(by_name) != at.names:
        raise ValueError(f"a block is predicted by {', '.join(by_name)}; expected {', '.join(at.names)}")
    score, columns = predicted(data, STACKED, at.beta), np.stack(list(by_name.values()), axis=1)
    span = next((span for span in (CLOSE, NARROW) if abs(at.target_level) < span[0]), WIDE)
    key = f"{STACKED} at {at.beta}, {span[1]} levels"
    if key not in data.fits:  # one for all caps
        data.fits[key] = summarise(data, score, span, columns)
    summary: Summary = data.fits[key]
    browsing = at.browsing()
    # The logging policy itself is at the log's own level, to the last bit.
    parameters = Parameters(browsing, 0.0, 0.0 if data.is_logging else at.target_level, at.cap)
    fit = ExposureFit(
        summary=summary,
        parameters=parameters,
        terms=terms(summary, parameters),
        direct=exposure(summary, browsing, 0.0, 1).reward,
        reward=data.drawn_reward,
        appeal=Appeal(
            score,
            browsing.row_trust,
            browsing.column_trust,
            dict(zip(("intercept", *at.names), at.beta, strict=True)),
            columns,
            np.zeros(len(at.names)),
        ),
        predictor=STACKED,
    )
    data.fits[f"{STACKED}/{at.cap}"] = fit
    return fit


def numbers(values: Floats) -> tuple[float, ...]:
    """As plain floats, which travel and compare."""
    return tuple(float(value) for value in values)


def place_of_fit(policy: str, cap: float) -> str:
    """Where the statistics of a fit stand."""
    return f"{policy}/exposure {cap:g}"
