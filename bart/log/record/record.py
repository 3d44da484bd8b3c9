"""The bytes of one decision: a deterministic, versioned, bit-exact encoding with its checksum.

A stored record is one version byte, two sizes, one LZ4 block (words, ids, positions and propensities: they repeat) and
the scores as they are (they do not). LZ4 costs a hundredth of a millisecond where zlib costs seven. The checksum is
taken over the canonical bytes, the same content uncompressed, so it does not depend on the compressor at hand; the
request id is part of it. It finds torn and altered records; whoever can write the file can also write a fitting
checksum, which is what `verify` (bart/log/care) replays for.

Version 1 lacks `arm`, `forced` and `model_id`; it is still read. Version 2 is written, version 3 where boosts or
diversity moved the scores: it says how. Version 4 adds the features of the candidates, two levels a byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart.errors import LogError
from bart.log.record.levels import pack_levels, unpack_levels
from bart.types import Bools, Context, Decision, Floats, Ints, ListenerTraits, Page, Shelf

VERSION = 2
MOVED = 3  # with what boosts and diversity did to the scores
KNOWING = 4  # with the features of the candidates
READABLE = (1, 2, 3, 4)
CHECKSUM_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# decided_us, utc offset, flags, three traits, then counts: candidates, shelves, rows and columns asked for, rows and
# columns drawn, dimension of the listener vector, bytes of text, texts
HEAD = struct.Struct("<qhHddd9I")
_ENVELOPE = struct.Struct("<BII")  # version, bytes of the block, bytes that it holds
EXPLICIT, FORCED, RAW_F32, SCORE_SAME, SCORE_F32, NUL_IN_TEXT, BOOSTED, DIVERSE = (1 << i for i in range(8))
_LZ4 = pa.Codec("lz4_raw")
_LARGEST_GAIN = 256  # LZ4 packs 255 times at best: a record that claims more is altered, and must not allocate it
_MOST_SHELVES = 2**15 - 1
_BEYOND_F32 = 2**29 - 1  # bits of a float64's mantissa that float32 lacks


@dataclass(frozen=True, slots=True)
class EncodedDecision:
    """A decision as stored: its bytes, their checksum, and the columns that are searched.

    decided_us: microseconds since 1970 (UTC). shown: which slots of the page hold a card, see `pack_shown`.
    """

    request_id: str
    user_id: str
    decided_us: int
    shown: bytes
    record: bytes
    checksum: bytes


def record_version(decision: Decision) -> int:
    """The version that a decision is written as: the oldest that can hold it."""
    if decision.features is not None:
        return KNOWING
    return VERSION if decision.boost_factor is None and decision.relevance is None else MOVED


def as_written(export_version: int) -> int | None:
    """The version of the records in an export of this version; None: each as `record_version` says."""
    return 1 if export_version == 1 else None


def encode(decision: Decision, version: int | None = None) -> EncodedDecision:
    """The decision as bytes, the same for equal decisions. Raises LogError for what cannot be kept exactly."""
    version = version or record_version(decision)
    head, scores = canonical(decision, version)
    return EncodedDecision(
        decision.request_id,
        decision.user_id,
        to_us(decision.decided_at),
        pack_shown(decision.page),
        packed(version, head, scores),
        digest(version, head, scores),
    )


def checksum(decision: Decision, version: int | None = None) -> bytes:
    """[16 bytes] of the canonical bytes of a decision, without storing it."""
    version = version or record_version(decision)
    return digest(version, *canonical(decision, version))


def decode(record: bytes, expected: bytes | None = None) -> Decision:
    """The decision in a stored record; `expected` is the checksum that its canonical bytes must have.

    Raises LogError for a record that is torn, altered or of a version that this code does not know.
    """
    version, head, scores = unpacked(record, expected)
    try:
        return _parse(head, scores, version)
    except (ValueError, OverflowError, struct.error) as error:
        raise LogError(f"record does not hold a decision ({error}): it is torn or altered") from None


def packed(version: int, head: bytes, scores: bytes) -> bytes:
    """The record as it is stored."""
    block = _LZ4.compress(head, asbytes=True)
    return b"".join((_ENVELOPE.pack(version, len(block), len(head)), block, scores))


def unpacked(record: bytes, expected: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Version, head and scores of a stored record, as `decode` parses them; its errors."""
    if len(record) < _ENVELOPE.size:
        raise LogError(f"record has {len(record)} bytes; expected at least {_ENVELOPE.size}: it is torn")
    version, packed_size, size = _ENVELOPE.unpack_from(record)
    if version not in READABLE:
        raise LogError(f"record is of version {version}; this code reads {READABLE[0]} to {READABLE[-1]}")
    end = _ENVELOPE.size + packed_size
    if end > len(record) or size > packed_size * _LARGEST_GAIN:
        raise LogError(f"record has {len(record)} bytes and claims more: it is torn or altered")
    try:
        head = _LZ4.decompress(record[_ENVELOPE.size : end], size, asbytes=True)
    except (OSError, ValueError) as error:
        raise LogError(f"record cannot be unpacked ({error}): it is torn or altered") from None
    scores = record[end:]
    if expected is not None and digest(version, head, scores) != expected:
        raise LogError("checksum does not fit the record: it was altered")
    return version, head, scores


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exact."""
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} is without a time zone; expected an aware datetime")
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_us(us: int) -> datetime:
    """The UTC datetime of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=us)


