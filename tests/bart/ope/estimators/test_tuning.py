"""Choosing caps and shrinkage without the truth."""

from __future__ import annotations

import numpy as np
import pytest

from bart.ope import LoggedChoices, estimate, tune

GRID = [1.0, 2.0, 5.0, 20.0, 100.0, 1_000.0]


def log(weight_spread: float, n: int = 4_000, seed: int = 0) -> LoggedChoices:
    rng = np.random.default_rng(seed)
    rare = weight_spread
    action = (rng.random(n) < rare).astype(int)
    propensity = np.where(action == 1, rare, 1 - rare)
    reward = (rng.random(n) < np.where(action == 1, 0.6, 0.1)).astype(float)
    return LoggedChoices(reward, action, propensity, np.full((n, 2), 0.5), np.tile([0.1, 0.6], (n, 1)))


@pytest.mark.parametrize("method", ["slope", "bias_bound"])
@pytest.mark.parametrize("name", ["clipped_ips", "ncis", "switch_dr", "dros", "sg_ips", "sg_dr"])
def test_the_choice_is_one_of_the_grid_and_can_be_used(name: str, method: str) -> None:
    grid = [0.0, 0.01, 0.1, 1.0] if name.startswith("sg") else GRID
    found = tune(name, log(0.02), grid, method)
    assert found.chosen in grid
    assert len(found.value) == len(found.standard_error) == len(found.score) == len(grid)
    value = estimate(name, log(0.02), **{found.parameter: found.chosen}).value
    assert value == found.value[found.grid.index(found.chosen)]


@pytest.mark.parametrize("method", ["slope", "bias_bound"])
def test_small_weights_need_no_cap(method: str) -> None:
    """Nothing to gain by capping at 1 where weights hardly vary and the bias is plain."""
    found = tune("clipped_ips", log(0.3, n=40_000), [0.5, 1.0, 2.0, 5.0], method)
    assert found.chosen >= 1.5


def test_slope_stops_where_intervals_part() -> None:
    found = tune("clipped_ips", log(0.02), GRID)
    stop = found.grid.index(found.chosen)
    assert all(width >= 0 for width in found.score[: stop + 1])
    assert stop == len(found.grid) - 1 or found.score[stop + 1] < 0
    assert abs(found.value[stop] - 0.35) < 0.15  # the truth is .35; a cap of 1 gives about .06


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ips", GRID), "name is 'ips'; expected one of clipped_ips"),
        (("ncis", []), "grid is empty"),
        (("ncis", GRID, "luck"), "method is 'luck'"),
    ],
)
def test_wrong_requests_are_refused(arguments: tuple[object, ...], message: str) -> None:
    name, *rest = arguments
    with pytest.raises(ValueError, match=message):
        tune(name, log(0.1, n=50), *rest)  # type: ignore[arg-type]
