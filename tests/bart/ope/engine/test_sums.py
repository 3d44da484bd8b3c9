"""Statistics that are added up part by part: whatever the keys of a part, each key has what was put under it."""

from __future__ import annotations

import numpy as np
import pytest

from bart.ope.engine.sums import Statistics


@pytest.mark.parametrize(("how", "pick"), [("sum", np.sum), ("min", np.min), ("max", np.max)])
def test_parts_with_keys_of_their_own_add_up_key_by_key(how: str, pick: np.ufunc) -> None:
    rng = np.random.default_rng(1)
    parts = [np.unique(rng.integers(-20, 20, size)) for size in (0, 30, 3, 25, 1)]
    values = [rng.normal(size=len(keys)) for keys in parts]
    total = Statistics()
    for keys, value in zip(parts, values, strict=True):
        one = Statistics()
        one.put("x", value, how, keys)
        total.add(one)
    by_key: dict[int, list[float]] = {}
    for key, value in zip(np.concatenate(parts).tolist(), np.concatenate(values).tolist(), strict=True):
        by_key.setdefault(key, []).append(value)
    assert total.keys("x").tolist() == sorted(by_key)
    assert total.values("x") == pytest.approx([pick(by_key[key]) for key in sorted(by_key)])
