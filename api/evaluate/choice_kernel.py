"""A log of single choices or slates that is estimated as it is: read, estimated and compared in one piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from api.evaluate.choice_input import READERS, ChoiceOptions
from api.run.progress import Quiet, Stages
from bart.ope.engine.sums import Part, Statistics

if TYPE_CHECKING:
    from bart.ope.policies.choices import Asked
    from bart.ope.records.choice_input import ChoiceInput


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of a log of choices: estimators with their parameters, or everything; intervals and their level;
    since: only what was decided from then on; seed: of everything random."""

    options: ChoiceOptions
    asked: tuple[Asked, ...]
    everything: bool
    interval: str | None
    level: float
    since: datetime | None
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class WholeLog:
    """Everything that a report says of a log, as JSON under which one thing was counted. kind: of `READERS`."""

    kind: str
    question: Question
    stages: Stages = field(default_factory=Quiet)

    def read(self, part: Part) -> Iterator[tuple[ChoiceInput, np.random.Generator]]:
        """The log, and the generator that goes on from what was fitted to it."""
        from api.background.memory import release_memory

        rng, tick = np.random.default_rng(self.question.seed), self.stages.stage("Reading the log")
        log = READERS[self.kind](part.files[0], self.question.options, self.question.since, rng, tick)
        log = without_chance(log)
        release_memory()
        tick(1, 1, f"{len(log.reward):,} rows")
        yield log, rng

    def __call__(self, piece: tuple[ChoiceInput, np.random.Generator]) -> Any:
        from bart.ope.policies.choices import evaluate_choices, that_act, weights_of

        (log, rng), question = piece, self.question
        told: list[str] = []
        if not log.model_only:
            everyone = log.policies
            policies, told = that_act(everyone, lambda name: bool(weights_of(everyone[name]).any()))
            log = replace(log, policies=policies)
        rows, lacking = evaluate_choices(
            log,
            question.asked,
            everything=question.everything,
            interval=question.interval,
            level=question.level,
            rng=rng,
            reward_range=question.options.reward_range,
            on_progress=self.stages.stage("Estimating"),
        )
        facts: dict[str, Any] = {log.kind: len(log.reward), "mean reward": log.mean_reward}
        if log.user is not None:
            facts["users"] = int(log.user.max()) + 1
        _add_sensitivity(rows, log)
        found = {
            "kind": log.kind,
            "warnings": [*log.warnings, *told],
            "policies": rows,
            "log": facts,
            "left_out": dict(log.left_out),
            "estimators_left_out": lacking,
            "notes": list(log.notes),
            "models": dict(log.models),
            "compared": _compared(log, question, rng),
        }
        out = Statistics()
        out.put(json.dumps(found, default=lambda number: number.item()), 1)
        return out.to_arrow()

    @staticmethod
    def told(found: Statistics) -> dict[str, Any]:
        """What was put."""
        (text,) = found.names()
        told: dict[str, Any] = json.loads(text)
        return told


def without_chance(log: ChoiceInput) -> ChoiceInput:
    """The log with a warning where every choice had propensity 1: nothing in it tells actions apart."""
    from bart.ope.records.choices import LoggedChoices

    first = next(iter(log.policies.values()))
    if log.model_only or not isinstance(first, LoggedChoices) or not (first.propensity == 1).all():
        return log
    words = (
        "every choice has propensity 1: nothing was left to chance, so no estimate of another policy is conclusive;"
        " --propensities none with --context or --q-hat gives what a model says"
    )
    return replace(log, warnings=(*log.warnings, words))


def _add_sensitivity(rows: list[dict[str, Any]], log: ChoiceInput) -> None:
    """How wrong recorded propensities must be before each difference to the log's mean may be none; and Pareto's k."""
    from bart.ope.records.choices import LoggedChoices
    from bart.ope.verdict.tails import pareto_k, turning_factor
    from bart.ope.weights.choices import choice_weight

    for row in rows:
        record = log.policies[row["name"]]
        if log.model_only or not isinstance(record, LoggedChoices):
            continue
        weight, counts = choice_weight(record), record.row_weight()
        row["pareto_k"] = pareto_k(weight)
        if row["name"] != "logging":
            row["sensitivity"] = {"factor": turning_factor(weight, record.reward, log.mean_reward, counts)}


def _compared(log: ChoiceInput, question: Question, rng: np.random.Generator) -> dict[str, Any]:
    """The policies against each other; nothing for slates and for logs that only a model can judge. Where intervals
    hold at every look, which policies may still be the best, too."""
    from bart.ope.comparison.choices import compare_choices
    from bart.ope.comparison.elimination import eliminate
    from bart.ope.records.choices import LoggedChoices

    records = {
        name: replace(record, warnings=log.warnings)
        for name, record in log.policies.items()
        if isinstance(record, LoggedChoices)
    }
    if log.model_only or len(records) < 2:
        return {}
    level, reward_range = question.level, question.options.reward_range
    found = compare_choices(records, rng, user=log.user, level=level, reward_range=reward_range)
    sequence = log.user is None and all(record.sample_weight is None for record in records.values())
    if question.interval == "anytime" and sequence:
        found["elimination"] = eliminate(records, level=level, reward_range=reward_range).as_dict()
    return found
