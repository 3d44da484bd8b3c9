"""Candidates for one visit: every rule's shelves, each item in one of them.

Shelves are filled in order of specificity (ties in an order drawn from the visit's stream), each with the best items
that no earlier one holds, so the same listener, context and stream give the same candidates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, compress
from pathlib import Path

import numpy as np
import pyarrow as pa

from bart.errors import BundleError
from bart.types import Candidates, Context, Floats32, Ints, ItemTable, Listener, Shelf
from recommender.shelves.rules import EditorialList, Lookups, ShelfInputs, ShelfRule, installed_rules
from recommender.shelves.tables import ShelfTables, TableConfig, alone_vectors, build_tables
from recommender.vectors.index import ItemIndex, build_index
from recommender.vectors.sentences import Sentences, sentences_of_events
from recommender.vectors.track import container_vectors

CONFIG_FILE = "candidates.json"
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class CandidateConfig:
    """per_shelf: cards of a shelf at most. least: a shelf with fewer is not offered."""

    per_shelf: int = 50
    least: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.per_shelf:
            raise ValueError(f"least is {self.least}, per_shelf {self.per_shelf}; expected 1 <= least <= per_shelf")


class ShelfCandidates:
    """A `bart.types.CandidateSource` that runs a table of shelf rules."""

    def __init__(
        self,
        items: ItemTable,
        tables: ShelfTables,
        index: ItemIndex,
        rules: Mapping[str, ShelfRule] | None = None,
        config: CandidateConfig | None = None,
    ) -> None:
        if tables.neighbours.shape[0] != len(items):
            raise BundleError(f"shelf tables are of {tables.neighbours.shape[0]} items; expected {len(items)}")
        if index.dimension != items.dimension:
            raise BundleError(f"the index has {index.dimension} dimensions; expected {items.dimension}")
        self.rules = installed_rules() if rules is None else dict(rules)
        if not self.rules:
            raise ValueError("rules is empty; expected at least one shelf rule")
        self.config = config or CandidateConfig()
        self.items, self.tables, self.index = items, tables, index
        self._lookups = Lookups.of(items, tables, index)

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:
        """Cards by shelf, best first in each; an item that rests for this listener stands in none."""
        listener = _of_table(listener, len(self.items))
        # Twice as many as are kept: more specific shelves take some, and those that rest are passed over.
        inputs = ShelfInputs.of(listener, context, self._lookups, 2 * self.config.per_shelf, rng)
        proposed: list[tuple[int, Shelf, Ints]] = [
            (rule.specificity, shelf, row) for rule in self.rules.values() for shelf, row in rule.propose(inputs)
        ]
        draw = rng.random(len(proposed)).tolist()
        order = sorted(range(len(proposed)), key=lambda i: (proposed[i][0], draw[i]))
        return self._filled([proposed[i][1] for i in order], [proposed[i][2] for i in order], listener.rested)

    def _filled(self, shelves: list[Shelf], proposed: list[Ints], rested: Ints) -> Candidates:
        """The candidates of shelves that are filled in the given order."""
        from recommender.shelves.candidates_kernel import fill_shelves  # numba loads only where pages are decided

        n_items = len(self.items)
        row = np.concatenate([_NONE, *proposed])
        offset = np.array([0, *accumulate(map(len, proposed))], dtype=np.int64)
        item, number, size = np.empty_like(row), np.empty_like(row), np.empty(len(shelves), dtype=np.int64)
        n = fill_shelves(row, offset, rested, n_items, self.config.per_shelf, self.config.least, item, number, size)
        if n < 0:
            i = next(i for i, rows in enumerate(proposed) if len(rows) and not 0 <= rows.min() <= rows.max() < n_items)
            raise ValueError(f"shelf {shelves[i].title!r} proposes rows that are not in [0, {n_items}), those of items")
        return Candidates(item[:n], number[:n], tuple(compress(shelves, size.tolist())))

    def save(self, folder: Path) -> None:
        """Writes the index, the tables, and the rules' names and ranks; editorial lists with their ids."""
        self.index.save(folder)
        self.tables.save(folder)
        written = {
            "config": asdict(self.config),
            "rules": {name: rule.specificity for name, rule in self.rules.items()},
            "editorial": {
                name: asdict(rule.propose)
                for name, rule in self.rules.items()
                if isinstance(rule.propose, EditorialList)
            },
        }
        (folder / CONFIG_FILE).write_text(json.dumps(written, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, items: ItemTable, rules: Mapping[str, ShelfRule] | None = None) -> ShelfCandidates:
        """Reads what `save` wrote. rules: functions of the user's own, by the names they were saved under.

        Those of installed packages need not be given. Raises BundleError for a missing or altered file, or a rule whose
        function is not given.
        """
        config, table = saved_rules(folder, rules)
        return cls(items, ShelfTables.load(folder), ItemIndex.load(folder), table, config)


def saved_rules(
    folder: Path, rules: Mapping[str, ShelfRule] | None = None
) -> tuple[CandidateConfig, dict[str, ShelfRule]]:
    """Configuration and rules that `ShelfCandidates.save` wrote, editorial lists included.

    rules: functions of the user's own, by name. Raises BundleError as `ShelfCandidates.load` does.
    """
    try:
        written = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        known = {**installed_rules(), **(rules or {})}
        for name, fields in written["editorial"].items():
            fields = {**fields, "item_ids": tuple(fields["item_ids"])}
            known[name] = ShelfRule(EditorialList(**fields), written["rules"][name])
        missing = [name for name in written["rules"] if name not in known]
        if missing:
            raise BundleError(f"{folder} uses the shelf rule {missing[0]!r}; pass it in `rules`")
        table = {name: ShelfRule(known[name].propose, rank) for name, rank in written["rules"].items()}
        config = CandidateConfig(**written["config"])
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder} holds no readable candidates: {error!r}") from error
    return config, table


