"""Vectors of all items of a batch: learnt, expected from artist and genre, and of containers the mean of members."""

from __future__ import annotations

from bart.types import Floats32, ItemTable
from recommender.vectors.content import fill_vectors
from recommender.vectors.sentences import Sentences
from recommender.vectors.track import container_vectors


def complete_vectors(items: ItemTable) -> Floats32:
    """[n, d]: items without a vector have what their artists and genres let expect, containers the unit mean of their
    members, whatever stood there before.
    """
    return with_container_vectors(items, fill_vectors(items))


def with_container_vectors(items: ItemTable, vector: Floats32) -> Floats32:
    """The vectors [n, d] with those of containers made anew from their members."""
    if not items.is_container.any():
        return vector
    size = len(items.members.offset) - 1
    made = container_vectors(vector, Sentences(items.members.row, items.members.offset))
    out = vector.copy()
    holds = items.is_container[:size]
    out[:size][holds] = made[holds]
    return out