def pack_shown(page: Page) -> bytes:
    """Which slots hold a card, in a few bytes: rows, columns, one bit a slot; feedback is checked against it."""
    return struct.pack("<HH", *page.card.shape) + np.packbits(page.card >= 0).tobytes()


def unpack_shown(packed: bytes) -> Bools:
    """[rows, columns] bool, where a card stands."""
    rows, columns = struct.unpack_from("<HH", packed)
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8, offset=4), count=rows * columns)
    return bits.reshape(rows, columns).astype(np.bool_)


def digest(version: int, head: bytes, scores: bytes) -> bytes:
    """The checksum of a record."""
    found = blake2b(b"bart decision %d\0" % version, digest_size=CHECKSUM_BYTES)
    found.update(head)
    found.update(scores)
    return found.digest()


def canonical(decision: Decision, version: int) -> tuple[bytes, bytes]:
    """The part that is compressed, and the scores. Raises LogError for what cannot be kept exactly."""
    if version not in READABLE:
        raise LogError(f"version is {version}; expected {READABLE[0]} to {READABLE[-1]}")
    page, context, traits = decision.page, decision.context, decision.traits
    if decision.listener.dtype != np.float32:
        raise LogError(f"listener has dtype {decision.listener.dtype}; expected float32, so that it is kept exactly")
    raw_score, final = _f64("raw_score", decision.raw_score), _f64("score", decision.score)
    raw, raw_is_f32 = _shortest(raw_score)
    same = decision.score is decision.raw_score or np.array_equal(raw_score.view(np.int64), final.view(np.int64))
    score, score_is_f32 = (b"", False) if same else _shortest(final)
    text, has_nul, n_texts = _texts(decision, version)
    flags = (
        (EXPLICIT if context.explicit_allowed else 0)
        | (FORCED if decision.forced and version > 1 else 0)
        | (RAW_F32 if raw_is_f32 else 0)
        | (SCORE_SAME if same else 0)
        | (SCORE_F32 if score_is_f32 else 0)
        | (NUL_IN_TEXT if has_nul else 0)
    )
    moved, moved_flags = _moved(decision) if version >= MOVED else ((), 0)
    known = b"" if decision.features is None or version < KNOWING else pack_levels(decision.features)
    flags |= moved_flags
    shown = page.card >= 0
    head = HEAD.pack(
        to_us(context.at),
        context.utc_offset_min,
        flags,
        *(float("nan") if t is None else t for t in _traits(traits)),
        len(decision.item_id),
        len(decision.shelves),
        len(decision.shelf_epsilon),
        len(decision.card_epsilon),
        *page.card.shape,
        len(decision.listener),
        len(text),
        n_texts,
    )
    parts = (
        head,
        text,
        decision.listener.astype("<f4", copy=False).tobytes(),
        _f8(decision.shelf_epsilon),
        _f8(decision.card_epsilon),
        bytes(min(len(s.parameters), 255) for s in decision.shelves),
        _narrow("shelf", decision.shelf, shelf_type(len(decision.shelves))),
        _narrow("page.shelf", page.shelf, shelf_type(len(decision.shelves))),
        _narrow("page.card", page.card, card_type(len(decision.item_id))),
        np.packbits(page.pinned).tobytes(),
        _f8(page.shelf_propensity),
        _f8(page.card_propensity[shown]),
        *moved,
        known,
    )
    return b"".join(parts), raw + score