def _of_table(listener: Listener, n_items: int) -> Listener:
    """The listener without rows of items that came after this table: another process may serve them already, or their
    publication was rolled back."""
    recent, favourite = listener.recent, listener.favourite
    if any(len(rows) and rows.max() >= n_items for rows in (recent, favourite)):
        return replace(listener, recent=recent[recent < n_items], favourite=favourite[favourite < n_items])
    return listener


def build_candidates(
    items: ItemTable,
    events: pa.Table,
    rng: np.random.Generator,
    *,
    rules: Mapping[str, ShelfRule] | None = None,
    config: CandidateConfig | None = None,
    tables: TableConfig | None = None,
    index_kind: str = "auto",
) -> ShelfCandidates:
    """The candidate source of a batch: its index, its tables, its rules.

    items: with vectors; events: the event table; index_kind: as in `build_index`, whose recall is measured at
    sessions' vectors where there are a hundred of them.
    """
    config = config or CandidateConfig()
    asked = session_vectors(items, events, 500, rng)
    index = build_index(alone_vectors(items), kind=index_kind, queries=asked if len(asked) >= 100 else None, rng=rng)
    tables = tables or TableConfig(pool=max(300, 4 * config.per_shelf), neighbours=config.per_shelf + 14)
    return ShelfCandidates(items, build_tables(items, events, index, rng, tables), index, rules, config)


def session_vectors(items: ItemTable, events: pa.Table, n: int, rng: np.random.Generator) -> Floats32:
    """Unit mean vectors of n sessions of the events at most, [<= n, d]: what the listener's vector predicts."""
    sessions = sentences_of_events(events, items.row_of)
    chosen = np.sort(rng.permutation(len(sessions))[:n])
    size = np.diff(sessions.offset)[chosen]
    offset = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    place = np.arange(offset[-1]) - np.repeat(offset[:-1], size) + np.repeat(sessions.offset[chosen], size)
    mean = container_vectors(items.vector, Sentences(sessions.row[place], offset))
    return mean[mean.any(axis=1)]
