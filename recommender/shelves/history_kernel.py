"""What a listener's lists of recent and favourite items come to, in machine code: they are read at every request."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float64, int64

from bart.compiled import compiled, read, write


@compiled(read(int64), read(float64), write(int64), write(float64), int64)
def _add(rows: Any, weight: Any, row: Any, total: Any, n: int) -> int:
    """Adds weights of rows to the n ascending ones; how many there are then."""
    for k in range(min(len(rows), len(weight))):
        at = np.searchsorted(row[:n], rows[k])
        if at < n and row[at] == rows[k]:
            total[at] += weight[k]
            continue
        for j in range(n, at, -1):
            row[j], total[j] = row[j - 1], total[j - 1]
        row[at], total[at] = rows[k], weight[k]
        n += 1
    return n


@compiled(*[read(int64)] * 2, *[read(float64)] * 3, write(int64), write(float64))
def add_replays(
    recent: Any, favourite: Any, by_recent: Any, by_favourite: Any, by_item: Any, row: Any, score: Any
) -> int:
    """Fills row, ascending, and score with the log-odds of both lists' rows; how many. See `ReplayWeights`."""
    n = _add(recent, by_recent, row, score, 0)
    n = _add(favourite, by_favourite, row, score, n)
    for k in range(n):
        if row[k] < len(by_item):
            score[k] += by_item[row[k]]
    return n


@compiled(write(int64), write(float64))
def sort_best(row: Any, score: Any) -> None:
    """Puts the rows with the highest scores first; of equal ones the first stays first."""
    for k in range(1, len(row)):
        r, s = row[k], score[k]
        j = k
        while j > 0 and score[j - 1] < s:
            row[j], score[j] = row[j - 1], score[j - 1]
            j -= 1
        row[j], score[j] = r, s


@compiled(read(int64), read(boolean), *[read(int64)] * 2, int64, int64)
def foremost_labels(first: Any, named: Any, favourite: Any, recent: Any, most: int, n: int) -> Any:
    """The n labels with the highest sums of shares, the lower number first where they are equal.

    first: label of each item, -1 for none. named: [labels] those that count, all where it is empty. The k-th of the
    first `most` rows of each list has the share 1 / (3 + k).
    """
    code, total = np.empty(2 * most, np.int64), np.empty(2 * most, np.float64)
    found = 0
    for number in range(2):
        rows = favourite if number == 0 else recent
        for k in range(min(len(rows), most)):
            label = first[rows[k]]
            if label < 0 or (len(named) > 0 and not named[label]):
                continue
            at = 0
            while at < found and code[at] != label:
                at += 1
            if at == found:
                code[at], total[at] = label, 0.0
                found += 1
            total[at] += 1.0 / (3.0 + k)
    out = np.empty(min(n, found), np.int64)
    for place in range(len(out)):
        best = 0
        for at in range(1, found):
            if total[at] > total[best] or (total[at] == total[best] and code[at] < code[best]):
                best = at
        out[place] = code[best]
        found -= 1
        code[best], total[best] = code[found], total[found]
    return out
