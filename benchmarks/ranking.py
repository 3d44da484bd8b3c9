"""What rankings and pages cost: CPU time of one thread, warm, medians; numpy against compiled code.

OMP_NUM_THREADS=1 python benchmarks/ranking.py [--rankings 1000000]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numba
import numpy as np

from bart.compiled import compiled
from bart.page.choices import Choices
from bart.page.policy import PagePolicy, batch_decide, diversify
from bart.page.walk import Walk
from bart.ranking import (
    EpsilonGreedy,
    batch_rank,
    conditional_propensity,
    marginal_of_rank,
    min_rank,
    propensity_of_rank,
)
from bart.ranking.marginals import recurrence
from bart.types import Candidates, Floats, Ints, Shelf

SEED = 20240501
EPSILON = 0.2


def cpu_s(call: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of a call, after one that is not counted."""
    call()
    spent = []
    for _ in range(repeats):
        start = time.process_time_ns()
        call()
        spent.append(time.process_time_ns() - start)
    return float(np.median(spent)) / 1e9


def show(what: str, seconds: float, note: str = "") -> None:
    print(f"{what:<72} {seconds * 1e3:>10.3f} ms  {note}")


@compiled()
def recurrence_by_loops(n: int, k: int, epsilon: Floats) -> Floats:
    """`marginals.recurrence` one action at a time, for comparison."""
    table = np.zeros((n, k))
    state = np.zeros(k + 2)
    for rank in range(n):
        state[:] = 0.0
        state[0] = 1.0
        for t in range(min(k, n)):
            left = n - t
            explore, greedy = epsilon[t] / left, 1.0 - epsilon[t]
            for d in range(min(t, rank), -1, -1):
                better = rank - d
                now = state[d]
                table[rank, t] += now * (explore + (greedy if better == 0 else 0.0))
                state[d] = now * explore * (left - 1 - better)
                if better > 0:
                    state[d + 1] += now * (greedy + explore * better)
    return table


def ranks_in_numpy(score: Floats, order: Ints) -> tuple[Ints, Ints]:
    """Ranks and tie sizes [b, k] of the chosen of [b, n], as a log of equal sizes allows."""
    chosen = np.take_along_axis(score, order, axis=1)
    rank = np.empty(order.shape, dtype=np.int64)
    tie = np.empty(order.shape, dtype=np.int64)
    for t in range(order.shape[1]):
        rank[:, t] = (score > chosen[:, t, None]).sum(axis=1)
        tie[:, t] = (score == chosen[:, t, None]).sum(axis=1)
    return rank, tie


def page() -> None:
    rng = np.random.default_rng(SEED)
    n, rows, columns, shelves = 1000, 10, 10, 12
    candidates = Candidates(
        rng.permutation(100_000)[:n], rng.integers(0, shelves, size=n), (Shelf("rule", "title"),) * shelves
    )
    score = rng.random(n)
    policy = PagePolicy(EpsilonGreedy(EPSILON), EpsilonGreedy(EPSILON))
    decided = policy.decide(candidates, score, rows, columns, rng)
    print(f"\npage {rows} x {columns} from {n} candidates in {shelves} shelves, epsilon {EPSILON}")
    show(
        "decide with propensities, compiled (to reach: 0.2 ms)", cpu_s(lambda: _decide(policy, candidates, score), 500)
    )
    show("recompute the propensities, compiled", cpu_s(lambda: policy.propensity(candidates, score, decided), 500))

    def by_pmf() -> None:
        no_pins = np.empty((0, 0, 0), dtype=np.int64)
        Walk(policy.shelf_policy, policy.card_policy, candidates, score, score).draw(
            np.random.default_rng(SEED).random((rows, 1 + columns)), no_pins, Choices.none(1, rows, columns)
        )

    show("decide with propensities, numpy by pmf (any policy)", cpu_s(by_pmf, 50))
    vector = rng.normal(size=(n, 40)).astype(np.float32)
    show("diversify before it, 40-d vectors", cpu_s(lambda: diversify(score, candidates.shelf, vector), 100))
    b = 2000
    offset, shelf, scores = np.arange(b + 1) * n, np.tile(candidates.shelf, b), rng.random(b * n)
    seconds = cpu_s(
        lambda: batch_decide(offset, shelf, scores, rows, columns, EPSILON, EPSILON, np.random.default_rng(SEED)),
        3,
    )
    show(f"batch_decide, {b} such pages", seconds, f"{b / seconds:,.0f} pages/s")


