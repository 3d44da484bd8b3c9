"""What a listener's usage counts, and that it comes back from bytes as it was."""

from __future__ import annotations

import numpy as np
import pytest

from recommender.features.usage import Usage


def sessions(usage: Usage, n: int, seed: int = 0) -> Usage:
    rng = np.random.default_rng(seed)
    return usage.after(rng.integers(0, 24, n), rng.integers(0, 6, n), rng.integers(1, 30, n), rng.random(n) * 60)


def test_sessions_add_up() -> None:
    usage = sessions(Usage(), 9)
    assert usage.sessions == 9
    assert usage.hour.sum() == usage.device.sum() == 9


def test_bytes_say_the_same() -> None:
    usage = sessions(Usage(picked=np.array([4, 2]), saved=np.array([7]), country="SE"), 5)
    again = Usage.from_bytes(usage.to_bytes())
    assert again.to_bytes() == usage.to_bytes()
    assert again.picked.tolist() == [4, 2]
    assert again.country == "SE"


@pytest.mark.parametrize("data", [b"", b"x" * 20, Usage().to_bytes() + b"x", Usage().to_bytes()[:-1]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        Usage.from_bytes(data)


def test_what_is_saved_again_becomes_the_newest() -> None:
    assert Usage(saved=np.array([1, 2, 3])).saving(np.array([1])).saved.tolist() == [2, 3, 1]


def test_rows_move_with_the_item_table_and_lost_items_are_left_out() -> None:
    moved = Usage(picked=np.array([0, 1, 2]), saved=np.array([2, 9])).moved(np.array([5, -1, 7]))
    assert moved.picked.tolist() == [5, 7]
    assert moved.saved.tolist() == [7]
