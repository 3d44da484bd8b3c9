"""Decided pages as JSON bytes: titles and explanations; scores and propensities only where they are asked for."""

from __future__ import annotations

from typing import Any

import orjson

from api.wire.covers import NO_COVERS, Covers
from bart.types import ITEM_TYPES, Decision, ItemTable

MOST_CARDS = 200_000  # fragments kept, a few hundred bytes each


class PageWriter:
    """Writes pages of one item table; the JSON of a card is made once and kept."""

    def __init__(self, items: ItemTable, covers: Covers | None = None) -> None:
        self._items = items
        self.covers = covers or NO_COVERS
        self._card: dict[str, orjson.Fragment] = {}

    def page(self, decision: Decision, unknown: list[str] | None = None, debug: bool = False) -> bytes:
        """{"request_id", "batch_id", "shelves": [{"title", "key", "parameters", "explanation", "cards"}]}.

        unknown: item ids that the caller brought and that were left out; they are named where it brought any items.
        debug: add the numbers of the record, see `_add_numbers`.
        """
        page = decision.page
        shelves = []
        known = self._card
        item_id = decision.item_id[page.card].tolist()  # of a tenth of the candidates
        for number, row, names in zip(page.shelf.tolist(), page.card.tolist(), item_id, strict=True):
            shelf = decision.shelves[number]
            ids = [name for candidate, name in zip(row, names, strict=True) if candidate >= 0]
            shelves.append(
                {
                    "title": shelf.title,
                    "key": shelf.key,
                    "parameters": dict(shelf.parameters),
                    "explanation": shelf.explanation,
                    "cards": [known.get(card) or self.card(card) for card in ids],
                }
            )
        document: dict[str, Any] = {
            "request_id": decision.request_id,
            "batch_id": decision.batch_id,
            "shelves": shelves,
        }
        if unknown is not None:
            document["unknown"] = unknown
        if debug:
            self._add_numbers(document, decision)
        return orjson.dumps(document)

    def _add_numbers(self, document: dict[str, Any], decision: Decision) -> None:
        """What was recorded of this draw: `score` (drawn from), `raw_score` (of the reward model), `propensity` and
        `pinned` of each card, `propensity` of each shelf, and under `debug` what belongs to the page."""
        page = decision.page
        for row, shelf in enumerate(document["shelves"]):
            places = [column for column, candidate in enumerate(page.card[row].tolist()) if candidate >= 0]
            shelf["propensity"] = float(page.shelf_propensity[row])
            shelf["cards"] = [
                {
                    **self.facts(decision.item_id[page.card[row, column]]),
                    "score": float(decision.score[page.card[row, column]]),
                    "raw_score": float(decision.raw_score[page.card[row, column]]),
                    "propensity": float(page.card_propensity[row, column]),
                    "pinned": bool(page.pinned[row, column]),
                }
                for column in places
            ]
        document["debug"] = {
            "model_id": decision.model_id,
            "arm": decision.arm,
            "forced": decision.forced,
            "policy": decision.policy,
            "rules_version": decision.rules_version,
            "candidates": len(decision.item_id),
            "shelf_epsilon": decision.shelf_epsilon.tolist(),
            "card_epsilon": decision.card_epsilon.tolist(),
            "propensity": page.propensity,
        }

    def card(self, item_id: str) -> orjson.Fragment:
        """The JSON of one card."""
        found = self._card.get(item_id)
        if found is None:
            if len(self._card) >= MOST_CARDS:
                self._card = {}  # a new one: other threads may be reading the old
            found = self._card[item_id] = orjson.Fragment(orjson.dumps(self.facts(item_id)))
        return found

    def facts(self, item_id: str) -> dict[str, Any]:
        """What is known of an item; of one that this batch does not hold (an old page, asked for again), its id."""
        items = self._items
        row = items.row_of.get(item_id)
        if row is None:
            return {"item_id": item_id, "title": item_id, "type": "", "artists": []}
        return {
            "item_id": item_id,
            "title": items.title[row],
            "type": ITEM_TYPES[items.type[row]],
            "artists": items.artists[row],
            **self._place(row),
        }

    def _place(self, row: int) -> dict[str, Any]:
        """Titles of the album and the show that hold an item, how many items it holds itself; what there is of it."""
        items, out = self._items, dict[str, Any]()
        for holder in items.held_by[row].tolist():
            kind = ITEM_TYPES[items.type[holder]]
            if kind in ("album", "show"):
                out.setdefault(kind, items.title[holder])
        if items.is_container[row]:
            out["members"] = len(items.members[row])
        return {**out, **self.covers.fact(items, row)}