def _decide(policy: PagePolicy, candidates: Candidates, score: Floats) -> None:
    policy.decide(candidates, score, 10, 10, np.random.default_rng(SEED))


def marginals() -> None:
    n, k = 862, 12
    epsilon = np.full(k, EPSILON)
    print(f"\nexact marginals, {n} actions, {k} positions, epsilon {EPSILON}, table not cached")
    show("numpy recurrence (to reach: 2 ms)", cpu_s(lambda: recurrence(n, k, epsilon), 200))
    show("compiled loops, for comparison", cpu_s(lambda: recurrence_by_loops(n, k, epsilon), 200))
    difference = np.abs(recurrence(n, k, epsilon) - recurrence_by_loops(n, k, epsilon)).max()
    print(f"largest difference of the two: {difference:.1e}")


def rankings(most: int) -> None:
    n, k = 50, 10
    print(f"\nlogs of rankings, {n} candidates, {k} positions, epsilon {EPSILON}")
    rng = np.random.default_rng(SEED)
    for b in (most // 10, most // 2, most):
        score = rng.random(b * n)
        offset = np.arange(b + 1) * n
        order = (rng.integers(0, n, size=(b, 1)) + 7 * np.arange(k)) % n  # distinct, since 7 and 50 share no factor
        seconds = cpu_s(partial(conditional_propensity, score, offset, order, EPSILON), 3)
        show(f"conditional propensities of {b:,}, compiled", seconds, f"{b / seconds:,.0f} rankings/s")
    b = most // 10
    score, offset, order = score[: b * n], offset[: b + 1], order[:b]

    def in_numpy() -> Floats:
        rank, tie = ranks_in_numpy(score.reshape(b, n), order)
        return propensity_of_rank(rank, tie, np.full(b, n), EPSILON)

    seconds = cpu_s(in_numpy, 3)
    show(f"conditional propensities of {b:,}, numpy", seconds, f"{b / seconds:,.0f} rankings/s")
    np.testing.assert_array_equal(in_numpy(), conditional_propensity(score, offset, order, EPSILON))
    rank, tie = min_rank(score, offset)
    for what, call in (
        ("minimum ranks and tie sizes of all candidates", lambda: min_rank(score, offset)),
        ("marginals of all candidates from shared tables", lambda: marginal_of_rank(rank, tie, offset, k, EPSILON)),
        ("orders drawn", lambda: batch_rank(score, offset, k, EPSILON, np.random.default_rng(SEED))),
    ):
        seconds = cpu_s(call, 3)
        show(f"{what}, {b:,}", seconds, f"{b / seconds:,.0f} rankings/s")
    b, n, k = 2000, 862, 12
    scores, offsets = rng.random(b * n), np.arange(b + 1) * n
    seconds = cpu_s(lambda: batch_rank(scores, offsets, k, EPSILON, np.random.default_rng(SEED)), 3)
    show(f"orders drawn, {b:,} of {n} candidates, {k} positions", seconds, f"{b / seconds:,.0f} rankings/s")


def cold_start() -> None:
    code = (
        "import time, numpy as np; from bart.page.policy import PagePolicy; from bart.ranking import EpsilonGreedy;"
        "from bart.types import Candidates, Shelf; start = time.process_time();"
        "PagePolicy(EpsilonGreedy(.2), EpsilonGreedy(.2)).decide(Candidates(np.arange(9), np.zeros(9, dtype=np.int64),"
        "(Shelf('r', 't'),)), np.zeros(9), 1, 3, np.random.default_rng(0)); print(time.process_time() - start)"
    )
    print("\nfirst page of a fresh process (compiled code cached on disk)")
    spent = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in "123"]
    show("numba import and load, then the page", float(np.median(spent)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rankings", type=int, default=1_000_000, help="largest log of rankings")
    arguments = parser.parse_args()
    print(f"seed {SEED}, Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}")
    page()
    marginals()
    rankings(arguments.rankings)
    cold_start()


if __name__ == "__main__":
    main()
