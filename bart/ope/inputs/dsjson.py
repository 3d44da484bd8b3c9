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

from bart.errors import DataError
from bart.log.care.dsjson import UNKNOWN_USER, Unmapped, read_dsjson
from bart.ope.inputs.scores import MOST_MISSING, Scores
from bart.ope.records.choice_input import ChoiceInput
from bart.ope.records.choices import LoggedChoices, LoggedSlates
from bart.ope.records.reduced_choices import reduced
from bart.reward.rewards import STREAM_S
from bart.types import Floats

POLICIES = ("uniform", "first")


def read_dsjson_choices(
    path: Path,
    policies: Mapping[str, tuple[str | Scores, float]],
    *,
    user: str | None = None,
    reward_range: tuple[float, float] = (0.0, 1.0),
    since: datetime | None = None,
    most_missing: float = MOST_MISSING,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ChoiceInput:
    """The lines as choices, with each policy's probability of the action taken; lines that cannot be one are counted.

    policies: by name, uniform, first or `Scores` (request_id is the line's EventId, item_id the action's id), and the
    epsilon of its exploration. user: where a line names its user, a path of keys in `c`. reward_range: of -_label_cost;
    lines outside are counted. since: only lines whose Timestamp is not before it.
    """
    reward: list[float] = []
    propensity: list[float] = []
    users: list[str] = []
    target: dict[str, list[float]] = {name: [] for name in policies}
    limits = {name: [np.inf, -np.inf] for name in policies}
    out: Counter[str] = Counter()
    size, done, lines = path.stat().st_size, 0, 0
    low, high = reward_range
    try:
        with path.open("rb") as stream:
            for raw in stream:
                done += len(raw)
                if not raw.strip():
                    continue
                lines += 1
                if on_progress is not None and lines % 2000 == 0:
                    on_progress(done, size, f"{lines:,} lines")
                try:
                    page = read_dsjson(raw.decode("utf-8"), user=user, reward_range=reward_range)
                except Unmapped as reason:
                    out[str(reason)] += 1
                    continue
                except (ValueError, TypeError, ArithmeticError, LookupError) as error:
                    out[f"cannot be read ({type(error).__name__})"] += 1
                    continue
                decision = page.decision
                if since is not None and decision.decided_at < since:
                    out["before the time asked for"] += 1
                    continue
                heard = page.events[0].listened_s if page.events else None
                if heard is None:
                    out["not displayed (_skipLearn)"] += 1
                    continue
                chosen = int(decision.page.card[0, 0])
                reward.append(low + (high - low) * heard / STREAM_S)
                propensity.append(float(decision.page.card_propensity[0, 0]))
                users.append(decision.user_id)
                for name, (how, epsilon) in policies.items():
                    pmf = _pmf(how, epsilon, decision.request_id, decision.item_id)
                    target[name].append(float(pmf[chosen]))
                    limits[name] = [min(limits[name][0], float(pmf.min())), max(limits[name][1], float(pmf.max()))]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not reward:
        why = "; ".join(f"{count:,} {reason}" for reason, count in out.most_common(3))
        raise DataError(f"{path} holds no line to evaluate{f' ({why})' if why else ''}; expected DSJSON decisions")
    for how, _ in policies.values():
        if isinstance(how, Scores):
            how.check(most_missing)
    earned, logged = np.array(reward), np.array(propensity)
    records: dict[str, LoggedChoices | LoggedSlates] = {
        name: reduced(earned, logged, np.array(values), limits=(limits[name][0], limits[name][1]))
        for name, values in target.items()
    }
    records["logging"] = reduced(earned, logged, logged)
    named = user is not None and any(u != UNKNOWN_USER for u in users)
    codes = np.unique(np.array(users), return_inverse=True)[1].reshape(-1) if named else None
    return ChoiceInput(records, codes, dict(sorted(out.items())))


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
