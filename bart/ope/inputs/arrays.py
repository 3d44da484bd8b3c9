"""Single choices and slates from an npz file whose arrays have the names of `LoggedChoices` or `LoggedSlates`."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.ope.inputs.events import REPEATS, first_of_events
from bart.ope.records.choice_input import ChoiceInput
from bart.ope.records.choices import LoggedChoices, LoggedSlates

CHOICES = ("reward", "action", "propensity", "target_pmf", "q_hat", "position", "sample_weight")
SLATES = (
    "reward",
    "slate_propensity",
    "marginal_propensity",
    "cascade_propensity",
    "target_slate",
    "target_marginal",
    "target_cascade",
)
OF_OTHERS = {  # names of the Open Bandit Pipeline
    "pscore": "propensity",
    "action_dist": "target_pmf",
    "estimated_rewards_by_reg_model": "q_hat",
    "pi_b": "logging_pmf",
}
OF_CHOICES = ("context", "embedding", "cluster", "logging_pmf")  # what some estimators need beside the record
OF_SLATES = ("q_target", "behaviour")


def read_arrays(path: Path, name: str = "target") -> ChoiceInput:
    """The arrays as one evaluation policy called `name`, beside the logging policy.

    Choices: reward, action, propensity [n], target_pmf [n, k] or [n, k, positions] (or [k] or [k, positions], the same
    in every context), and where they are there q_hat [n, k], position [n], user [n], context [n, d], embedding [k],
    cluster [k], logging_pmf [n, k], sample_weight [n] and event_id [n], of which one row counts. Slates: the fields of
    `LoggedSlates`, user and event_id [n], q_hat and q_target [n, positions], behaviour. Raises DataError for a file
    that is no npz or lacks an array, ValueError for what the record refuses.
    """
    arrays = _load(path)
    for theirs, ours in OF_OTHERS.items():
        if theirs in arrays and ours not in arrays:
            arrays[ours] = arrays.pop(theirs)
            if arrays[ours].ndim == 3 and (ours == "q_hat" or "position" not in arrays):
                arrays[ours] = _at_position(arrays[ours], arrays.get("position"))
    repeats = _drop_repeats(path, arrays)
    left = {REPEATS: repeats} if repeats else {}
    user = arrays.get("user")
    codes = None if user is None else np.unique(user, return_inverse=True)[1].reshape(-1)
    if "slate_propensity" in arrays:
        _need(path, arrays, SLATES)
        slates = LoggedSlates(**{key: arrays[key] for key in SLATES})
        logging = LoggedSlates(
            slates.reward,
            slates.slate_propensity,
            slates.marginal_propensity,
            slates.cascade_propensity,
            slates.slate_propensity,
            slates.marginal_propensity,
            slates.cascade_propensity,
        )
        beside = {key: arrays[key] for key in OF_SLATES if key in arrays}
        if "q_hat" in arrays:
            beside["q_hat"] = arrays["q_hat"]
        return ChoiceInput({name: slates, "logging": logging}, codes, left, parameters=beside)
    if "target_pmf" not in arrays and "target_pmf_by_position" in arrays:
        arrays["target_pmf"] = arrays["target_pmf_by_position"]
    _need(path, arrays, ("reward", "action", "propensity", "target_pmf"))
    arrays["target_pmf"] = _each_row(arrays)
    data = LoggedChoices(**{key: arrays[key] for key in CHOICES if key in arrays})
    beside = {key: arrays[key] for key in OF_CHOICES if key in arrays}
    from bart.ope.records.reduced_choices import reduced

    # The actions are those of the log, so that policies can be compared row by row.
    itself = reduced(data.reward, data.propensity, data.propensity, sample_weight=data.sample_weight)
    logging_record = replace(itself, action=data.action)
    return ChoiceInput({name: data, "logging": logging_record}, codes, left, parameters=beside)


def _at_position(array: Any, position: Any) -> Any:
    """[n, k] of [n, k, positions], each row at its position; at the first where there is none."""
    return array[:, :, 0] if position is None else array[np.arange(len(array)), :, position]


def _load(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as npz: {error}") from None


def _drop_repeats(path: Path, arrays: dict[str, Any]) -> int:
    """Leaves the first row of each event in the arrays [n, ...]; how many rows went."""
    event, reward = arrays.get("event_id"), arrays.get("reward")
    if event is None or reward is None:
        return 0
    rows = len(reward)
    if np.shape(event) != (rows,):
        raise DataError(f"{path}: event_id has shape {np.shape(event)}; expected ({rows},), one a row")
    said = ("reward", "action", "propensity", "slate_propensity")
    first = first_of_events(str(path), event, {name: arrays[name] for name in said if name in arrays})
    if first is None:
        return 0
    for name, array in arrays.items():
        each = name not in ("embedding", "cluster") and not (name.startswith("target_pmf") and array.ndim == 1)
        if each and np.ndim(array) and len(array) == rows:
            arrays[name] = array[first]
    return rows - len(first)


def _need(path: Path, arrays: dict[str, Any], names: tuple[str, ...]) -> None:
    for key in names:
        if key not in arrays:
            there = ", ".join(arrays) or "none"
            raise DataError(f"{path} has no array {key!r} (it has {there}); expected {', '.join(names)}")


def _each_row(arrays: dict[str, Any]) -> Any:
    """[n, k] or [n, k, positions]: a pmf without contexts is the same in all of them."""
    pmf, n = np.asarray(arrays["target_pmf"]), len(arrays["reward"])
    per_position = "position" in arrays and pmf.ndim == 2 and len(pmf) != n
    if pmf.ndim == 1 or per_position:
        return np.broadcast_to(pmf, (n, *pmf.shape))
    return pmf
