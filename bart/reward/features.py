"""The features of the reward model, built in arrays for training and for serving alike.

Nine groups of features (namespaces), one letter each as Vowpal Wabbit wants them:

    c  context      hour, weekday, device (one-hot, listener-local)
    u  listener     the listener's vector
    v  item vector  the item's vector
    g  item facts   genre, type, age (one-hot), popularity
    m  match        elementwise product of the two vectors and its sum, their cosine (from order 2 on)
    e  explanation  the shelf's rule (one-hot, hashed: a rule never seen before works)
    p  position     row, column (one-hot)
    i  identity     items, artists, listeners and pairs (one-hot, hashed, `bart.reward.identity`): `schema.ids`
    h  history      levels of what else is known of the candidate (one-hot by name, none where unknown): `schema.levels`

The schema also names the crosses. Order 1 has none, so it ranks alike for every listener. Order 2 has the match and the
pairs c:e, c:g, c:v, e:g, e:u, e:v. Order 3 crosses the match with context and explanation as well. Full crosses add
u:v (order 2) and c:u:v (order 3), which is d and 4 d times as many features as the match.

An index is what the text format of Vowpal Wabbit would give for the same names (`|c hour=3 |u 0:0.2`), so a model can
be read and used with its own tools. Vectors are scaled to elements of variance 1: unit vectors times the square root of
d, which lets adaptive gradients treat them like the one-hot features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.errors import SchemaMismatch
from bart.reward.feature_hash import Indices, feature_index
from bart.reward.identity import IDS, identities, item_parts, listener_index
from bart.types import DEVICES, ITEM_TYPES, CardFeatures, Floats32, Ints, ItemTable, Strings

GROUPS: Mapping[str, str] = {
    "c": "context",
    "u": "listener",
    "v": "item vector",
    "g": "item facts",
    "m": "match",
    "e": "explanation",
    "p": "position",
    "i": "identity",
    "h": "history",
}
KNOWN_VALUE = 24.0  # of a level and of an identity: they are learnt faster than the many elements of vectors
SECONDS_A_DAY = 86400
UNKNOWN_DAY = -(1 << 31)  # stands for a release date that is not known
HOURS = 24
CONTEXT_NAMES = (
    *(f"hour={h}" for h in range(HOURS)),
    *(f"weekday={d}" for d in range(7)),
    *(f"device={d}" for d in (*DEVICES, "other")),
)
CONTEXT_START = (0, 24, 31)  # where hour, weekday and device begin in CONTEXT_NAMES


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """Which features a reward model sees. A model belongs to one schema and is refused with another.

    dimension: of listener and item vectors. order: 1, 2 or 3, the highest order of a cross. full_crosses: cross
    listener and item vectors in full, beside their elementwise product. age_edge_d: days since release at which a
    new age bucket begins. levels: names of the candidates' features (`bart.types.CardFeatures`) that the model reads.
    ids: of `bart.reward.identity.IDS`, which have weights of their own. version: of the recipe in this file.
    """

    dimension: int = 40
    order: int = 3
    full_crosses: bool = False
    age_edge_d: tuple[int, ...] = (1, 7, 30, 90, 365, 1825)
    levels: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    version: int = 1

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise ValueError(f"dimension is {self.dimension}; expected at least 1")
        if self.order not in (1, 2, 3):
            raise ValueError(f"order is {self.order}; expected 1, 2 or 3")
        if self.full_crosses and self.order == 1:
            raise ValueError("full_crosses needs order 2 or 3")
        object.__setattr__(self, "age_edge_d", tuple(int(edge) for edge in self.age_edge_d))
        for name in ("levels", "ids"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if unknown := set(self.ids) - set(IDS):
            raise ValueError(f"ids has {sorted(unknown)[0]!r}; expected of {', '.join(IDS)}")
        if any(a >= b for a, b in zip(self.age_edge_d, self.age_edge_d[1:], strict=False)):
            raise ValueError(f"age_edge_d is {self.age_edge_d}; expected increasing days")
        if self.version != 1:
            raise SchemaMismatch(f"feature schema version {self.version} is unknown; this code knows version 1")

    @property
    def namespaces(self) -> str:
        """Letters of the groups in use, in the order in which they are pushed."""
        return ("cuvgep" if self.order == 1 else "cuvgmep") + "i" * bool(self.ids) + "h" * bool(self.levels)

    @property
    def crosses(self) -> tuple[str, ...]:
        """The crosses, each as the letters of its groups in alphabetical order (which is the order of hashing)."""
        pairs = ("ce", "cg", "cv", "eg", "eu", "ev") if self.order > 1 else ()
        triples = ("cm", "em") if self.order > 2 else ()
        full = (("uv",) if self.order > 1 else ()) + (("cuv",) if self.order > 2 else ())
        return pairs + triples + (full if self.full_crosses else ())

    @property
    def feature_count(self) -> int:
        """Active features of one example, the constant included."""
        size = {"c": 3, "u": self.dimension, "v": self.dimension, "g": 4, "m": self.dimension + 1, "e": 1, "p": 2}
        size |= {"h": len(self.levels), "i": len(self.ids)}
        crosses = sum(int(np.prod([size[letter] for letter in cross])) for cross in self.crosses)
        return 1 + sum(size[letter] for letter in self.namespaces) + crosses

    @property
    def scale(self) -> float:
        """Factor that gives the elements of a unit vector variance 1."""
        return float(np.sqrt(self.dimension))

    @property
    def age_names(self) -> tuple[str, ...]:
        """Names of the age buckets, the last for an unknown date."""
        edges = ("", *(str(edge) for edge in self.age_edge_d))
        return (*(f"age={edge or 'new'}" for edge in edges), "age=unknown")

    @property
    def fingerprint(self) -> str:
        """16 hex digits that differ for schemas that differ."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them."""
        fields = {**asdict(self), "age_edge_d": list(self.age_edge_d)}
        for name in ("levels", "ids"):
            if fields[name] == ():  # as before there were any, so that older models keep their fingerprint
                del fields[name]
            else:
                fields[name] = list(fields[name])
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FeatureSchema:
        """The schema that `as_dict` described. Raises SchemaMismatch for fields that this code does not know."""
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise SchemaMismatch(f"feature schema has unknown fields: {', '.join(unknown)}")
        return cls(**{**fields, "age_edge_d": tuple(fields.get("age_edge_d", cls().age_edge_d))})

    def levels_of(self, features: CardFeatures | None, n: int) -> NDArray[np.uint8]:
        """[n, levels] of n candidates, in the order of `levels`; unknown where `features` lacks one."""
        return (features or CardFeatures.unknown(n)).named(self.levels)

    def check_items(self, items: ItemTable) -> None:
        """Raises SchemaMismatch where the item vectors are of another dimension."""
        if items.dimension != self.dimension:
            raise SchemaMismatch(f"item vectors have dimension {items.dimension}; the schema expects {self.dimension}")


