"""A user's own log of single choices, from CSV or Parquet, for evaluation and as an environment to replay policies in.

Two columns are needed, the action and its reward; the propensity is needed too, unless the choice was made uniformly at
random. A policy that learns can be run through the log by the replay method (Li, Chu, Langford and Wang, 2011): what it
would have chosen is counted only where the log chose the same, and there its reward is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from bart.errors import DataError, SupportError
from bart.ope.records.choices import LoggedChoices
from bart.types import Bools, Floats, Ints

FIELDS = ("action", "reward", "propensity", "position", "user")
MOST_VALUES = 100  # distinct values that a context column of text may have


@dataclass(frozen=True, slots=True, eq=False)
class GenericLog:
    """n logged choices in the order of the file.

    action [n] int, numbers of action_id; reward [n]; propensity [n] or None; position [n] int from 0 or None; user [n]
    int codes or None. context: [n, d], numbers as they are and texts one-hot; context_name: of its columns.
    """

    action: Ints
    action_id: tuple[str, ...]
    reward: Floats
    propensity: Floats | None
    position: Ints | None
    user: Ints | None
    context: Floats
    context_name: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.action)

    @property
    def n_actions(self) -> int:
        return len(self.action_id)

    def logged_at(self, how: Literal["uniform", "frequency"]) -> GenericLog:
        """The same with propensities that the file does not have, where one knows how the choices were made.

        uniform: each action alike. frequency: as often as in the log (at its position), whatever the context was.
        """
        if how == "uniform":
            return replace(self, propensity=np.full(len(self), 1 / self.n_actions))
        if how != "frequency":
            raise ValueError(f"how is {how!r}; expected uniform or frequency")
        return replace(self, propensity=frequency(self)[self.action, 0 if self.position is None else self.position])

    def choices(self, target_pmf: Floats, q_hat: Floats | None = None) -> LoggedChoices:
        """The log to be evaluated under another policy: target_pmf [k], [n, k] or [n, k, positions].

        Raises SupportError where the log has no propensities.
        """
        pmf = np.asarray(target_pmf)
        if pmf.ndim == 1:
            pmf = np.broadcast_to(pmf, (len(self), len(pmf)))
        return LoggedChoices(
            reward=self.reward,
            action=self.action,
            propensity=self._known(),
            target_pmf=pmf,
            q_hat=q_hat,
            position=self.position if pmf.ndim == 3 else None,
        )

    def _known(self) -> Floats:
        if self.propensity is None:
            raise SupportError(
                "the log has no propensity; expected a column of that name or mapped to it, or logged_at('uniform')"
                " where choices were made uniformly at random"
            )
        return self.propensity


class LearningPolicy(Protocol):
    """What can be replayed."""

    def pmf(self, context: Floats) -> Floats:
        """[k] probability of each action, given context [d]."""

    def update(self, context: Floats, action: int, reward: float) -> None:
        """Learns from one choice that was its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What a policy did where the log allows it to be seen.

    row: [m] rows of the log that count, growing. reward: [m] of them.
    """

    row: Ints
    reward: Floats


def read_log(file: Path, mapping: Mapping[str, str] | None = None, context: Sequence[str] = ()) -> GenericLog:
    """A log from `file` (.csv, .tsv or .parquet).

    mapping: {field: column} for fields of `FIELDS` that have another name in the file. context: columns that describe
    the situation of the choice. Rows are all or nothing: a missing or impossible value is refused with its line, as
    DataError.
    """
    file = Path(file)
    table = _table(file)
    mapping = dict(mapping or {})
    for field in mapping:
        if field not in FIELDS:
            raise DataError(f"mapping has {field!r}; expected some of {', '.join(FIELDS)}")
    column = {field: mapping.get(field, field) for field in FIELDS}
    needed = {"action", "reward", *mapping}
    for name in [*(column[field] for field in FIELDS if field in needed), *context]:
        if name not in table.column_names:
            raise DataError(f"{file} has no column {name!r}; expected some of {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise DataError(f"{file} has no rows; expected at least one choice")

    def there(field: str) -> bool:
        return column[field] in table.column_names

    action_id, action = _codes(file, table, column["action"])
    propensity = _numbers(file, table, column["propensity"]) if there("propensity") else None
    if propensity is not None and not ((propensity > 0) & (propensity <= 1)).all():
        at = int(np.flatnonzero(~((propensity > 0) & (propensity <= 1)))[0])
        raise SupportError(f"{file}: {column['propensity']} in row {at + 1} is {propensity[at]}; expected (0, 1]")
    position = _codes(file, table, column["position"])[1] if there("position") else None
    user = _codes(file, table, column["user"])[1] if there("user") else None
    values, names = _context(file, table, context)
    return GenericLog(
        action, action_id, _numbers(file, table, column["reward"]), propensity, position, user, values, names
    )


def frequency(log: GenericLog) -> Floats:
    """[k, positions] how often each action was chosen at each position, as a pmf (one position where there is none)."""
    position = np.zeros(len(log), dtype=np.int64) if log.position is None else log.position
    count = np.zeros((log.n_actions, int(position.max()) + 1))
    np.add.at(count, (log.action, position), 1.0)
    return np.asarray(count / count.sum(axis=0))


def accepted(propensity: Floats, target: Floats, rng: np.random.Generator, most: float | None = None) -> Bools:
    """[n] rows kept so that those kept are distributed as under the target policy (rejection sampling).

    propensity, target: [n], of the logged action under either policy. A row is kept with probability weight / `most`,
    where `most` is the largest weight that can be: by default the largest in the log.
    """
    weight = target / propensity
    top = float(weight.max()) if most is None else most
    if top <= 0 or weight.max() > top * (1 + 1e-9):
        raise ValueError(f"most is {top}; expected at least the largest weight, {weight.max()}, and more than 0")
    return np.asarray(rng.random(len(weight)) * top < weight)


def replay(log: GenericLog, policy: LearningPolicy, rng: np.random.Generator) -> Replayed:
    """Runs a policy that learns through the log, row by row.

    The policy's own choice is drawn; the row counts where it is the logged one, and then with probability
    (least propensity / propensity), which is 1 under uniform logging: what counts is distributed as the policy's own
    choices in the log's contexts. Raises SupportError where the log has no propensities.
    """
    propensity = log._known()
    least = propensity.min()
    u = rng.random((len(log), 2))
    kept = []
    for i, (action, reward) in enumerate(zip(log.action.tolist(), log.reward.tolist(), strict=True)):
        pmf = policy.pmf(log.context[i])
        # The chance that the policy draws the logged action, times that of keeping it.
        if u[i, 0] < pmf[action] and u[i, 1] * propensity[i] < least:
            policy.update(log.context[i], action, reward)
            kept.append(i)
    row = np.array(kept, dtype=np.int64)
    return Replayed(row, log.reward[row])


def _table(file: Path) -> pa.Table:
    if not file.is_file():
        raise DataError(f"{file} does not exist; expected a .csv, .tsv or .parquet file")
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file)
        if file.suffix in (".csv", ".tsv"):
            return csv.read_csv(file, parse_options=csv.ParseOptions(delimiter="\t" if file.suffix == ".tsv" else ","))
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    raise DataError(f"{file} is of an unknown kind; expected a .csv, .tsv or .parquet file")


def _numbers(file: Path, table: pa.Table, name: str) -> Floats:
    column = table[name]
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(f"{file}: column {name} holds {column.type}; expected numbers")
    array = column.to_numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise DataError(f"{file}: {name} in row {bad[0] + 1} is missing or not finite; expected a number")
    return np.asarray(array)


def _codes(file: Path, table: pa.Table, name: str) -> tuple[tuple[str, ...], Ints]:
    """Distinct values in order (of numbers where they are numbers) as text, and the code of each row."""
    column = table[name]
    if column.null_count:
        at = column.is_null().to_numpy().argmax()
        raise DataError(f"{file}: {name} in row {at + 1} is missing; expected a value")
    values, codes = np.unique(column.to_numpy(), return_inverse=True)
    return tuple(map(str, values.tolist())), codes.astype(np.int64)


def _context(file: Path, table: pa.Table, names: Sequence[str]) -> tuple[Floats, tuple[str, ...]]:
    parts, labels = [np.zeros((table.num_rows, 0))], []
    for name in names:
        if pa.types.is_integer(table[name].type) or pa.types.is_floating(table[name].type):
            parts.append(_numbers(file, table, name)[:, None])
            labels.append(name)
            continue
        values, codes = _codes(file, table, name)
        if len(values) > MOST_VALUES:
            raise DataError(f"{file}: {name} has {len(values)} values; expected numbers or at most {MOST_VALUES} texts")
        parts.append(np.eye(len(values))[codes])
        labels.extend(f"{name}={value}" for value in values)
    return np.concatenate(parts, axis=1), tuple(labels)
