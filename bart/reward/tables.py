"""Weights of a reward model laid out for the scoring kernel: hashed once, the rows of a rule made when first seen."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from bart.reward.feature_hash import (
    CONSTANT_INDEX,
    Indices,
    cross_index,
    feature_index,
    level_index,
    match_index,
    vector_index,
)
from bart.reward.features import CONTEXT_NAMES, HOURS, KNOWN_VALUE, FeatureSchema
from bart.types import Floats32, Ints
from bart.types.levels import LEVELS, UNKNOWN


class ScoringTables:
    """Weights laid out for the kernel: own, facts, item vector, match; the last two scaled as the table's vectors are
    not. The cosine is a sum over the match, so its weight is added to all of it."""

    def __init__(self, schema: FeatureSchema, weight: Floats32, fact: Indices, genre_start: int) -> None:
        """fact: indices of item facts, genres from `genre_start` on."""
        d = schema.dimension
        self._schema, self._weight, self._fact = schema, weight, fact
        self._vector = {"u": vector_index("u", d), "v": vector_index("v", d), "m": match_index(d)}
        self._context_index = np.array([feature_index("c", name) for name in CONTEXT_NAMES], dtype=np.uint64)
        self._position: dict[tuple[int, int], float] = {}
        self.base = self._row("")
        self.base[0] += self._gather(np.uint64(CONSTANT_INDEX))
        self.listener: Floats32 = self._gather(self._vector["u"])
        self.level: Floats32 = self._gather(level_index(schema.levels, LEVELS)) * np.float32(KNOWN_VALUE)
        self.level[:, UNKNOWN] = 0.0
        self.context: Floats32 = np.stack([self._row("c", index) for index in self._context_index])
        if "genre x hour" in schema.ids:
            genre = fact[genre_start:]
            own = self._gather(cross_index(genre[None, :], self._context_index[:HOURS, None])) * np.float32(KNOWN_VALUE)
            self.context[:HOURS, 1 + genre_start : 1 + len(fact)] += own
        u, v = self._vector["u"][:, None], self._vector["v"][None, :]
        scale = np.float32(schema.scale)
        # Empty first axes tell the kernel that there is nothing to add.
        self.full: Floats32 = np.zeros((0, d), dtype=np.float32)
        self.full_context: Floats32 = np.zeros((0, d, d), dtype=np.float32)
        if "uv" in schema.crosses:
            self.full = self._gather(cross_index(u, v)) * scale
        if "cuv" in schema.crosses:
            index = cross_index(self._context_index[:, None, None], u[None], v[None])  # [contexts, d, d]
            self.full_context = self._gather(index) * scale

    def identity(self, index: Indices) -> Floats32:
        """[n] what identities [n, k] add."""
        out: Floats32 = (self._gather(index) * np.float32(KNOWN_VALUE)).sum(axis=1)
        return out

    @property
    def rule_width(self) -> int:
        return len(self.base) + self._schema.dimension + len(CONTEXT_NAMES)

    def rule(self, name: str) -> Floats32:
        """[rule_width] weights of one rule and its crosses."""
        index = np.uint64(feature_index("e", name))
        crosses = self._schema.crosses
        listener = np.zeros(self._schema.dimension, dtype=np.float32)
        context = np.zeros(len(CONTEXT_NAMES), dtype=np.float32)
        if "eu" in crosses:
            listener = self._gather(cross_index(np.full_like(self._vector["u"], index), self._vector["u"]))
        if "ce" in crosses:
            context = self._gather(cross_index(self._context_index, np.full_like(self._context_index, index)))
        if "rule x hour" in self._schema.ids:
            hour = self._context_index[:HOURS]
            context[:HOURS] += self._gather(cross_index(np.full_like(hour, index), hour)) * np.float32(KNOWN_VALUE)
        return np.concatenate([self._row("e", index), listener, context])

    def position(self, slot: tuple[int, int]) -> float:
        """Weight of a slot (row, column)."""
        found = self._position.get(slot)
        if found is None:
            names = (f"row={slot[0]}", f"column={slot[1]}")
            found = float(sum(self._gather(np.uint64(feature_index("p", name))) for name in names))
            self._position[slot] = found
        return found

    def _row(self, letter: str, index: np.uint64 | None = None) -> Floats32:
        """Own weight, then facts, item vector and match: each crossed with the feature, or alone where letter is ""."""
        d, crosses, scale = self._schema.dimension, self._schema.crosses, np.float32(self._schema.scale)
        known = (*self._schema.namespaces, *crosses)
        parts = [np.zeros(1, dtype=np.float32) if index is None else self._gather(np.array([index]))]
        for inner, inner_index in (("g", self._fact), ("v", self._vector["v"]), ("m", self._vector["m"])):
            part = np.zeros(len(self._fact) if inner == "g" else d, dtype=np.float32)
            if letter + inner in known:
                own = inner_index if index is None else cross_index(np.full_like(inner_index, index), inner_index)
                part = self._gather(own)
                if inner == "m":
                    part = part[:d] + part[d] / scale
            parts.append(part if inner == "g" else part * scale)
        return np.concatenate(parts)

    def _gather(self, index: Indices | np.uint64) -> Floats32:
        mask = np.uint64(len(self._weight) - 1)
        out: Floats32 = self._weight[(index & mask).astype(np.int64)]
        return out


class RuleRows:
    """Rows of rule weights, made when a rule is first seen.

    Readers take the three (row of each rule, table, index of the rule of each row) at once; a writer adds a row before
    it names it, and copies all when the table is full. So reading needs no lock. With more than `most` rules the table
    starts anew.
    """

    def __init__(self, tables: ScoringTables, rules: Sequence[str], most: int = 4096) -> None:
        self._tables, self._most, self._lock = tables, max(most, 2 * len(rules)), Lock()
        self._initial = tuple(dict.fromkeys(rules))
        self._state = self._anew()

    def of(self, rules: Sequence[str]) -> tuple[Ints, Floats32, Indices]:
        """Row of each rule, the table [rows, rule_width] and indices [rows]; row 0 belongs to cards without a shelf."""
        row, table, index = self._state
        try:
            return np.array([row[rule] for rule in rules], dtype=np.int64), table, index
        except KeyError:
            with self._lock:
                row, table, index = self._with(dict.fromkeys(rules))
            return np.array([row[rule] for rule in rules], dtype=np.int64), table, index

    def _with(self, rules: dict[str, None]) -> tuple[dict[str, int], Floats32, Indices]:
        row, table, index = self._state
        missing = [rule for rule in rules if rule not in row]
        if len(row) + len(missing) > self._most:
            row, table, index = self._anew()
            missing = [rule for rule in rules if rule not in row]
        if len(row) + len(missing) > len(table):
            grown = np.zeros((2 * (len(row) + len(missing)), table.shape[1]), dtype=np.float32)
            grown[: len(row)] = table[: len(row)]
            longer = np.zeros(len(grown), dtype=np.uint64)
            longer[: len(row)] = index[: len(row)]
            row, table, index = dict(row), grown, longer
        for rule in missing:
            table[len(row)], index[len(row)] = self._tables.rule(rule), feature_index("e", rule)
            row[rule] = len(row)
        self._state = (row, table, index)
        return row, table, index

    def _anew(self) -> tuple[dict[str, int], Floats32, Indices]:
        table = np.zeros((2 * len(self._initial) + 8, self._tables.rule_width), dtype=np.float32)
        index: Indices = np.zeros(len(table), dtype=np.uint64)
        for k, rule in enumerate(self._initial):
            table[k], index[k] = self._tables.rule(rule), feature_index("e", rule)
        return {rule: k for k, rule in enumerate(self._initial)}, table, index