# -------------------------------------------------------------------------------------------------------- static parts


class ItemFeatures:
    """What the features need of each item, computed once a table.

    category: names of all item facts that occur, in the order of their codes: popularity, age buckets, types, genres.
    type_code, genre_code: [n] int32 codes. popularity: [n] float32. released_day: [n] days since 1970, UNKNOWN_DAY
    where not known. vector: [n, d] as in the table (not scaled). part: indices [n] of item, artist and genre. The first
    genre counts.
    """

    def __init__(self, schema: FeatureSchema, items: ItemTable) -> None:
        schema.check_items(items)
        self.schema = schema
        self.vector = np.ascontiguousarray(items.vector, dtype=np.float32)
        self.popularity = items.popularity.astype(np.float32)
        self.age_start = 1
        type_start = self.age_start + len(schema.age_names)
        self.genre_start = type_start + len(ITEM_TYPES)
        self.category: tuple[str, ...] = (
            "popularity",
            *schema.age_names,
            *(f"type={name}" for name in ITEM_TYPES),
            "genre=",
            *(f"genre={name}" for name in items.genres.vocabulary),
        )
        self.category_index: Indices = np.array([feature_index("g", name) for name in self.category], dtype=np.uint64)
        self.type_code = items.type.astype(np.int32) + np.int32(type_start)
        self.genre_code = (items.genres.first + self.genre_start + 1).astype(np.int32)
        self.part = item_parts(items) if schema.ids else {}
        known = ~np.isnat(items.released_at)
        self.released_day: Ints = np.full(len(items), UNKNOWN_DAY, dtype=np.int64)
        self.released_day[known] = items.released_at[known].astype("datetime64[D]").astype(np.int64)

    def __len__(self) -> int:
        return len(self.vector)

    def age_code(self, item: Ints, day: Ints) -> Ints:
        """[m] codes of the age buckets of items on days since 1970. What is not out yet counts as new."""
        released = self.released_day[item]
        age = day - np.where(released == UNKNOWN_DAY, day, released)
        bucket = np.searchsorted(np.array(self.schema.age_edge_d, dtype=np.int64), age, side="right")
        return np.where(released == UNKNOWN_DAY, len(self.schema.age_edge_d) + 1, bucket) + self.age_start


def context_code(hour: Ints, weekday: Ints, device: Ints) -> Ints:
    """[b, 3] positions in CONTEXT_NAMES of the active context features."""
    out = np.stack([hour, weekday, device], axis=1).astype(np.int64)  # [b, 3]
    for j, (name, size) in enumerate((("hour", 24), ("weekday", 7), ("device", len(DEVICES) + 1))):
        bad = np.flatnonzero((out[:, j] < 0) | (out[:, j] >= size))
        if len(bad):
            raise ValueError(f"{name}[{bad[0]}] is {out[bad[0], j]}; expected [0, {size})")
    return out + np.array(CONTEXT_START, dtype=np.int64)


