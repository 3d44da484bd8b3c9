"""Single choices from CSV or Parquet, batch by batch: which column holds what is said by `Columns`.

Of each row a few numbers are kept (see `reduced_choices`), whatever the number of actions: reward, propensity, and for
each evaluation policy its probability of the logged action; with a model two more. With context columns the pmf and the
context are kept too, since a model is then fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bart.errors import DataError, SupportError
from bart.ope.inputs import files as inputs_files
from bart.ope.inputs.action_names import action_names
from bart.ope.inputs.balance import plus, put_balance
from bart.ope.inputs.events import first_of_events
from bart.ope.inputs.kinds import file_size, first_bad
from bart.ope.records.balance_sums import BalanceSums
from bart.ope.records.choices import LEAST_PROPENSITY, PMF_TOLERANCE
from bart.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class Target:
    """An evaluation policy by columns: its probability of the logged action (one column), its pmf (a column an
    action), or the action it takes (one column). actions: of a pmf, the action of each column by its name in the log,
    where that was said."""

    kind: Literal["probability", "pmf", "action"]
    columns: tuple[str, ...]
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns. targets: evaluation policies by name. q_hat: predicted reward, a column an action in the
    order of the actions; context: numbers that a reward model may use. propensity None: the log has none. event: the
    decision's id, of which one row counts. weight: how many decisions a row stands for in a subsampled log."""

    reward: str
    propensity: str | None
    targets: Mapping[str, Target]
    action: str | None = None
    user: str | None = None
    timestamp: str | None = None
    context: tuple[str, ...] = ()
    q_hat: tuple[str, ...] = ()
    event: str | None = None
    weight: str | None = None

    def numbers(self) -> list[str]:
        """Columns that hold numbers."""
        named = [self.reward, *(c for c in (self.propensity, self.weight) if c), *self.context, *self.q_hat]
        named += [c for target in self.targets.values() if target.kind != "action" for c in target.columns]
        return list(dict.fromkeys(named))

    def texts(self) -> list[str]:
        """Columns that hold names."""
        named = [c for c in (self.action, self.user, self.timestamp, self.event) if c is not None]
        named += [c for target in self.targets.values() if target.kind == "action" for c in target.columns]
        return list(dict.fromkeys(named))


@dataclass(slots=True)
class Policy:
    """An evaluation policy on the rows. target: [n] probability of the logged action. value, predicted: [n] by q_hat
    columns. pmf: [n, k], where it was kept. chosen: [n] code of the action that a deterministic policy takes. balance:
    of a pmf, what was summed up of all actions."""

    target: Floats
    value: Floats | None = None
    predicted: Floats | None = None
    limits: tuple[float, float] = (0.0, 1.0)
    pmf: Any = None
    chosen: Ints | None = None
    balance: BalanceSums | None = None


@dataclass(slots=True)
class ChoiceTable:
    """The rows kept. action: [n] codes into `actions`, where there is an action column. user: [n] codes. outside: rows
    not in the time asked for. repeats: rows of an event that was there before. weight: [n], where there is a column."""

    reward: Floats
    propensity: Floats | None
    action: Ints | None
    actions: tuple[str, ...]
    user: Ints | None
    context: Any
    policies: dict[str, Policy]
    outside: int
    repeats: int = 0
    weight: Floats | None = None


@dataclass(slots=True)
class _Codes:
    known: dict[str, int] = field(default_factory=dict)

    def of(self, values: Any) -> Ints:
        """[n] codes of text values (an Arrow array), numbered by first appearance."""
        encoded = values.dictionary_encode()
        own = np.array([self.known.setdefault(v, len(self.known)) for v in encoded.dictionary.to_pylist()], np.int64)
        out: Ints = own[encoded.indices.to_numpy(zero_copy_only=False)]
        return out


