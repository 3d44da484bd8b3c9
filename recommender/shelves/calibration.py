"""Visits by whom the levels of features are bounded when a batch is built: candidates of some of its listeners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import numpy as np

from bart.types import DEVICES, Candidates, CandidateSource, Context, Listener

VISITS = 200


def sampled_visits(
    source: CandidateSource,
    listener: Callable[[int, Context], Listener],
    n_listeners: int,
    until_s: int,
    rng: np.random.Generator,
    n_visits: int = VISITS,
) -> Iterator[tuple[Listener, Context, Candidates]]:
    """Visits of listeners drawn at random, at moments of the two weeks after `until_s`, on any device.

    listener: of a number below n_listeners, for a context.
    """
    for _ in range(n_visits if n_listeners else 0):
        after = timedelta(seconds=until_s + int(rng.integers(14 * 86_400)))
        at = datetime(1970, 1, 1, tzinfo=timezone.utc) + after
        context = Context(at, device=DEVICES[int(rng.integers(len(DEVICES)))])
        who = listener(int(rng.integers(n_listeners)), context)
        yield who, context, source.candidates(who, context, rng)