# ------------------------------------------------------------------------------------------------------------- examples


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """m examples of b pages as index and value arrays, ready to be pushed.

    page: [m] number of the page of each example, ascending. context: [b, 3] indices. listener: [b, d] values. Of each
    example: item_vector [m, d] and match [m, d + 1] values (order 1: [m, 0]); fact [m, 4] indices, the last being
    popularity, and popularity [m] its value; explanation [m], position [m, 2] and identity [m, ids] indices. level [m,
    levels] uint8. rules: the distinct rules.
    """

    schema: FeatureSchema
    page: Ints
    context: Indices
    listener: Floats32
    item_vector: Floats32
    match: Floats32
    fact: Indices
    popularity: Floats32
    explanation: Indices
    position: Indices
    identity: Indices
    level: NDArray[np.uint8]
    rules: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.page)


def build_examples(
    items: ItemFeatures,
    *,
    at_s: Ints,
    hour: Ints,
    weekday: Ints,
    device: Ints,
    listener: Floats32,
    page: Ints,
    item: Ints,
    rule: Strings,
    row: Ints,
    column: Ints,
    features: CardFeatures | None = None,
    user_id: Strings | None = None,
) -> Examples:
    """Features of m cards on b pages.

    Per page: at_s (seconds UTC), hour, weekday, device codes, user_id [b], listener [b, d]. Per card: page (ascending),
    item (row of the table), rule, row and column of its slot [m]; features of the m cards. None for features and ids
    that are not known. Raises ValueError for a vector that is not finite or of another dimension, and for rows outside
    the table.
    """
    schema = items.schema
    check_listener(listener, schema)
    if len(item) and (item.min() < 0 or item.max() >= len(items)):
        bad = int(np.flatnonzero((item < 0) | (item >= len(items)))[0])
        raise ValueError(f"item[{bad}] is {item[bad]}; expected a row in [0, {len(items)})")
    if len(page) and (np.diff(page) < 0).any():
        raise ValueError("page must not decrease")
    context_index = np.array([feature_index("c", name) for name in CONTEXT_NAMES], dtype=np.uint64)
    scaled = (listener * np.float32(schema.scale)).astype(np.float32)  # [b, d]
    vector = items.vector[item] * np.float32(schema.scale)  # [m, d]
    age = items.age_code(item, (at_s // SECONDS_A_DAY)[page])
    code = np.stack([items.genre_code[item], items.type_code[item], age, np.zeros_like(age)], axis=1)  # [m, 4]
    rules, rule_code = _distinct(rule)
    rule_index = np.array([feature_index("e", name) for name in rules], dtype=np.uint64)
    context = context_index[context_code(hour, weekday, device)]
    part: dict[str, Indices] = {}
    if schema.ids:
        user = np.full(len(context), "", dtype=object) if user_id is None else user_id
        part = {name: index[item] for name, index in items.part.items()}
        part |= {"listener": listener_index(user)[page], "rule": rule_index[rule_code], "hour": context[page, 0]}
    position = np.stack([_slot_index("row", row), _slot_index("column", column)], axis=1)  # [m, 2]
    return Examples(
        schema=schema,
        page=page,
        context=context,
        listener=scaled,
        item_vector=vector,
        match=_match(scaled[page], vector) if schema.order > 1 else np.zeros((len(item), 0), dtype=np.float32),
        fact=items.category_index[code],
        popularity=items.popularity[item],
        explanation=rule_index[rule_code],
        position=position,
        identity=identities(schema.ids, part, len(item)),
        level=schema.levels_of(features, len(item)),
        rules=rules,
    )


def check_listener(listener: Floats32, schema: FeatureSchema) -> None:
    """Raises ValueError unless `listener` is [..., d] and finite."""
    if listener.shape[-1] != schema.dimension:
        raise SchemaMismatch(f"listener has shape {listener.shape}; expected [..., {schema.dimension}]")
    if not np.isfinite(listener).all():
        raise ValueError(f"listener{list(map(int, np.argwhere(~np.isfinite(listener))[0]))} is not finite")


def _match(listener: Floats32, vector: Floats32) -> Floats32:
    product = listener * vector
    cosine = product.sum(axis=1, keepdims=True) / np.float32(np.sqrt(vector.shape[1]))  # of variance 1 as the others
    return np.concatenate([product, cosine], axis=1)


def _distinct(rule: Strings) -> tuple[tuple[str, ...], Ints]:
    known: dict[str, int] = {}
    code = np.fromiter((known.setdefault(name, len(known)) for name in rule.tolist()), dtype=np.int64, count=len(rule))
    return tuple(known), code


def _slot_index(name: str, slot: Ints) -> Indices:
    if len(slot) == 0:
        return np.zeros(0, dtype=np.uint64)
    if slot.min() < 0:
        raise ValueError(f"{name}[{int(np.argmin(slot))}] is {int(slot.min())}; expected 0 or more")
    table = np.array([feature_index("p", f"{name}={k}") for k in range(int(slot.max()) + 1)], dtype=np.uint64)
    return table[slot]
