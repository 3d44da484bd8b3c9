"""How much the parameters of reading and the appeal of cards are worth to exposures: `slot_exposure` backwards."""

from __future__ import annotations

import numpy as np

from bart.compiled import compiled
from bart.ope.exposure.kernels import widest
from bart.types import Floats, Ints


@compiled()
def slot_gradient(
    shelf_offset: Ints,
    by_row: Floats,
    appeal: Floats,
    hazard: Floats,
    row_trust: Floats,
    column_trust: Floats,
    worth: Floats,
    of_appeal: Floats,
    out: Floats,
) -> None:
    """Adds to out [k, 5 + rows + columns] the derivatives of k sums by hazards and trusts, and to of_appeal
    [k, S, columns] those by the mean appeal of each column.

    worth: [k, S, columns] what a unit of exposure is worth in each sum, trust in the column included. The rest as of
    `slot_exposure`, whose steps are kept forwards and taken back one by one.
    """
    rows, columns, most = by_row.shape[1], appeal.shape[1], widest(shelf_offset)
    plain, streamed = np.empty((rows, most, columns)), np.empty((rows, most, columns))
    taken = np.empty((rows, most, columns))
    ended = np.empty((rows, most, 2))
    reach, onward = np.empty(rows), np.empty(rows)
    for page in range(len(shelf_offset) - 1):
        first = shelf_offset[page]
        n = shelf_offset[page + 1] - first
        here = hazard[0]
        for r in range(rows):
            reach[r], onward[r] = here, 0.0
            for e in range(n):
                a, b = 1.0, 0.0
                ended[r, e, 0], ended[r, e, 1] = 0.0, 0.0
                for c in range(columns):
                    on_plain, on_streamed = (hazard[1], hazard[2]) if c + 1 < columns else (0.0, 0.0)
                    p = min(row_trust[r] * column_trust[c] * appeal[first + e, c], 1.0)
                    plain[r, e, c], streamed[r, e, c], taken[r, e, c] = a, b, p
                    still = a * (1.0 - p) * on_plain
                    now = a * p * on_streamed + b * (p * on_streamed + (1.0 - p) * on_plain)
                    ended[r, e, 0] += a * (1.0 - p) - still
                    ended[r, e, 1] += a * p + b - now
                    a, b = still, now
                onward[r] += by_row[first + e, r] * (ended[r, e, 0] * hazard[3] + ended[r, e, 1] * hazard[4])
            here *= onward[r]
        for k in range(len(worth)):
            of_reach = 0.0  # of the row below
            for r in range(rows - 1, -1, -1):
                of_onward = of_reach * reach[r]
                of_reach *= onward[r]
                for e in range(n):
                    shown = by_row[first + e, r]
                    share = shown * reach[r] * row_trust[r]
                    end_plain, end_streamed = of_onward * shown * hazard[3], of_onward * shown * hazard[4]
                    out[k, 3] += of_onward * shown * ended[r, e, 0]
                    out[k, 4] += of_onward * shown * ended[r, e, 1]
                    total, of_plain, of_streamed = 0.0, 0.0, 0.0  # of the column to the right
                    for c in range(columns - 1, -1, -1):
                        a, b, p = plain[r, e, c], streamed[r, e, c], taken[r, e, c]
                        on_plain, on_streamed = (hazard[1], hazard[2]) if c + 1 < columns else (0.0, 0.0)
                        value = worth[k, first + e, c]
                        out[k, 5 + rows + c] += value * share * (a + b)
                        value *= column_trust[c]
                        total += value * (a + b)
                        still, now = of_plain - end_plain, of_streamed - end_streamed
                        if c + 1 < columns:
                            out[k, 1] += (still * a + now * b) * (1.0 - p)
                            out[k, 2] += now * (a + b) * p
                        trust = row_trust[r] * column_trust[c]
                        if trust * appeal[first + e, c] < 1.0:
                            of_p = now * (a * on_streamed + b * (on_streamed - on_plain)) - still * a * on_plain
                            of_p += (end_streamed - end_plain) * a
                            out[k, 5 + r] += of_p * column_trust[c] * appeal[first + e, c]
                            out[k, 5 + rows + c] += of_p * row_trust[r] * appeal[first + e, c]
                            of_appeal[k, first + e, c] += of_p * trust
                        of_plain = share * value + end_plain * (1.0 - p) + end_streamed * p
                        of_plain += still * (1.0 - p) * on_plain + now * p * on_streamed
                        of_streamed = share * value + end_streamed + now * (p * on_streamed + (1.0 - p) * on_plain)
                    out[k, 5 + r] += shown * reach[r] * total
                    of_reach += shown * row_trust[r] * total
            out[k, 0] += of_reach
