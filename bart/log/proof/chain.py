"""The chain: entries, each sealed together with the seal of the one before.

    opened     the log's first entry
    keyed      from here on entries have a key
    closed     a day whose last window is over; root over its records
    amended    a closed day that late records or reports changed, or an erasure; root over its records now
    erased     an erasure at a moment; root over the tombstones of that moment
    pruned     days before a moment were removed
    lowered    the watermark was moved back

A seal is HMAC-SHA256 (RFC 2104) of the entry under a key, or SHA-256 without one: then whoever can write the log can
write a fitting chain, and it is no proof against them. A chain may begin without a key and go on with one, which then
seals what came before too; never the other way.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

from bart.errors import LogError

DAY_US = 86_400_000_000
KINDS = ("opened", "keyed", "closed", "amended", "erased", "pruned", "lowered")
_FIRST = "0" * 64
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. day: "YYYY-MM-DD", "" where it is of none. count: leaves under the root, hexadecimal, "" without one.

    at_us: the moment that the caller named (of closing, of the erasure; what was pruned came before it; the new
    watermark), microseconds. window_us: the feedback window that outcomes were joined with. previous: the seal before.
    """

    number: int
    kind: str
    day: str
    count: int
    root: str
    at_us: int
    window_us: int
    keyed: bool
    previous: str
    seal: str

    def body(self) -> bytes:
        """What is sealed."""
        fields = {name: value for name, value in asdict(self).items() if name != "seal"}
        return b"bart log chain 1\0" + json.dumps(fields, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong, of which day ("" where of none) and record ("" where of none, or where it cannot be told)."""

    day: str
    record: str
    text: str


def sealed(key: bytes | None, body: bytes) -> str:
    """The seal of some bytes, 64 hexadecimal digits."""
    return sha256(body).hexdigest() if key is None else hmac.new(key, body, sha256).hexdigest()


def tag(key: bytes | None, leaf: bytes) -> bytes:
    """[16 bytes] by which a stored leaf is known; nothing without a key."""
    return b"" if key is None else hmac.new(key, b"bart leaf\0" + leaf, sha256).digest()[:16]


def following(
    last: Entry | None, key: bytes | None, kind: str, *, day: str = "", count: int = 0, root: bytes = b"",
    at_us: int = 0, window_us: int = 0,
) -> Entry:  # fmt: skip
    """The entry after `last` (None: the first one). Raises LogError without a key where `last` has one."""
    if last is not None and last.keyed and key is None:
        raise LogError("the log is proven with a key; expected it here too (log.proof_key, --proof-key)")
    number, previous = (0, _FIRST) if last is None else (last.number + 1, last.seal)
    entry = Entry(number, kind, day, count, root.hex(), at_us, window_us, key is not None, previous, "")
    return replace(entry, seal=sealed(key, entry.body()))


def flaws_of(entries: Sequence[Entry], key: bytes | None) -> Iterator[Flaw]:
    """What is wrong with a chain. key: None leaves the seals of keyed entries unchecked, but not what they follow."""
    previous, keyed = _FIRST, False
    for number, entry in enumerate(entries):
        what = f"entry {entry.number} ({entry.kind}{' ' + entry.day if entry.day else ''})"
        if entry.number != number:
            yield Flaw(entry.day, "", f"{what} stands where entry {number} is expected: entries are missing or moved")
        if entry.previous != previous:
            yield Flaw(entry.day, "", f"{what} does not follow the entry before it")
        if keyed and not entry.keyed:
            yield Flaw(entry.day, "", f"{what} is without a key, after entries that have one")
        if (key is not None or not entry.keyed) and entry.seal != sealed(key if entry.keyed else None, entry.body()):
            yield Flaw(entry.day, "", f"the seal of {what} does not fit it: it was altered, or the key is another")
        if entry.kind not in KINDS:
            yield Flaw(entry.day, "", f"{what} is of no known kind")
        previous, keyed = entry.seal, keyed or entry.keyed
    if key is not None and entries and not keyed:
        yield Flaw("", "", "no entry of the chain is sealed with a key, although one is given")


def day_of(us: int) -> str:
    """The UTC day of a moment (microseconds since 1970)."""
    return (_EPOCH + timedelta(days=us // DAY_US)).isoformat()


def start_of(day: str) -> int:
    """The first microsecond of a day."""
    return (date.fromisoformat(day) - _EPOCH).days * DAY_US


def entry_of(fields: Mapping[str, Any]) -> Entry:
    """The entry of stored fields. Raises LogError for others."""
    try:
        return Entry(**fields)
    except TypeError as error:
        raise LogError(f"an entry of the chain cannot be read: {error}") from None
