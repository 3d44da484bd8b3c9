"""What left-out rows do to a verdict: rows that are missing because of what they earned leave no sample of the log."""

from __future__ import annotations

from collections.abc import Mapping

UNREAD_SHARE = 0.001  # of rows that cannot be read: so few move a mean by less than any interval is wide


def missing_outcomes(without: Mapping[str, int], unread: Mapping[str, int], rows: int) -> tuple[str, ...]:
    """The warning that caps every verdict on a log, first of all; nothing where no row that could matter is missing.

    without: rows without a usable outcome, by reason: any of them counts. unread: rows that cannot be read, of which
    nobody knows what they earned: they count beyond a thousandth of `rows`, all rows of the log.
    """
    told = {reason: count for reason, count in without.items() if count}
    if sum(unread.values()) > UNREAD_SHARE * rows:
        told.update({reason: count for reason, count in unread.items() if count})
    if not told:
        return ()
    words = ", ".join(f"{count:,} {reason}" for reason, count in sorted(told.items()))
    return (
        f"{sum(told.values()):,} of {rows:,} rows are left out for a reason that may depend on what they earned"
        f" ({words}): the rest is no sample of the log",
    )
