"""Which item ids of a page are the same, by their bytes."""

from __future__ import annotations

import numpy as np
from numba import int32, int64, uint8
from numpy.typing import NDArray

from bart.compiled import compiled, read, write
from bart.types import Ints


@compiled(inline=True)
def _equal(text: NDArray[np.uint8], start: int, stop: int, other: int, other_stop: int) -> bool:
    k = 0
    while k < min(stop - start, other_stop - other) and text[start + k] == text[other + k]:
        k += 1
    return k == stop - start == other_stop - other


@compiled(read(uint8), read(int32), read(int64), read(int64), write(int64))
def number_items(text: NDArray[np.uint8], end: NDArray[np.int32], first_word: Ints, offset: Ints, number: Ints) -> None:
    """number [N]: of each candidate the place in its page of the first one with the same id.

    text: bytes of all words; end [words + 1]: where each begins. first_word [b]: that of the first id of a page.
    offset [b + 1]: where the candidates of a page begin.
    """
    longest = 1
    for page in range(len(offset) - 1):
        longest = max(longest, offset[page + 1] - offset[page])
    size = 16
    while size < 2 * longest:
        size *= 2
    table, mask = np.empty(size, np.int64), size - 1
    for page in range(len(offset) - 1):
        table[:] = -1
        first = first_word[page]
        for c in range(offset[page + 1] - offset[page]):
            start, stop = end[first + c], end[first + c + 1]
            slot = np.int64(0)
            for k in range(start, stop):
                slot = slot * 1000003 ^ np.int64(text[k])
            slot = (slot ^ (slot >> 15)) & mask
            while table[slot] >= 0 and not _equal(
                text, start, stop, end[first + table[slot]], end[first + table[slot] + 1]
            ):
                slot = (slot + 1) & mask
            if table[slot] < 0:
                table[slot] = c
            number[offset[page] + c] = table[slot]