def _moved(decision: Decision) -> tuple[tuple[bytes, ...], int]:
    """What boosts and diversity did to the scores, and the flags that say which of them there were."""
    parts: list[bytes] = []
    flags = 0
    if decision.boost_factor is not None and decision.boost_add is not None:
        parts += [_f8(decision.boost_factor), _f8(decision.boost_add)]
        flags |= BOOSTED
    if decision.relevance is not None:
        parts.append(_f8(np.array([decision.relevance])))
        flags |= DIVERSE
    return tuple(parts), flags


def _texts(decision: Decision, version: int) -> tuple[bytes, bool, int]:
    """All strings, joined by NUL (or escaped first, where one of them holds a NUL)."""
    context = decision.context
    seed = int(decision.seed)
    words = [decision.request_id, decision.user_id, context.device, context.surface, context.country]
    words += [decision.batch_id, decision.policy, decision.rules_version, str(seed)]
    if version > 1:
        words += [decision.arm, decision.model_id]
    for shelf in decision.shelves:
        if len(shelf.parameters) > 255:
            raise LogError(f"shelf {shelf.rule!r} has {len(shelf.parameters)} parameters; expected 255 at most")
        words += [shelf.rule, shelf.title, shelf.explanation, shelf.key]
        for name, value in shelf.parameters:
            words += [name, value]
    if len(decision.shelves) > _MOST_SHELVES:
        raise LogError(f"decision has {len(decision.shelves)} shelves; expected {_MOST_SHELVES} at most")
    words += decision.item_id.tolist()
    try:
        text = "\0".join(words).encode()
        has_nul = text.count(0) != len(words) - 1
        if has_nul:
            text = "\0".join(w.replace("\1", "\1\2").replace("\0", "\1\1") for w in words).encode()
    except TypeError:
        bad = next(w for w in words if not isinstance(w, str))
        raise LogError(f"decision holds {bad!r} where a string is expected") from None
    except UnicodeEncodeError as error:
        raise LogError(f"decision holds a string that is not valid Unicode ({error.reason})") from None
    return text, has_nul, len(words)


def _f64(name: str, value: NDArray[Any]) -> Floats:
    if value.dtype not in (np.float64, np.float32):
        raise LogError(f"{name} has dtype {value.dtype}; expected float64, so that it is kept exactly")
    return np.ascontiguousarray(value, dtype=np.float64)


def _shortest(value: Floats) -> tuple[bytes, bool]:
    """The bytes, four a number where that loses nothing, and whether it did not."""
    if (value.view(np.int64) & _BEYOND_F32).any():  # true of nearly all scores, and quick to see
        return value.astype("<f8", copy=False).tobytes(), False
    with np.errstate(over="ignore"):  # beyond float32 it becomes inf, which then differs
        short = value.astype("<f4")
    # compared as bits: -0.0 equals 0.0 and is not the same score
    if np.array_equal(short.astype(np.float64).view(np.int64), value.view(np.int64)):
        return short.tobytes(), True
    return value.astype("<f8", copy=False).tobytes(), False


def _narrow(name: str, value: Ints, dtype: str) -> bytes:
    short = value.astype(dtype)
    if (short != value).any():
        raise LogError(f"{name} holds {int(np.abs(value).max())}; expected numbers of its shelves and candidates")
    return short.tobytes()


def shelf_type(n_shelves: int) -> str:
    """The narrowest integers for numbers from -1 to n_shelves - 1."""
    return "<i1" if n_shelves <= 2**7 else "<i2"


def card_type(n: int) -> str:
    return "<i2" if n <= 2**15 else "<i4"


def _f8(value: Floats) -> bytes:
    return np.asarray(value, dtype="<f8").tobytes()


def _traits(traits: ListenerTraits) -> tuple[float | None, float | None, float | None]:
    return traits.account_age_d, traits.diversity, traits.exploration_success