def read_table(
    path: Path,
    columns: Columns,
    *,
    since: datetime | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ChoiceTable:
    """The rows of a file, checked. since: only rows whose timestamp is not before it.

    Raises DataError for a file or column that cannot be read, SupportError for a propensity outside (0, 1]; both name
    the column and the row (from 1).
    """
    _check_columns(columns)
    parts: dict[str, list[Any]] = {}
    codes = {name: _Codes() for name in ("action", "user", "event")}
    order = _action_order(columns)
    codes["action"].known.update(order)
    limits = {name: [np.inf, -np.inf] for name in columns.targets}
    balance: dict[str, BalanceSums | None] = {}
    row, outside, size = 0, 0, file_size(path)
    for batch, done in inputs_files.record_batches(path, [*dict.fromkeys([*columns.numbers(), *columns.texts()])]):
        found, kept = _one_batch(path, columns, batch, row, codes, limits, since)
        for name in columns.targets:
            balance[name] = plus(balance.get(name), found.pop(f"balance {name}", None))
        outside += batch.num_rows - kept
        row += batch.num_rows
        for key, value in found.items():
            parts.setdefault(key, []).append(value)
        if on_progress is not None:
            on_progress(done, size, f"{row:,} rows")
    if not parts or not sum(len(p) for p in parts["reward"]):
        raise DataError(f"{path} holds no row{' in the time asked for' if outside else ''}; expected logged choices")
    joined: dict[str, Any] = {}
    for key in list(parts):
        joined[key] = np.concatenate(parts.pop(key))
    repeats = _drop_repeats(path, joined)
    policies = {
        name: Policy(
            joined[f"target {name}"],
            joined.get(f"value {name}"),
            joined.get(f"predicted {name}"),
            (limits[name][0], limits[name][1]) if target.kind == "pmf" else (0.0, 1.0),
            joined.get(f"pmf {name}"),
            joined.get(f"chosen {name}"),
            balance.get(name),
        )
        for name, target in columns.targets.items()
    }
    return ChoiceTable(
        joined["reward"],
        joined.get("propensity"),
        joined.get("action"),
        tuple(codes["action"].known),
        joined.get("user"),
        joined.get("context"),
        policies,
        outside,
        repeats,
        joined.get("weight"),
    )


def _drop_repeats(path: Path, joined: dict[str, Any]) -> int:
    """Leaves the first row of each event in the arrays; how many rows went."""
    if "event" not in joined:
        return 0
    said: dict[str, Any] = {name: joined[name] for name in ("reward", "propensity", "action") if name in joined}
    first = first_of_events(str(path), joined["event"], said)
    if first is None:
        return 0
    rows = len(joined["event"])
    for name in joined:
        joined[name] = joined[name][first]
    return rows - len(first)


def _check_columns(columns: Columns) -> None:
    widths = {len(t.columns) for t in columns.targets.values() if t.kind == "pmf"}
    if columns.q_hat:
        widths.add(len(columns.q_hat))
    if len(widths) > 1:
        raise DataError(f"pmf and q_hat columns are {sorted(widths)} in number; expected one an action in each")
    for name, target in columns.targets.items():
        if target.kind != "probability" and columns.action is None:
            raise DataError(
                f"target {name!r} is given by {target.kind}; expected --action, the column of logged actions"
            )
    if columns.q_hat and columns.action is None:
        raise DataError("--q-hat needs --action, the column of logged actions")


def _action_order(columns: Columns) -> dict[str, int]:
    """Codes that are fixed beforehand: where there are columns an action, actions are their numbers from 0."""
    pmf = next((t.columns for t in columns.targets.values() if t.kind == "pmf"), columns.q_hat)
    return {str(i): i for i in range(len(pmf))}


def read_batch(path: Path, columns: Columns, batch: Any, first: int, since: datetime | None = None) -> dict[str, Any]:
    """Arrays of one record batch by itself, checked, of the rows kept; first: rows of the file before it.

    reward, propensity, context, user, action; of each policy "target NAME", and where the log has a model "value NAME"
    and "predicted NAME", of a pmf "limits NAME" and "balance NAME", of an action "chosen NAME". Codes of users are of
    this batch alone, and those of actions where no columns stand for them; users, actions: their names.
    """
    _check_columns(columns)
    codes = {name: _Codes() for name in ("action", "user", "event")}
    codes["action"].known.update(_action_order(columns))
    limits = {name: [np.inf, -np.inf] for name in columns.targets}
    found, _ = _one_batch(path, columns, batch, first, codes, limits, since)
    found |= {"users": list(codes["user"].known), "actions": list(codes["action"].known)}
    found.update({f"limits {name}": tuple(limits[name]) for name, t in columns.targets.items() if t.kind == "pmf"})
    return found


def _one_batch(
    path: Path,
    columns: Columns,
    batch: Any,
    first: int,
    codes: dict[str, _Codes],
    limits: dict[str, list[float]],
    since: datetime | None,
) -> tuple[dict[str, Any], int]:
    """Arrays of one record batch by key, and how many rows of it were kept."""
    number = {name: inputs_files.number(path, batch, name, first) for name in columns.numbers()}
    text = {name: inputs_files.text(path, batch, name, first) for name in columns.texts()}
    events = len(codes["event"].known)
    # What is kept is copied: a view would hold on to the whole record batch.
    out: dict[str, Any] = {"reward": number[columns.reward].copy()}
    if columns.propensity is not None:
        out["propensity"] = _propensities(path, columns.propensity, number[columns.propensity], first)
    if columns.context:
        out["context"] = np.stack([number[c] for c in columns.context], axis=1)
    if columns.weight is not None:
        out["weight"] = _weights(path, columns.weight, number[columns.weight], first)
    for name, column in (("user", columns.user), ("event", columns.event)):
        if column is not None:
            out[name] = codes[name].of(text[column])
    width = len(codes["action"].known) if _action_order(columns) else 0
    if columns.action is not None:
        out["action"] = _actions(path, columns, text[columns.action], codes["action"], width, first)
    for name, target in columns.targets.items():
        out.update(_target(path, columns, name, target, number, text, out, codes["action"], limits[name], width, first))
    keep = _kept(path, columns, text, since, first)
    if keep is not None:
        out = {key: value[keep] for key, value in out.items()}
    put_balance(out, [name for name, t in columns.targets.items() if t.kind == "pmf"], events)
    if not columns.context:
        out = {key: value for key, value in out.items() if not key.startswith("pmf ")}
    return out, len(out["reward"])


def _target(
    path: Path,
    columns: Columns,
    name: str,
    target: Target,
    number: dict[str, Floats],
    text: dict[str, Any],
    out: dict[str, Any],
    actions: _Codes,
    limits: list[float],
    width: int,
    first: int,
) -> dict[str, Any]:
    row = np.arange(len(out["reward"]))
    q = np.stack([number[c] for c in columns.q_hat], axis=1) if columns.q_hat else None
    found: dict[str, Any] = {}
    if target.kind == "probability":
        found["target"] = number[target.columns[0]].copy()
        _check_probability(path, target.columns[0], found["target"], first)
    elif target.kind == "action":
        chosen = _actions(path, columns, text[target.columns[0]], actions, width, first)
        found["target"] = (chosen == out["action"]).astype(np.float64)
        found["chosen"] = chosen
        if q is not None:
            found["value"], found["predicted"] = q[row, chosen], q[row, out["action"]]
    else:
        pmf = np.stack([number[c] for c in target.columns], axis=1)
        for i, column in enumerate(target.columns):
            _check_probability(path, column, pmf[:, i], first)
        off = np.abs(pmf.sum(axis=1) - 1) > PMF_TOLERANCE
        if off.any():
            at = first_bad(off)
            raise DataError(
                f"{path}: columns {target.columns[0]!r} to {target.columns[-1]!r}, row {first + at + 1} sum to "
                f"{pmf[at].sum():.9g}; expected 1 within {PMF_TOLERANCE:g}"
            )
        limits[0], limits[1] = min(limits[0], float(pmf.min())), max(limits[1], float(pmf.max()))
        found["target"] = pmf[row, out["action"]]
        if q is not None:
            found["value"], found["predicted"] = np.einsum("ij,ij->i", pmf, q), q[row, out["action"]]
        found["pmf"] = pmf.astype(np.float32) if columns.context else pmf
    return {f"{key} {name}": value for key, value in found.items()}


def _actions(path: Path, columns: Columns, values: Any, codes: _Codes, width: int, first: int) -> Ints:
    """Codes of actions; where columns stand for actions, the column's number from 0 or its name."""
    if not width:
        return codes.of(values)
    by_name, numbered = action_names(
        [t.columns for t in columns.targets.values() if t.kind == "pmf"] + ([columns.q_hat] if columns.q_hat else []),
        [t.actions for t in columns.targets.values() if t.actions],
    )
    encoded = values.dictionary_encode()
    own = []
    for value in encoded.dictionary.to_pylist():
        code = by_name.get(value, codes.known.get(value, -1) if numbered else -1)
        own.append(code)
    out: Ints = np.array(own, dtype=np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]
    if (out < 0).any():
        at = first_bad(out < 0)
        raise DataError(
            f"{path}: column {columns.action!r}, row {first + at + 1} is {values[at].as_py()!r}; expected "
            f"{f'the number (0 to {width - 1}) or ' if numbered else ''}the name of a pmf column (without what all "
            "have in common), or --target-pmf NAME=ACTION:COLUMN,..."
        )
    return out


def _propensities(path: Path, column: str, values: Floats, first: int) -> Floats:
    """Checked; what float32 leaves above 1 is 1."""
    bad = ~((values >= LEAST_PROPENSITY) & (values <= 1 + PMF_TOLERANCE))
    if bad.any():
        at = first_bad(bad)
        least = f", at least {LEAST_PROPENSITY:g}" if values[at] > 0 else ""
        raise SupportError(f"{path}: column {column!r}, row {first + at + 1} is {values[at]:g}; expected (0, 1]{least}")
    return np.minimum(values, 1.0)


def _weights(path: Path, column: str, values: Floats, first: int) -> Floats:
    if not values.min(initial=1.0) > 0:
        at = first_bad(~(values > 0))
        raise DataError(f"{path}: column {column!r}, row {first + at + 1} is {values[at]:g}; expected a number > 0")
    return values.copy()


def _check_probability(path: Path, column: str, values: Floats, first: int) -> None:
    bad = ~((values >= 0) & (values <= 1 + PMF_TOLERANCE))
    if bad.any():
        at = first_bad(bad)
        raise DataError(f"{path}: column {column!r}, row {first + at + 1} is {values[at]:g}; expected [0, 1]")


def _kept(path: Path, columns: Columns, text: dict[str, Any], since: datetime | None, first: int) -> Any:
    if since is None:
        return None
    if columns.timestamp is None:
        raise DataError("--since needs --timestamp, the column that says when a choice was made")
    at: dict[str, bool] = {}
    for i, value in enumerate(text[columns.timestamp].to_pylist()):
        if value in at:
            continue
        moment = inputs_files.instant(value)
        if moment is None:
            raise DataError(
                f"{path}: column {columns.timestamp!r}, row {first + i + 1} is {value!r}; expected a date or time, or "
                "unix seconds"
            )
        at[value] = moment >= since
    return np.array([at[value] for value in text[columns.timestamp].to_pylist()], dtype=np.bool_)
