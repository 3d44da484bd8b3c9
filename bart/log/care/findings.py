"""What `verify` finds while records pass by: problems, what was replayed, the means of the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bart.log.care.means import ChoiceMean, MeanWeights
from bart.log.care.replay import IMPORTED, impossible_propensity, rebuilder, replay
from bart.log.care.replay_batch import replay_many
from bart.log.proof.check import Proof
from bart.log.record.block import Block
from bart.page.policy import PagePolicy
from bart.types import Bools, Decision

MOST_PROBLEMS = 1000  # kept; the count goes on


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one record. request_id: "" where it cannot be read any more."""

    request_id: str
    text: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was found. ok: nothing wrong.

    records: looked at. verified: replayed without a problem. problem_count may exceed the problems that are kept.
    excluded: choices where some action has no probability (epsilon 0, pins): they cannot enter the means. forced: pages
    whose seed or time was set by hand: replayed, but not in the means. imported, unknown_policy: not verified, because
    nothing here can replay them; their checksum fits and their propensities lie in (0, 1]. proof: what the chain of
    closed days says, with flaws of its own; None where there is none to say it (an older version).
    """

    path: Path
    records: int
    verified: int
    problem_count: int
    problems: tuple[Problem, ...]
    means: tuple[ChoiceMean, ...]
    excluded: int
    forced: int
    imported: int
    unknown_policy: int
    tombstones: int
    proof: Proof | None = None

    @property
    def ok(self) -> bool:
        proven = self.proof is None or not self.proof.flaws
        return proven and self.problem_count == 0 and all(mean.passed for mean in self.means)


class Findings:
    """Collects problems and means while records pass by."""

    def __init__(self, path: Path, policies: Mapping[str, Callable[[Decision], PagePolicy]]) -> None:
        self.path = path
        self.policies = policies
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.counts: Counter[str] = Counter()
        self.weights = MeanWeights()
        self.proof: Proof | None = None

    def problem(self, request_id: str, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(request_id, text))

    def block(self, block: Block, good: Bools, alone: Callable[[int], Decision]) -> None:
        """Replays the decisions of a block. good: [b], whether all else is well with each; alone: one of them, as an
        object, for those that have to be looked at one by one."""
        together = np.flatnonzero(np.array([name not in self.policies for name in block.policy], dtype=np.bool_))
        replayed = np.zeros(len(block), dtype=np.bool_)
        replayed[together], moments = replay_many(block.take(together))
        self.weights.add(moments)
        self.counts["forced"] += int((replayed & block.forced).sum())
        self.counts["verified"] += int((replayed & good).sum())
        for i in np.flatnonzero(~replayed).tolist():
            decision = alone(i)
            try:
                done = self._decision(decision)
            except Exception as error:
                text = f"does not hold a decision ({said(error)}): it was altered"
                self.problem(decision.request_id, text)
                continue
            self.counts["verified"] += bool(done and good[i])

    def _decision(self, decision: Decision) -> bool:
        """Replays one decision; whether it was replayed and all was well."""
        policy = self.policies.get(decision.policy)
        if policy is None and rebuilder(decision.policy) is None:
            problems = impossible_propensity(decision)
            for text in problems:
                self.problem(decision.request_id, text)
            if not problems:
                self.counts["imported" if decision.policy.startswith(IMPORTED) else "unknown_policy"] += 1
            return False
        problems, moments = replay(decision, policy)
        for text in problems:
            self.problem(decision.request_id, text)
        if decision.forced:
            self.counts["forced"] += 1
        elif not problems:
            self.weights.add(moments)
        return not problems

    def result(self) -> VerifyResult:
        return VerifyResult(
            path=self.path,
            records=self.counts["records"],
            verified=self.counts["verified"],
            problem_count=self.problem_count,
            problems=tuple(self.problems),
            means=self.weights.means(),
            excluded=self.weights.excluded,
            forced=self.counts["forced"],
            imported=self.counts["imported"],
            unknown_policy=self.counts["unknown_policy"],
            tombstones=self.counts["tombstones"],
            proof=self.proof,
        )


def said(error: Exception) -> str:
    """An error in words."""
    return f"{type(error).__name__}: {error}"
