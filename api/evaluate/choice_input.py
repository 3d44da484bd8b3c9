"""The options of `bart evaluate` for single choices and slates, and the log that they name as records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from bart.ope.inputs.scores import Scores
    from bart.ope.inputs.table import Columns, Target
    from bart.ope.records.choice_input import ChoiceInput


# What columns are called, first here, then in the Open Bandit Dataset and by its library.
NAMES = {
    "reward": ("reward", "click"),
    "action": ("action", "item_id"),
    "propensity": ("propensity", "propensity_score", "pscore"),
}


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """Which column holds what, and which policies are evaluated: the options of the command.

    target_probability, target_pmf, target_action: [NAME=]COLUMN (of a pmf: COLUMN,COLUMN,...). policies, scores: of a
    DSJSON log, NAME[:epsilon] and [NAME=]FILE[:epsilon]; folder: that relative files start from.
    """

    reward: str | None = None  # these three: by default the first of `NAMES` that the table has
    action: str | None = None  # only where actions are needed
    propensity: str | None = None
    user: str | None = None
    timestamp: str | None = None
    event_id: str | None = None  # a column called event_id, where there is one; "none": rows are decisions
    weight: str | None = None
    context: Sequence[str] = ()
    q_hat: Sequence[str] = ()
    target_probability: Sequence[str] = ()
    target_pmf: Sequence[str] = ()
    target_action: Sequence[str] = ()
    propensities: str = "logged"
    reward_range: tuple[float, float] | None = None
    policies: Sequence[str] = ()
    scores: Sequence[str] = ()
    most_missing: float = 0.1
    folder: Path = field(default_factory=Path.cwd)
    given: Sequence[str] = field(default=())  # names of the options that were set, for refusing those that mean nothing


def _npz(path: Path, options: ChoiceOptions, since: Any, rng: np.random.Generator, tick: Any) -> ChoiceInput:  # noqa: ARG001
    from bart.ope.inputs.arrays import read_arrays

    if options.policies or options.scores:
        raise DataError("--policy and --scores do not go with npz; expected none, the file's own arrays say the policy")
    _only(options, "npz", ("reward_range",))
    if since is not None:
        raise DataError("--since needs the times of choices; expected a table with --timestamp, or no --since")
    return read_arrays(path)


def _table(
    path: Path, options: ChoiceOptions, since: datetime | None, rng: np.random.Generator, tick: Any
) -> ChoiceInput:
    from bart.ope.inputs.choices import choice_input
    from bart.ope.inputs.events import event_column
    from bart.ope.inputs.files import column_names
    from bart.ope.inputs.table import read_table

    there = column_names(path)
    columns = choice_columns(options, there)
    if options.event_id is None:
        columns = replace(columns, event=event_column(there))
    return choice_input(read_table(path, columns, since=since, on_progress=tick), options.propensities, rng)


def choice_columns(options: ChoiceOptions, there: Sequence[str]) -> Columns:
    """Which column of a table holds what; there: the columns that it has. Raises DataError for options that do not go
    with a table."""
    from bart.ope.inputs.choices import PROPENSITIES
    from bart.ope.inputs.table import Columns

    if options.policies or options.scores:
        raise DataError(
            "--policy and --scores go with page logs and DSJSON; expected --target-probability, --target-pmf or "
            "--target-action for a table"
        )
    if options.propensities not in PROPENSITIES:
        raise DataError(f"--propensities is {options.propensities!r}; expected one of {', '.join(PROPENSITIES)}")

    def named(what: str, given: str | None) -> str:
        return given or next((name for name in NAMES[what] if name in there), what)

    needs_action = bool(options.context or options.q_hat or options.target_pmf or options.target_action)
    return Columns(
        reward=named("reward", options.reward),
        propensity=named("propensity", options.propensity) if options.propensities == "logged" else None,
        targets=_targets(options),
        action=named("action", options.action) if needs_action or options.action else None,
        user=options.user,
        timestamp=options.timestamp,
        context=tuple(options.context),
        q_hat=tuple(options.q_hat),
        event=None if options.event_id == "none" else options.event_id,
        weight=options.weight,
    )


def _targets(options: ChoiceOptions) -> dict[str, Target]:
    from bart.ope.inputs.table import Target

    out: dict[str, Target] = {}
    for kind, texts in (
        ("probability", options.target_probability),
        ("pmf", options.target_pmf),
        ("action", options.target_action),
    ):
        for text in texts:
            name, equals, columns = text.partition("=")
            if not equals:
                name, columns = ("target" if kind == "pmf" else text), text
            names = tuple(c.strip() for c in columns.split(",") if c.strip())
            actions: tuple[str, ...] = ()
            if kind == "pmf" and names and all(c.count(":") == 1 for c in names):
                actions, names = zip(*(c.split(":") for c in names), strict=True)
            if not names or (kind != "pmf" and len(names) != 1) or (kind == "pmf" and len(names) < 2):
                raise DataError(f"--target-{kind} is {text!r}; expected [NAME=]COLUMN{',COLUMN,...' * (kind == 'pmf')}")
            if name in out or name == "logging":
                raise DataError(f"--target-{kind} names {name!r} again; expected a name of its own for each policy")
            out[name] = Target(kind, names, actions)  # type: ignore[arg-type]
    if not out:
        raise DataError(
            "no evaluation policy is named; expected --target-probability, --target-pmf or --target-action with the "
            "columns that say what it would do"
        )
    return out


def _dsjson(path: Path, options: ChoiceOptions, since: datetime | None, rng: Any, tick: Any) -> ChoiceInput:  # noqa: ARG001
    from api.evaluate.policies import LOGGED, open_scores, parse_policy, titled
    from bart.ope.inputs.dsjson import POLICIES, read_dsjson_choices

    _only(options, "DSJSON", ("user", "reward_range", "policies", "scores", "most_missing"))
    wanted: dict[str, tuple[str | Scores, float]] = {}
    for text in options.policies:
        name, epsilon = parse_policy(text)
        if name == "logging":
            continue
        if name not in POLICIES:
            raise DataError(f"--policy is {text!r}; expected {', '.join(POLICIES)} or logging for DSJSON, or --scores")
        wanted[titled(name, epsilon)] = (name, epsilon)
    for text in options.scores:
        name, epsilon, scores = open_scores(text, options.folder)
        wanted[titled(name, epsilon)] = (scores, epsilon)
    if any(epsilon == LOGGED for _, epsilon in wanted.values()):
        raise DataError("epsilon is 'logged'; expected a number for DSJSON, which has no exploration rates")
    return read_dsjson_choices(
        path,
        wanted or {name: (name, 0.0) for name in POLICIES},
        user=options.user,
        reward_range=options.reward_range,
        since=since,
        most_missing=options.most_missing,
        on_progress=tick,
    )


def _only(options: ChoiceOptions, what: str, allowed: Sequence[str]) -> None:
    for name in options.given:
        if name not in allowed:
            raise DataError(f"--{name.replace('_', '-')} does not go with {what}; expected it for a table")


READERS: Mapping[str, Callable[..., ChoiceInput]] = {"table": _table, "dsjson": _dsjson, "npz": _npz}
