"""Values of another implementation (Open Bandit Pipeline 0.5.7) on the same inputs."""

from __future__ import annotations

import json

import numpy as np
import places
import pytest

from bart.ope import LoggedChoices, LoggedSlates, estimate

REFERENCE = places.SHARED / "reference" / "ope"
RELATIVE = 1e-9
SINGLE = {
    "ips": ("ips", {}),
    "snips": ("snips", {}),
    "dm": ("dm", {}),
    "dr": ("dr", {}),
    "sndr": ("sndr", {}),
    "switch_dr_tau5": ("switch_dr", {"tau": 5.0}),
    "dros_lambda10": ("dros", {"lam": 10.0}),
    "clipped_ips_5": ("clipped_ips", {"cap": 5.0}),
    "sg_ips_0.01": ("sg_ips", {"lam": 0.01}),
    "sg_dr_0.01": ("sg_dr", {"lam": 0.01}),
}

needs_reference = pytest.mark.skipif(
    not (REFERENCE / "single.npz").is_file(),
    reason="the other implementation's values are not beside this checkout (../shared/reference/ope)",
)


def published(name: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    with np.load(REFERENCE / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}, json.loads((REFERENCE / f"{name}.json").read_text())


@needs_reference
@pytest.mark.parametrize("key", SINGLE)
def test_single_choices_agree_with_the_peer(key: str) -> None:
    arrays, values = published("single")
    name, parameters = SINGLE[key]
    found = estimate(name, LoggedChoices(**arrays), **parameters)
    assert found.value == pytest.approx(values[key], rel=RELATIVE)


@needs_reference
@pytest.mark.parametrize("key", ["ips", "snips", "clipped_ips_5", "dm", "dr", "sndr"])
def test_choices_with_positions_agree_with_the_peer(key: str) -> None:
    arrays, values = published("obd_men")
    pmf = arrays["target_pmf_by_position"]
    data = LoggedChoices(
        arrays["reward"],
        arrays["action"],
        arrays["propensity"],
        np.broadcast_to(pmf, (len(arrays["reward"]), *pmf.shape)),
        arrays["q_hat"],
        arrays["position"],
    )
    name, parameters = SINGLE[key]
    assert estimate(name, data, **parameters).value == pytest.approx(values[key], rel=RELATIVE)


@needs_reference
@pytest.mark.parametrize(
    "name",
    ["slate_ips", "slate_snips", "independent_ips", "sn_independent_ips", "cascade_ips", "sn_cascade_ips"],
)
def test_slates_agree_with_the_peer(name: str) -> None:
    arrays, values = published("slate")
    arrays.pop("action")
    assert estimate(name, LoggedSlates(**arrays)).value == pytest.approx(values[name], rel=RELATIVE)
