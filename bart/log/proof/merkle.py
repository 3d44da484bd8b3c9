"""Leaves and roots: what is proven of one record, and of many.

A leaf is the hash of (sequence, request id, checksum of the decision, joined outcome). Leaves stand in the order of
their sequence numbers, in buckets of as many numbers; the root of a day is that of its buckets' roots, so that a change
of one record costs one bucket. Leaves and nodes are hashed apart (RFC 6962, section 2.1): neither passes for the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import groupby

import numpy as np

from bart.log.record.outcomes import Outcomes

HASH_BYTES = 32
BUCKET = 1024  # sequence numbers
EMPTY = sha256(b"").digest()
_RECORD = struct.Struct("<qI")
_OUTCOME = struct.Struct("<HH?IIq")


def leaves(seq: Sequence[int], request_id: Sequence[str], checksum: Sequence[bytes], outcomes: Outcomes) -> list[bytes]:
    """[b] of 32 bytes that change with anything that is known of a record."""
    listened_s = np.where(np.isnan(outcomes.listened_s), np.nan, outcomes.listened_s)  # one NaN for all
    slots = [
        (np.ascontiguousarray(part, dtype=kind).tobytes(), np.dtype(kind).itemsize)
        for part, kind in ((outcomes.seen, "?"), (listened_s, "<f8"), (outcomes.skipped, "i1"), (outcomes.saved, "?"))
    ]
    of_page = (outcomes.rows, outcomes.columns, outcomes.displayed, outcomes.events, outcomes.late, outcomes.joined_us)
    facts = zip(*(values.tolist() for values in of_page), strict=True)
    ends = zip(outcomes.offset[:-1].tolist(), outcomes.offset[1:].tolist(), strict=True)
    out = []
    for number, named, kept, told, (start, end) in zip(seq, request_id, checksum, facts, ends, strict=True):
        name = named.encode()
        parts = [b"\0bart record\0", _RECORD.pack(number, len(name)), name, kept, _OUTCOME.pack(*told)]
        if told[3]:  # events; else nothing is said of any card
            parts += [part[start * width : end * width] for part, width in slots]
        out.append(sha256(b"".join(parts)).digest())
    return out


def root(hashes: Sequence[bytes]) -> bytes:
    """The Merkle root of hashes in their order; of none the hash of nothing."""
    if not hashes:
        return EMPTY
    level = list(hashes)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        paired = [sha256(b"\1" + one + other).digest() for one, other in pairs]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def bucket_roots(leaves: Iterable[tuple[int, bytes]]) -> dict[int, bytes]:
    """Root of each bucket by its number. leaves: (sequence, leaf) in ascending order."""
    return {
        number: root([one for _, one in together]) for number, together in groupby(leaves, lambda one: one[0] // BUCKET)
    }


def day_root(buckets: Mapping[int, bytes]) -> bytes:
    """The root of a day from those of its buckets."""
    return root([buckets[number] for number in sorted(buckets)])
