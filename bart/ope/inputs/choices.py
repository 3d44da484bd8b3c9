"""From the rows of a table to the records of its policies; models and propensities that are lacking are fitted."""

from __future__ import annotations

from typing import Any

import numpy as np

from bart.errors import DataError
from bart.ope.estimators.conclude import MODEL_ONLY
from bart.ope.inputs.events import REPEATS
from bart.ope.inputs.table import ChoiceTable, Policy
from bart.ope.models.fitted_propensities import fit_propensities
from bart.ope.records.balance_sums import BalanceSums, of_chosen
from bart.ope.records.choice_input import ChoiceInput
from bart.ope.records.choices import LoggedChoices, LoggedSlates
from bart.ope.records.reduced_choices import reduced
from bart.types import Floats

PROPENSITIES = ("logged", "fit", "none")


def choice_input(table: ChoiceTable, propensities: str, rng: np.random.Generator) -> ChoiceInput:
    """The records of all policies of a table, beside the logging policy's own.

    propensities: "logged" takes the column, "fit" fits them from the context out of fold, "none" leaves the direct
    method alone. Where there is context and no q_hat, rewards are predicted from it out of fold.
    Raises DataError where the table lacks what that needs.
    """
    k = len(table.actions)
    if propensities == "none":
        logged: Floats | None = None
        warnings: tuple[str, ...] = (MODEL_ONLY,)
    elif propensities == "fit":
        logged, warnings = _fitted(table, rng)
    else:
        if table.propensity is None:
            raise DataError("the log has no propensities; expected --propensity COLUMN, or --propensities fit or none")
        logged, warnings = table.propensity, ()
    q_hat = _predicted(table, k, rng) if _model_needed(table) else None
    policies: dict[str, LoggedChoices | LoggedSlates] = {}
    full: dict[str, LoggedChoices] = {}
    for name, policy in table.policies.items():
        value, predicted = policy.value, policy.predicted
        if q_hat is not None and table.action is not None:
            value, predicted = _by_model(policy, q_hat, table.action)
        if logged is None:
            if value is None or predicted is None:
                raise DataError(
                    f"the log has no propensities and no model for {name!r}; expected --q-hat or --context with a"
                    " target pmf or action"
                )
            one = np.ones(len(table.reward))
            policies[name] = reduced(
                table.reward, one, one, value=value, predicted=predicted, sample_weight=table.weight
            )
            continue
        policies[name] = reduced(
            table.reward,
            logged,
            policy.target,
            value=value,
            predicted=predicted,
            limits=policy.limits,
            sample_weight=table.weight,
            balance=_balance(table, policy) if propensities == "logged" else None,
        )
        if policy.pmf is not None and table.action is not None:
            full[name] = LoggedChoices(table.reward, table.action, logged, policy.pmf, sample_weight=table.weight)
    if logged is not None:
        policies["logging"] = reduced(table.reward, logged, logged, sample_weight=table.weight)
    left = {"before the time asked for": table.outside, REPEATS: table.repeats}
    return ChoiceInput(
        policies,
        table.user,
        {reason: count for reason, count in left.items() if count},
        warnings,
        logged is None,
        {"context": table.context} if table.context is not None else {},
        full,
    )


def _balance(table: ChoiceTable, policy: Policy) -> BalanceSums | None:
    if policy.chosen is None or table.action is None or table.propensity is None:
        return policy.balance
    return of_chosen(table.action, table.propensity, policy.chosen, len(table.actions))


def _model_needed(table: ChoiceTable) -> bool:
    return (
        table.context is not None
        and table.action is not None
        and all(p.value is None for p in table.policies.values())
        and any(p.pmf is not None or p.chosen is not None for p in table.policies.values())
    )


def _predicted(table: ChoiceTable, k: int, rng: np.random.Generator) -> Floats:
    from bart.ope.models.reward_regression import cross_fit

    if table.action is None:
        raise DataError("a model needs the actions; expected --action, the column of logged actions")
    return cross_fit(table.context, table.action, table.reward, k, rng, user=table.user)


def _by_model(policy: Policy, q_hat: Floats, action: Any) -> tuple[Floats | None, Floats | None]:
    row = np.arange(len(q_hat))
    if policy.pmf is not None:
        return np.einsum("ij,ij->i", policy.pmf, q_hat, dtype=np.float64), q_hat[row, action]
    if policy.chosen is not None:
        return q_hat[row, policy.chosen], q_hat[row, action]
    return None, None


def _fitted(table: ChoiceTable, rng: np.random.Generator) -> tuple[Floats, tuple[str, ...]]:
    if table.context is None or table.action is None:
        raise DataError("propensities are fitted from the context; expected --context and --action")

    fitted = fit_propensities(table.context, table.action, len(table.actions), rng, user=table.user)
    return fitted.propensity, (fitted.warning,)
