"""The reward model compiled into dense tables for serving, simulation and evaluation.

Hashing is done once: the weights of context, explanation and item facts are laid out in tables. A visit then contracts
the context (three rows), the listener (one vector a shelf) and scores each candidate with one dot product. Rules that
the model never saw get the weights their hash points to, as in Vowpal Wabbit, so collisions included the scores equal
`RewardModel.predict` to 1e-5; a compiled model that does not is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bart.errors import BundleError, DataError, SchemaMismatch
from bart.reward.baselines import PopularityScorer, PriorScorer, read_description, write_description
from bart.reward.contributions import group_logits, probability
from bart.reward.feature_hash import Indices
from bart.reward.features import (
    KNOWN_VALUE,
    SECONDS_A_DAY,
    UNKNOWN_DAY,
    FeatureSchema,
    ItemFeatures,
    build_examples,
    check_listener,
    context_code,
)
from bart.reward.identity import identities, listener_index, one_listener, partners_of
from bart.reward.tables import RuleRows, ScoringTables
from bart.tensors import from_bytes, to_bytes
from bart.types import (
    Candidates,
    CardFeatures,
    Context,
    Floats,
    Floats32,
    Ints,
    ItemTable,
    PageBatch,
    PageScorer,
    Strings,
    device_code,
)
from bart.types.levels import LEVELS

if TYPE_CHECKING:
    from bart.reward.model import RewardModel  # Vowpal Wabbit loads where a model is learnt, not where one scores

WEIGHTS_FILE = "weights.safetensors"
TOLERANCE = 1e-5  # largest difference from Vowpal Wabbit's prediction, as a probability
FIRST_SLOT = (0, 0)
_KNOWN_VALUE = np.float32(KNOWN_VALUE)


class StoredScorer(PageScorer, Protocol):
    """A scorer that has a name and can be kept in a bundle."""

    name: str

    def save(self, folder: Path) -> None: ...


class Scorer:
    """P(reward) of cards by a compiled reward model. `score` and `score_batch` give the same bits.

    An item that the table does not hold (row -1) is scored by context, listener and shelf alone. Safe to use from
    several threads.
    """

    name = "compiled"

    def __init__(self, schema: FeatureSchema, weight: Floats32, items: ItemTable, rules: Sequence[str] = ()) -> None:
        """schema, weight [2^bits], rules: of the reward model. `compile` and `load_scorer` give one that is checked."""
        self.schema = schema
        self.rules = tuple(rules)
        self._weight = weight
        self._items = ItemFeatures(schema, items)
        self._tables = ScoringTables(schema, weight, self._items.category_index, self._items.genre_start)
        self._rule_rows = RuleRows(self._tables, ("", *self.rules))
        self._age_edge = np.array(schema.age_edge_d, dtype=np.int64)
        own = self._items
        popularity, released = own.popularity.view(np.int32), own.released_day.astype(np.int32)
        kinds = [name for name in ("item", "artist") if name in schema.ids]
        identity = self._tables.identity(identities(kinds, own.part, len(own))).view(np.int32)
        artist = (own.part["artist"] if own.part else np.zeros(len(own), dtype=np.uint64)).astype(np.uint32)
        columns = own.genre_code, own.type_code, popularity, released, identity, artist.view(np.int32)
        self._fact = np.stack(columns, axis=1)  # see the kernel
        self._fact_value = self._fact.view(np.float32)
        self._partners = partners_of(schema.ids)
        self._genre = own.category_index[own.genre_start :]
        self._scale = np.float32(schema.scale)
        self._level_tables: dict[tuple[str, ...], tuple[Ints, Floats32]] = {}  # by the names that candidates have

    @classmethod
    def compile(cls, model: RewardModel, items: ItemTable, checks: int = 256) -> Scorer:
        """Dense tables of the model for these items.

        `checks` predictions, spread over items, contexts and rules, are compared with Vowpal Wabbit's. Raises
        BundleError where they differ by more than 1e-5, SchemaMismatch where item vectors have another dimension.
        """
        scorer = cls(model.schema, model.weights(), items, sorted(model.rules))
        if checks > 0 and len(items):
            difference = scorer.difference(model, np.arange(checks, dtype=np.int64))
            if not difference <= TOLERANCE:
                raise BundleError(f"compiled scores differ from the model's by {difference:.2g}; expected 1e-5 at most")
        return scorer

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels that it reads."""
        return self.schema.levels

    def score(
        self,
        context: Context,
        listener: Floats32,
        candidates: Candidates,
        position: tuple[int, int] = FIRST_SLOT,
        *,
        user_id: str = "",
    ) -> Floats:
        """[n] probabilities for the candidates of one visit, as if each stood at `position` (row, column)."""
        local = context.local_time
        day = int(context.at.timestamp()) // SECONDS_A_DAY
        code = (local.hour, 24 + local.weekday(), 31 + device_code(context.device))
        # One array for what is one number a page: making five takes longer.
        visit = np.array([*code, day, 0, len(candidates), 0, len(candidates.shelves)], dtype=np.int64)
        owner = np.array([one_listener(user_id) if self._partners else 0], dtype=np.uint64)
        return self._score(
            self._logits(
                visit[None, :3],
                visit[3:4],
                listener[None, :],
                visit[4:6],
                candidates.item,
                candidates.shelf,
                visit[6:],
                [shelf.rule for shelf in candidates.shelves],
                position,
                candidates.features,
                owner,
            )
        )

    def score_batch(self, batch: PageBatch, position: tuple[int, int] = FIRST_SLOT) -> Floats:
        """[N] probabilities for all candidates of many pages, as if each stood at `position` (row, column)."""
        code = context_code(batch.hour, batch.weekday, batch.device)
        return self._score(
            self._logits(
                code,
                batch.at_s // SECONDS_A_DAY,
                batch.listener,
                batch.offset,
                batch.item,
                batch.shelf,
                batch.shelf_offset,
                batch.rule.tolist(),
                position,
                batch.features,
                self._owner(batch.user_id),
            )
        )

    def _owner(self, user_id: Strings) -> Indices:
        return listener_index(user_id) if self._partners else np.zeros(len(user_id), dtype=np.uint64)

    def _score(self, logit: Floats) -> Floats:
        """Probabilities; with levels in the precision of Vowpal Wabbit, which a record keeps in half the bytes. Older
        models go on giving the very numbers that they gave."""
        exact = probability(logit)
        return exact.astype(np.float32).astype(np.float64) if self.schema.levels else exact

    def _levels_by(self, name: tuple[str, ...]) -> tuple[Ints, Floats32]:
        """Where each level that is read stands among the names that candidates have, and the weights [levels, LEVELS]
        of these, 0 where it does not stand: sums go in the schema's order, whatever that of the names."""
        found = self._level_tables.get(name)
        if found is None:
            place = {one: k for k, one in enumerate(name)}
            column = np.array([place.get(one, -1) for one in self.schema.levels if place], dtype=np.int64)
            table = np.where(column[:, None] < 0, np.float32(0.0), self._tables.level[: len(column)])
            found = self._level_tables[name] = np.maximum(column, 0), table
        return found

    def at_slots(self, score: Floats, row: Ints, column: Ints) -> Floats:
        """[m] probabilities of cards at their slots, from scores [m] at the first: no cross has a position."""
        shape = (int(row.max(initial=0)) + 1, int(column.max(initial=0)) + 1)
        first = self._tables.position(FIRST_SLOT)
        moved = np.array([[self._tables.position((r, c)) - first for c in range(shape[1])] for r in range(shape[0])])
        p = np.clip(score, np.finfo(np.float64).tiny, 1.0 - np.finfo(np.float64).eps)
        return probability(np.log(p) - np.log1p(-p) + moved[row, column])

    def contributions(
        self,
        context: Context,
        listener: Floats32,
        candidates: Candidates,
        card: int,
        position: tuple[int, int] = FIRST_SLOT,
        *,
        user_id: str = "",
    ) -> dict[str, float]:
        """Logits that the groups of features and their crosses add for candidate `card`; they sum to its logit."""
        if not 0 <= card < len(candidates):
            raise ValueError(f"card is {card}; expected a candidate in [0, {len(candidates)})")
        shelf = int(candidates.shelf[card])
        examples = build_examples(
            self._items,
            at_s=np.array([int(context.at.timestamp())]),
            hour=np.array([context.hour]),
            weekday=np.array([context.weekday]),
            device=np.array([device_code(context.device)]),
            listener=listener[None, :],
            page=np.zeros(1, dtype=np.int64),
            item=candidates.item[card : card + 1],
            rule=np.array([candidates.shelves[shelf].rule if shelf >= 0 else ""], dtype=object),
            row=np.array([position[0]]),
            column=np.array([position[1]]),
            features=None if candidates.features is None else candidates.features.take(np.array([card])),
            user_id=np.array([user_id], dtype=object),
        )
        return {name: float(value[0]) for name, value in group_logits(examples, self._weight).items()}

    def difference(self, model: RewardModel, sample: Ints) -> float:
        """Largest difference from the model's own predictions, over examples spelt out by the numbers in `sample`."""
        n, d = len(sample), self.schema.dimension
        rules = (*self.rules, "a rule never seen")
        stride = 2_654_435_761  # a prime: consecutive numbers land far apart
        item = sample * stride % len(self._items)
        listener = np.sin((sample % 100_003)[:, None] * (1.0 + np.arange(d)) + np.arange(d)).astype(np.float32)
        listener /= np.linalg.norm(listener, axis=1, keepdims=True)
        listener[sample % 17 == 16] = 0.0  # a listener of whom nothing is known
        at_s = (17_000 + sample % 3_000) * SECONDS_A_DAY
        hour, weekday, device = sample % 24, sample // 3 % 7, sample // 5 % 6
        rule = [rules[k] for k in (sample // 7 % len(rules)).tolist()]
        row, column = int(sample[0]) % 5, int(sample[0]) // 2 % 5
        one = np.arange(n + 1, dtype=np.int64)
        code = context_code(hour, weekday, device)
        shelf = np.zeros(n, dtype=np.int64)
        named = self.schema.levels
        level = (sample[:, None] * stride // 7 + 5 * np.arange(len(named)) * (sample[:, None] % 11)) % LEVELS
        features = CardFeatures(named, level.astype(np.uint8))
        day = at_s // SECONDS_A_DAY
        user = np.array([f"u{k % 1009}" for k in sample.tolist()], dtype=object)
        owner = self._owner(user)
        logit = self._logits(code, day, listener, one, item, shelf, one, rule, (row, column), features, owner)
        examples = build_examples(
            self._items,
            at_s=at_s,
            hour=hour,
            weekday=weekday,
            device=device,
            listener=listener,
            page=one[:-1],
            item=item,
            rule=np.array(rule, dtype=object),
            row=np.full(n, row),
            column=np.full(n, column),
            features=features,
            user_id=user,
        )
        return float(np.abs(probability(logit) - model.predict(examples)).max())

    def save(self, folder: Path) -> None:
        """Writes scorer.json and the weights that are not 0."""
        index = np.flatnonzero(self._weight).astype(np.int64)
        data = to_bytes({"index": index, "value": self._weight[index]})
        parameters = {
            "schema": self.schema.as_dict(),
            "schema_fingerprint": self.schema.fingerprint,
            "bits": len(self._weight).bit_length() - 1,
            "rules": list(self.rules),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        write_description(folder, self.name, parameters)
        (folder / WEIGHTS_FILE).write_bytes(data)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Scorer:
        """The scorer saved in `folder`, for the given items. Raises BundleError for files missing or altered."""
        parameters = read_description(folder)["parameters"]
        try:
            data = (folder / WEIGHTS_FILE).read_bytes()
            if hashlib.sha256(data).hexdigest() != parameters["sha256"]:
                raise BundleError(f"{folder / WEIGHTS_FILE} was altered: its sha256 is not the recorded one")
            schema = FeatureSchema.from_dict(parameters["schema"])
            if schema.fingerprint != parameters["schema_fingerprint"]:
                raise SchemaMismatch(f"{folder}: the schema is not the one the scorer was compiled with")
            arrays = from_bytes(data)
            weight = np.zeros(1 << int(parameters["bits"]), dtype=np.float32)
            weight[arrays["index"]] = arrays["value"]
            rules = tuple(parameters["rules"])
        except (OSError, KeyError, TypeError, IndexError, DataError) as error:
            raise BundleError(f"the scorer in {folder} cannot be read: {error}") from None
        return cls(schema, weight, items, rules)

    def _logits(
        self,
        page_context: Ints,
        page_day: Ints,
        listener: Floats32,
        offset: Ints,
        item: Ints,
        shelf: Ints,
        shelf_offset: Ints,
        rules: Sequence[str],
        position: tuple[int, int],
        known: CardFeatures | None,
        owner: Indices,
    ) -> Floats:
        from bart.reward.kernel import FINE, logits  # numba loads only where a page is scored

        tables, features = self._tables, self._items
        rule_row, rule_table, rule_index = self._rule_rows.of(rules)
        name = () if known is None else known.name
        level = np.empty((len(item), 0), dtype=np.uint8) if known is None else known.level
        if listener.shape[-1] != self.schema.dimension:
            check_listener(listener, self.schema)
        out = np.empty(len(item), dtype=np.float64)
        scaled = listener * self._scale
        fault = logits(
            page_context,
            page_day,
            scaled,
            offset,
            item,
            shelf,
            shelf_offset,
            rule_row,
            0,
            features.vector,
            self._fact,
            self._fact_value,
            self._age_edge,
            UNKNOWN_DAY,
            tables.position(position),
            tables.base,
            tables.listener,
            tables.context,
            rule_table,
            tables.full,
            tables.full_context,
            len(features.category),
            np.ascontiguousarray(level),
            *self._levels_by(name),
            owner,
            self._partners,
            rule_index,
            self._genre,
            features.genre_start,
            self._weight,
            _KNOWN_VALUE,
            out,
        )
        if fault >= 0:
            raise ValueError(
                f"item[{fault}] is {item[fault]}; expected a row in [0, {len(self._items)}) or -1 where unknown"
            )
        if fault < FINE:
            check_listener(scaled, self.schema)  # finite numbers may not be so once scaled: nothing was scored
        return out


SCORERS: dict[str, type[PriorScorer] | type[PopularityScorer] | type[Scorer]] = {
    PriorScorer.name: PriorScorer,
    PopularityScorer.name: PopularityScorer,
    Scorer.name: Scorer,
}


def load_scorer(folder: Path, items: ItemTable) -> StoredScorer:
    """The scorer of whatever kind was saved in `folder`. Raises BundleError where there is none or it was altered."""
    kind = read_description(folder)["kind"]
    if kind not in SCORERS:
        raise BundleError(f"scorer kind {kind!r} is unknown; expected one of {', '.join(SCORERS)}")
    return SCORERS[kind].load(folder, items)
