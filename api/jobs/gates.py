"""What a candidate bundle must show before it may serve: each gate is one number, its bound and whether it passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from api.run.settings import Settings
    from bart.ope.engine.pages import PolicySums
    from bart.ope.records.estimate import Estimate
    from bart.reward.model import RewardModel
    from bart.types import Floats, ItemTable, PageBatch

PARITY_EXAMPLES = 2_000  # beyond those that are compared whenever a scorer is compiled
PARITY = 1e-5
ESTIMATOR = "exposure_dr"


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition. value: what was measured. bound: what it may be at most (or at least, as `text` says)."""

    name: str
    value: float | None
    bound: float | None
    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class Best:
    """The kept bundle that served before and is worth most on these pages: its value, and the candidate's gain over it
    with an interval."""

    name: str
    value: float
    gain: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The values of candidate and serving bundle on the same pages, and the gain with its interval. best: None where no
    kept bundle is worth more than the serving one."""

    candidate: Estimate
    serving: Estimate
    gain: float
    lower: float
    upper: float
    best: Best | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        from bart.ope.policies.pages import as_row

        rows = as_row({"candidate": self.candidate, "serving": self.serving})
        best = None if self.best is None else asdict(self.best)
        return {**rows, "gain": self.gain, "gain_lower": self.lower, "gain_upper": self.upper, "best": best}


def parity(model: RewardModel, folder: Path, items: ItemTable) -> Gate:
    """The compiled scorer against Vowpal Wabbit's own predictions."""
    from bart.reward.scorer import Scorer, load_scorer

    scorer = load_scorer(folder, items)
    worst = scorer.difference(model, np.arange(PARITY_EXAMPLES)) if isinstance(scorer, Scorer) else float("inf")
    return Gate("parity", worst, PARITY, worst <= PARITY, "largest difference of a compiled score, at most")


def calibration(holdout: Mapping[str, Any] | None, settings: Settings) -> list[Gate]:
    """Predicted and actual stream rates of the cards seen on the pages held out."""
    asked = settings.retrain
    if not holdout or not holdout["mean_reward"]:
        return [Gate("ece", None, asked.max_ece, False, "nothing was streamed on the pages held out; at most")]
    bias = abs(holdout["mean_prediction"] / holdout["mean_reward"] - 1)
    return [
        Gate("ece", holdout["ece"], asked.max_ece, holdout["ece"] <= asked.max_ece, "calibration error, at most"),
        Gate(
            "bias", bias, asked.max_bias, bias <= asked.max_bias, "distance from 1 of mean prediction / reward, at most"
        ),
    ]


def compare(
    pages: PageBatch,
    candidate: Floats,
    serving: Floats,
    level: float,
    rng: np.random.Generator,
    serving_pages: PageBatch | None = None,
    kept: Mapping[str, Floats] | None = None,
) -> Comparison:
    """Both policies on the logged candidates of the same pages, each with the exploration that was logged.

    candidate, serving: [N] predicted rewards. serving_pages: the same pages as the serving bundle knows them, where the
    candidate is of another batch. kept: predictions of bundles of the serving batch that served before, by name. The
    gain's interval is Student's, clustered by listener, over the difference of the influences, so that what moves both
    estimates alike cancels; it allows for the bias by the cap that the difference may have.
    """
    from bart.ope.comparison.evaluation import Question, asked_of, put_block, summed_log
    from bart.ope.engine.sums import Statistics
    from bart.ope.policies.pages import EvaluationPolicy

    known = serving_pages or pages
    if not np.array_equal(pages.offset, known.offset):
        raise ValueError("candidate and serving bundle were estimated on different pages; expected the same")
    # The same candidates, whichever bundle's item rows they have: a score each.
    policies = [
        EvaluationPolicy(name, score, known.shelf_epsilon, known.card_epsilon)
        for name, score in {"candidate": candidate, "serving": serving, **(kept or {})}.items()
    ]
    streams, question = rng.spawn(len(policies)), Question(asked_of({ESTIMATOR: ESTIMATOR}))

    def run(_: Any, __: str) -> Statistics:
        out = Statistics()
        put_block(out, question, known, policies, streams, q_logged=known.raw_score)
        return out

    log = summed_log(run, [policy.name for policy in policies], question, 1)
    found = {name: row[ESTIMATOR] for name, row in log.rows(streams, level).items()}
    new, old, *others = (log.policies[policy.name] for policy in policies)
    best = None
    for name, sums in zip(kept or {}, others, strict=True):
        if found[name].value > (found["serving"].value if best is None else best.value):
            best = Best(name, found[name].value, *difference(new, sums, level))
    return Comparison(found["candidate"], found["serving"], *difference(new, old, level), best)


def difference(one: PolicySums, other: PolicySums, level: float) -> tuple[float, float, float]:
    """One value minus another on the same pages, and its interval with the bias by the cap allowed for."""
    from bart.ope.exposure.doubly_robust import CAP
    from bart.ope.intervals.pages import PageSetting, allow_for_bias, student
    from bart.ope.verdict.pages import PAGE_GATES

    gain = one.spread(ESTIMATOR).minus(other.spread(ESTIMATOR))
    beyond = one.fits[CAP].beyond().minus(other.fits[CAP].beyond())
    setting = PageSetting(level, lowest=-np.inf)
    bias = PAGE_GATES.cap_allowance * beyond.standard_error() if beyond.influence.any() else 0.0
    return gain.value, *allow_for_bias(student(gain, setting), gain.value, bias, setting)


def value(found: Comparison, settings: Settings) -> list[Gate]:
    """Whether the log supports the estimates, and whether the candidate loses no more than is tolerated: against what
    serves, and against the best of what served in the last weeks, so that small losses do not add up."""
    asked = settings.retrain
    verdicts = {found.candidate.verdict, found.serving.verdict}
    bound = -asked.tolerance * found.serving.value
    gates = [
        Gate(
            "support",
            found.candidate.effective_sample_size,
            None,
            "unusable" not in verdicts,
            f"effective pages; estimates: {found.candidate.verdict}, {found.serving.verdict}; expected none unusable",
        ),
        Gate("gain", found.lower, bound, found.lower >= bound, "lower bound of candidate - serving, at least"),
    ]
    if found.best is not None:
        least = -asked.tolerance * found.best.value
        words = f"lower bound of candidate - {found.best.name}, the best that is kept, at least"
        gates.append(Gate("best", found.best.lower, least, found.best.lower >= least, words))
    if asked.floor is not None:
        lower = found.candidate.lower
        gates.append(Gate("floor", lower, asked.floor, lower >= asked.floor, "lower bound of the value, at least"))
    return gates


def reason(gates: list[Gate]) -> str:
    """The first gate that was not passed, in words; "" where all were."""
    for gate in gates:
        if not gate.passed:
            number = "" if gate.value is None else f" is {gate.value:.4g}"
            bound = "" if gate.bound is None else f" {gate.bound:.4g}"
            return f"{gate.name}{number} ({gate.text}{bound})"
    return ""


def as_rows(gates: list[Gate]) -> list[dict[str, Any]]:
    """Plain values for the manifest."""
    return [asdict(gate) for gate in gates]
