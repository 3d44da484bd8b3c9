"""Single choices from DSJSON, the joined log of Vowpal Wabbit and Azure Personalizer, a line at a time.

The log names the pmf over the actions of each line but no other policy's; evaluated are policies that need none:
`uniform`, `first` (the action that the caller put first, the usual baseline), and epsilon-greedy on outside scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError, SupportError
from bart.log.care.dsjson_line import NO_COST, UNKNOWN_USER, DsjsonLine, Unmapped, open_lines, read_line
from bart.ope.inputs.left_out import missing_outcomes
from bart.ope.inputs.scores import MOST_MISSING, Scores
from bart.ope.records.balance_sums import BalanceSums, of_sets
from bart.ope.records.choice_input import ChoiceInput
from bart.ope.records.choices import LEAST_PROPENSITY, LoggedChoices, LoggedSlates
from bart.ope.records.reduced_choices import reduced
from bart.types import Floats

POLICIES = ("uniform", "first")


def read_dsjson_choices(
    path: Path,
    policies: Mapping[str, tuple[str | Scores, float]],
    *,
    user: str | None = None,
    reward_range: tuple[float, float] | None = None,
    since: datetime | None = None,
    most_missing: float = MOST_MISSING,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ChoiceInput:
    """The lines as choices, with each policy's probability of the action taken.

    policies: by name, uniform, first or `Scores` (request_id is the line's EventId, item_id the action's id), and the
    epsilon of its exploration. user: where a line names its user, a path of keys in `c`. reward_range: of -_label_cost;
    None for what the log shows. since: only lines whose Timestamp is not before it.
    An EventId is one decision, however often it was delivered; a line without one is a decision of its own, "line N"
    to `Scores`. A subsampled line (pdrop) stands for 1 / (1 - pdrop). The file may be packed (gzip, bzip2).
    Lines that cannot be a choice are counted; where that can depend on what they earned, the input warns. Raises
    DataError for a reward outside a range that was given, and for a file without a line to evaluate.
    """
    lines = _Lines(path, policies, user, reward_range, since)
    size, done, read = path.stat().st_size, 0, 0
    try:
        with open_lines(path) as stream:
            for number, raw in enumerate(stream, 1):
                done += len(raw)
                if not raw.strip():
                    continue
                read += 1
                if on_progress is not None and read % 2000 == 0:
                    on_progress(done, size, f"{read:,} lines")
                lines.take(raw, number)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for how, _ in policies.values():
        if isinstance(how, Scores) and lines.reward:
            how.check(most_missing)
    return lines.choices(read)


class _Lines:
    """The choices read so far, and the lines that are none, by reason."""

    def __init__(
        self,
        path: Path,
        policies: Mapping[str, tuple[str | Scores, float]],
        user: str | None,
        reward_range: tuple[float, float] | None,
        since: datetime | None,
    ) -> None:
        self.path, self.policies, self.user, self.range, self.since = path, policies, user, reward_range, since
        self.reward: list[float] = []
        self.propensity: list[float] = []
        self.stands_for: list[float] = []
        self.users: list[str] = []
        self.target: dict[str, list[float]] = {name: [] for name in policies}
        self.limits = {name: [np.inf, -np.inf] for name in policies}
        self.out: Counter[str] = Counter()
        self.known: dict[str, tuple[float | None, str]] = {}  # what the first line of an event says
        self.lacking: dict[str, str] = {}  # events of which no line with an outcome came so far, and why
        self.unread: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.sets = _Sets(list(policies))

    def take(self, raw: bytes, number: int) -> None:
        """One line of the file, counted from 1."""
        try:
            line = read_line(raw.decode("utf-8"), user=self.user)
        except Unmapped as reason:
            if reason.event_id or str(reason) == NO_COST:
                self.lacking.setdefault(reason.event_id or f"line {number}", str(reason))
            else:
                (self.out if reason.by_design else self.unread)[str(reason)] += 1
            return
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            self.unread[f"cannot be read ({type(error).__name__})"] += 1
            return
        event, reward = line.event_id or f"line {number}", line.reward
        said = reward, str(line.item_id[line.chosen])
        before = self.known.setdefault(event, said) if line.event_id else said
        if before is not said:
            self.out["EventId repeats"] += 1
            if before != said:
                self.unread["EventId repeats with another outcome"] += 1
            return
        if self.since is not None and (line.at is None or line.at < self.since):
            self.out["before the time asked for" if line.at is not None else "no Timestamp, to tell the time by"] += 1
            return
        if reward is None:
            self.out["not displayed (_skipLearn)"] += 1
            return
        if line.propensity < LEAST_PROPENSITY:
            raise SupportError(
                f"{self.path}: line {number} has _label_probability {line.propensity:g}; expected at least "
                f"{LEAST_PROPENSITY:g}, since nobody draws what is rarer"
            )
        if self.range is not None and not self.range[0] <= reward <= self.range[1]:
            raise DataError(
                f"{self.path}: line {number} has reward {reward:g} (-_label_cost), outside [{self.range[0]:g}, "
                f"{self.range[1]:g}]; expected a range that holds every reward, or none, for what the log shows"
            )
        self.reward.append(reward)
        self.propensity.append(line.propensity)
        self.stands_for.append(1.0 / (1.0 - line.pdrop))
        self.users.append(line.user)
        self.models[line.model] += 1
        for name, (how, epsilon) in self.policies.items():
            pmf = _pmf(how, epsilon, event, line.item_id)
            self.target[name].append(float(pmf[line.chosen]))
            self.sets.pmf[name].append(pmf)
            low, high = self.limits[name]
            self.limits[name] = [min(low, float(pmf.min())), max(high, float(pmf.max()))]
        self.sets.put(line)

    def choices(self, lines: int) -> ChoiceInput:
        """All of them. lines: how many the file held."""
        lacking = Counter(why for event, why in self.lacking.items() if event not in self.known)
        out = self.out + self.unread + lacking
        if not self.reward:
            why = "; ".join(f"{count:,} {reason}" for reason, count in out.most_common(3))
            raise DataError(
                f"{self.path} holds no line to evaluate{f' ({why})' if why else ''}; expected DSJSON decisions"
            )
        earned, logged = np.array(self.reward), np.array(self.propensity)
        stands_for = np.array(self.stands_for)
        sampled = bool((stands_for != 1).any())
        weight = stands_for if sampled else None
        records: dict[str, LoggedChoices | LoggedSlates] = {
            name: reduced(
                earned,
                logged,
                np.array(values),
                limits=(self.limits[name][0], self.limits[name][1]),
                sample_weight=weight,
                balance=self.sets.balance(name),
            )
            for name, values in self.target.items()
        }
        records["logging"] = reduced(earned, logged, logged, sample_weight=weight)
        named = self.user is not None and any(u != UNKNOWN_USER for u in self.users)
        codes = np.unique(np.array(self.users), return_inverse=True)[1].reshape(-1) if named else None
        note = (
            f"The log was subsampled (pdrop): {len(earned):,} lines stand for {stands_for.sum():,.0f} decisions, each"
            " weighed by 1 / (1 - pdrop)."
        )
        return ChoiceInput(
            records,
            codes,
            dict(sorted(out.items())),
            missing_outcomes(lacking, self.unread, lines),
            notes=(note,) if sampled else (),
            models=dict(self.models),
        )


class _Sets:
    """What the lines offered, summed up for each policy a few thousand lines at a time."""

    MOST = 4_096

    def __init__(self, names: list[str]) -> None:
        self.pmf: dict[str, list[Floats]] = {name: [] for name in names}
        self._codes: dict[str, int] = {}
        self._lines: list[tuple[list[int], int, float, Floats | None]] = []
        self._sums: dict[str, BalanceSums | None] = dict.fromkeys(names)

    def put(self, line: DsjsonLine) -> None:
        """One line, after its pmf of each policy."""
        codes = [self._codes.setdefault(item, len(self._codes)) for item in line.item_id.tolist()]
        self._lines.append((codes, codes[line.chosen], line.propensity, line.pmf))
        if len(self._lines) >= self.MOST:
            self._sum_up()

    def balance(self, name: str) -> BalanceSums | None:
        """Of all lines."""
        if self._lines:
            self._sum_up()
        return self._sums[name]

    def _sum_up(self) -> None:
        codes, action, propensity, logged = zip(*self._lines, strict=True)
        row = np.repeat(np.arange(len(codes)), [len(each) for each in codes])
        known = [np.ones(len(o)) if pmf is None else pmf for o, pmf in zip(codes, logged, strict=True)]
        given = np.array(action), np.array(propensity), row, np.concatenate(codes)
        for name, pmf in self.pmf.items():
            found = of_sets(*given, np.concatenate(pmf), np.concatenate(known))
            self._sums[name] = found.plus(self._sums[name])
            pmf.clear()
        self._lines.clear()


def _pmf(how: str | Scores, epsilon: float, request_id: str, item_id: Any) -> Floats:
    """The policy's pmf over the actions of one line: epsilon-greedy, the tied best share the greedy part."""
    n = len(item_id)
    if how == "uniform":
        return np.full(n, 1.0 / n)
    if isinstance(how, Scores):
        score = how.of(np.array([request_id], dtype=object), np.array([0, n]), item_id)
        best = score == score.max()
    else:
        best = np.arange(n) == 0
    return np.asarray(epsilon / n + (1.0 - epsilon) * best / best.sum())
