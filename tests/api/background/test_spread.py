"""Parts of a job in processes: in order, and what becomes of a worker that dies."""

from __future__ import annotations

import os

import pytest

from api.background.spread import spread
from bart.errors import DataError


def test_a_worker_that_dies_is_told_and_nothing_to_do_starts_none() -> None:
    assert list(spread(bytes, [2, 0, 1], "local", 2, None)) == [b"\0\0", b"", b"\0"]
    with pytest.raises(DataError, match="a worker process was killed"):
        list(spread(os._exit, [1, 1], "local", 2, None))  # type: ignore[arg-type]
    for engine in ("local", "spark"):
        assert list(spread(bytes, [], engine, None, "spark://nowhere:1")) == []