class _Reader:
    """Reads arrays one after another and notices an early end."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def take(self, dtype: str, count: int) -> NDArray[Any]:
        out = np.frombuffer(self.data, dtype=dtype, count=count, offset=self.at) if count else np.empty(0, dtype)
        self.at += out.nbytes
        return out

    def rest(self) -> bytes:
        at, self.at = self.at, len(self.data)
        return self.data[at:]


def _shelves(words: list[str], at: int, n_parameters: bytes) -> tuple[tuple[Shelf, ...], int]:
    """The shelves that stand in the words from one on, and where what follows begins."""
    shelves = []
    for count in n_parameters:
        end = at + 4 + 2 * count
        if end > len(words):
            raise ValueError(f"{len(words)} strings, of which a shelf needs {end}")
        parameters = tuple(zip(words[at + 4 : end : 2], words[at + 5 : end : 2], strict=True)) if count else ()
        rule, title, explanation, key = words[at : at + 4]
        shelves.append(Shelf(rule, title, explanation, key, parameters))
        at = end
    return tuple(shelves), at


def split_texts(text: bytes, flags: int) -> list[str]:
    """The strings of a record."""
    words = text.decode().split("\0")
    if flags & NUL_IN_TEXT:
        words = [w.replace("\1\1", "\0").replace("\1\2", "\1") for w in words]
    return words


def _parse(head: bytes, scores: bytes, version: int) -> Decision:
    decided_us, utc_offset_min, flags, *rest = HEAD.unpack_from(head)
    traits = [None if t != t else t for t in rest[:3]]
    n, n_shelves, rows_asked, columns_asked, rows, columns, dimension, text_size, n_texts = rest[3:]
    at = HEAD.size
    words = split_texts(head[at : at + text_size], flags)
    if len(words) != n_texts:
        raise ValueError(f"{len(words)} strings where {n_texts} are expected")
    read = _Reader(head, at + text_size)
    listener = read.take("<f4", dimension).astype(np.float32)
    shelf_epsilon = read.take("<f8", rows_asked).astype(np.float64)
    card_epsilon = read.take("<f8", columns_asked).astype(np.float64)
    n_parameters = read.take("u1", n_shelves).tobytes()
    shelf = read.take(shelf_type(n_shelves), n).astype(np.int64)
    row_shelf = read.take(shelf_type(n_shelves), rows).astype(np.int64)
    card = read.take(card_type(n), rows * columns).astype(np.int64).reshape(rows, columns)
    bits = read.take("u1", (rows * columns + 7) // 8)
    pinned = np.unpackbits(bits, count=rows * columns).reshape(rows, columns).astype(np.bool_)
    shelf_propensity = read.take("<f8", rows).astype(np.float64)
    card_propensity = np.full((rows, columns), np.nan)
    shown = card >= 0
    card_propensity[shown] = read.take("<f8", int(shown.sum()))
    factor = read.take("<f8", n).astype(np.float64) if flags & BOOSTED else None
    add = read.take("<f8", n).astype(np.float64) if flags & BOOSTED else None
    relevance = float(read.take("<f8", 1)[0]) if flags & DIVERSE else None
    features = unpack_levels(read.rest(), n) if version >= KNOWING else None
    if read.at != len(head):
        raise ValueError(f"{len(head) - read.at} bytes too many")
    values = _Reader(scores, 0)
    raw_score = values.take("<f4" if flags & RAW_F32 else "<f8", n).astype(np.float64)
    score = raw_score
    if not flags & SCORE_SAME:
        score = values.take("<f4" if flags & SCORE_F32 else "<f8", n).astype(np.float64)
    if values.at != len(scores):
        raise ValueError(f"{len(scores) - values.at} bytes of scores too many")

    request_id, user_id, device, surface, country, batch_id, policy, rules_version, seed = words[:9]
    arm, model_id = words[9:11] if version > 1 else ("", "")
    shelves, at = _shelves(words, 11 if version > 1 else 9, n_parameters)
    item_id = np.empty(n, dtype=object)
    item_id[:] = words[at:]  # a wrong number of ids raises ValueError here
    return Decision(
        request_id=request_id,
        user_id=user_id,
        context=Context(from_us(decided_us), utc_offset_min, device, surface, country, bool(flags & EXPLICIT)),
        traits=ListenerTraits(*traits),
        listener=listener,
        batch_id=batch_id,
        policy=policy,
        shelf_epsilon=shelf_epsilon,
        card_epsilon=card_epsilon,
        rules_version=rules_version,
        seed=int(seed),
        shelves=shelves,
        item_id=item_id,
        shelf=shelf,
        raw_score=raw_score,
        score=score,
        page=Page(row_shelf, card, shelf_propensity, card_propensity, pinned),
        arm=arm,
        model_id=model_id,
        forced=bool(flags & FORCED),
        boost_factor=factor,
        boost_add=add,
        relevance=relevance,
        features=features,
    )
