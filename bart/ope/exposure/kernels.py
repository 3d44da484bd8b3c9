"""Inner loops of exposures in closed form: by the mean field, and conditioned on the card."""

from __future__ import annotations

import numpy as np

from bart.compiled import compiled
from bart.types import Floats, Ints


@compiled()
def slot_exposure(
    shelf_offset: Ints,
    by_row: Floats,
    appeal: Floats,
    hazard: Floats,
    row_trust: Floats,
    column_trust: Floats,
    out: Floats,
) -> None:
    """Fills out [S, columns] with sum over rows of P(shelf in row) P(row reached) row trust P(column reached | row).

    by_row: [S, rows] P(shelf stands in row). appeal: [S, columns] mean appeal of the card in the column. hazard: [5] as
    in `browsing.transitions`. Positions that a page lacks have by_row 0 or no marginals, so that going on there changes
    nothing.
    """
    rows = by_row.shape[1]
    columns = appeal.shape[1]
    for page in range(len(shelf_offset) - 1):
        first, last = shelf_offset[page], shelf_offset[page + 1]
        for e in range(first, last):
            for c in range(columns):
                out[e, c] = 0.0
        reach = hazard[0]
        for r in range(rows):
            onward = 0.0
            trust = row_trust[r]
            for e in range(first, last):
                here = by_row[e, r]
                if here == 0.0:
                    continue
                plain, streamed = 1.0, 0.0  # reached without, with a stream so far in the row
                ended_plain, ended_streamed = 0.0, 0.0
                share = here * reach * trust
                for c in range(columns):
                    out[e, c] += share * (plain + streamed)
                    p = min(trust * column_trust[c] * appeal[e, c], 1.0)
                    if c + 1 < columns:
                        still = plain * (1.0 - p) * hazard[1]
                        now = plain * p * hazard[2] + streamed * (p * hazard[2] + (1.0 - p) * hazard[1])
                    else:
                        still, now = 0.0, 0.0
                    ended_plain += plain * (1.0 - p) - still
                    ended_streamed += plain * p + streamed - now
                    plain, streamed = still, now
                onward += here * (ended_plain * hazard[3] + ended_streamed * hazard[4])
            reach *= onward


@compiled()
def conditioned_exposure(
    shelf_offset: Ints,
    card_start: Ints,
    by_row: Floats,
    by_column: Floats,
    appeal: Floats,
    hazard: Floats,
    row_trust: Floats,
    column_trust: Floats,
    out: Floats,
) -> None:
    """Fills out [N] with the exposure of every card when reading on the way to it is that of pages which hold it there.

    by_row: [S, rows], by_column: [N, columns] marginals. appeal: [N]. A card in column c stands in none before it, and
    its shelf in no row above: both are taken out of the means that reading on depends on.
    """
    rows, columns = by_row.shape[1], by_column.shape[1]
    most = 0
    for page in range(len(shelf_offset) - 1):
        most = max(most, shelf_offset[page + 1] - shelf_offset[page])
    mean = np.empty((most, columns))
    onward = np.empty((most, rows))
    all_onward = np.empty(rows)
    for page in range(len(shelf_offset) - 1):
        first = shelf_offset[page]
        shelves = shelf_offset[page + 1] - first
        for e in range(shelves):
            for c in range(columns):
                mean[e, c] = 0.0
            for k in range(card_start[first + e], card_start[first + e + 1]):
                out[k] = 0.0
                for c in range(columns):
                    mean[e, c] += by_column[k, c] * appeal[k]
        for r in range(rows):
            all_onward[r] = 0.0
            for e in range(shelves):
                plain, streamed, ended_plain, ended_streamed = 1.0, 0.0, 0.0, 0.0
                for c in range(columns):
                    p = min(row_trust[r] * column_trust[c] * mean[e, c], 1.0)
                    still, now = 0.0, 0.0
                    if c + 1 < columns:
                        still = plain * (1.0 - p) * hazard[1]
                        now = plain * p * hazard[2] + streamed * (p * hazard[2] + (1.0 - p) * hazard[1])
                    ended_plain += plain * (1.0 - p) - still
                    ended_streamed += plain * p + streamed - now
                    plain, streamed = still, now
                onward[e, r] = ended_plain * hazard[3] + ended_streamed * hazard[4]
                all_onward[r] += by_row[first + e, r] * onward[e, r]
        for e in range(shelves):
            reach = hazard[0]
            for r in range(rows):
                here = by_row[first + e, r]
                share = here * reach * row_trust[r]
                if share > 0.0:
                    for k in range(card_start[first + e], card_start[first + e + 1]):
                        plain, streamed = 1.0, 0.0
                        for c in range(columns):
                            out[k] += share * by_column[k, c] * column_trust[c] * (plain + streamed)
                            # On to the next column on pages where the card stands beyond this one.
                            other = 1.0 - by_column[k, c]
                            if other < 1e-12:
                                break
                            average = max(mean[e, c] - by_column[k, c] * appeal[k], 0.0) / other
                            p = min(row_trust[r] * column_trust[c] * average, 1.0)
                            still = plain * (1.0 - p) * hazard[1]
                            streamed = plain * p * hazard[2] + streamed * (p * hazard[2] + (1.0 - p) * hazard[1])
                            plain = still
                other = 1.0 - here
                if other < 1e-12:
                    break
                reach *= max(all_onward[r] - here * onward[e, r], 0.0) / other
