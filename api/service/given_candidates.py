"""Candidates, and perhaps scores, that a caller brings: for services that have a retrieval of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from api.wire.problems import ProblemError
from api.wire.schemas import GivenShelf
from bart.types import Candidates, Context, Floats, Floats32, ItemTable, Listener, PageBatch, Shelf
from bart.types.caller import caller_features, query_rule, same_query


@dataclass(frozen=True)
class GivenCandidates:
    """A candidate source and a scorer for one request. score: by (shelf, item row); empty where the model scores."""

    given: Candidates
    by_place: dict[tuple[int, int], float]

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:  # noqa: ARG002
        """What the caller brought, whoever asks."""
        return self.given

    def score(self, context: Context, listener: Floats32, candidates: Candidates, *, user_id: str = "") -> Floats:  # noqa: ARG002
        """[n] the caller's scores; 0 for a pin, which is held out of the draw."""
        places = zip(candidates.shelf.tolist(), candidates.item.tolist(), strict=True)
        return np.array([self.by_place.get(place, 0.0) for place in places], dtype=np.float64)

    def score_batch(self, batch: PageBatch) -> Floats:
        """[N] the scores that were recorded."""
        return batch.raw_score


def given_candidates(shelves: Sequence[GivenShelf], items: ItemTable) -> tuple[GivenCandidates, list[str]]:
    """The candidates of the shelves, and the ids that the batch does not hold, which are left out.

    Raises ProblemError where none is left.
    """
    item: list[int] = []
    number: list[int] = []
    score: dict[tuple[int, int], float] = {}
    unknown: dict[str, None] = {}
    words = []
    for shelf in shelves:
        words.append(Shelf(shelf.rule, shelf.title, shelf.explanation, shelf.rule))
        for i, (item_id, row) in enumerate(zip(shelf.items, items.rows(shelf.items).tolist(), strict=True)):
            if row < 0:
                unknown[item_id] = None
                continue
            item.append(row)
            number.append(len(words) - 1)
            if shelf.scores is not None:
                score[len(words) - 1, row] = shelf.scores[i]
    if not item:
        raise ProblemError(422, "No item is known", "shelves: expected item ids of this batch")
    candidates = Candidates(np.array(item, dtype=np.int64), np.array(number, dtype=np.int64), tuple(words))
    return GivenCandidates(candidates, score), list(unknown)


def search_results(given: GivenCandidates, query: str, *, told: bool) -> GivenCandidates:
    """The results of a query, in the caller's order: what the caller says of each is a feature of it, and the query is
    the explanation of all. told: whether the record has the words of the query too."""
    found, shelf = given.given, given.given.shelves[0]
    score = np.array([given.by_place[0, row] for row in found.item.tolist()], dtype=np.float64)
    words = (("query", same_query(query)),) if told else ()
    answers = Shelf(query_rule(query), shelf.title, shelf.explanation, shelf.rule, words)
    return GivenCandidates(Candidates(found.item, found.shelf, (answers,), caller_features(score)), given.by_place)
