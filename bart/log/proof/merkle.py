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

from bart.log.record.feedback import PageFeedback

HASH_BYTES = 32
BUCKET = 1024  # sequence numbers
EMPTY = sha256(b"").digest()
_OUTCOME = struct.Struct("<HH?IIq")
_NEVER = -(2**63)


def leaf(seq: int, request_id: str, checksum: bytes, outcome: PageFeedback) -> bytes:
    """[32 bytes] that change with anything that is known of a record."""
    name = request_id.encode()
    rows, columns = outcome.seen.shape
    digest = sha256(b"\0bart record\0")
    digest.update(struct.pack("<qI", seq, len(name)))
    digest.update(name)
    digest.update(checksum)
    joined_us = _NEVER if outcome.joined_us is None else outcome.joined_us
    digest.update(_OUTCOME.pack(rows, columns, outcome.displayed, outcome.events, outcome.late, joined_us))
    if outcome.events:  # else nothing is said of any card
        for part, kind in (
            (outcome.seen, "?"),
            (np.where(np.isnan(outcome.listened_s), np.nan, outcome.listened_s), "<f8"),  # one NaN for all
            (outcome.skipped, "i1"),
            (outcome.saved, "?"),
        ):
            digest.update(np.ascontiguousarray(part, dtype=kind).tobytes())
    return digest.digest()


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
