"""Inner loop of the mean-field reach: how often a listener comes to column c of a shelf, whatever its row."""

from __future__ import annotations

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
