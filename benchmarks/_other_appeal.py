"""Appeal of other forms than the world's own: a tree over attributes, near neighbours of what is loved, quality that
changes with time. Drawn from a seed, and written before any reward model was tried on them.

Each gives [m], how much candidates would be streamed if they were examined, in logits but for their level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from bart.types import Floats, Ints, PageBatch, Strings
from simulator.world.world import World

DEPTH = 6  # of the tree
LOVED = 12  # tracks of a listener
_DAY_S = 86_400.0
_CHUNK = 50_000


@dataclass(frozen=True)
class Candidates:
    """m candidates of visits: listener, item [m] rows of the world, rule, hour, device and at_s [m]; taste [m, K], the
    cosine to each interest."""

    listener: Ints
    item: Ints
    rule: Strings
    hour: Ints
    device: Ints
    at_s: Ints
    taste: Floats

    @classmethod
    def of(cls, world: World, pages: PageBatch, candidate: Ints, item_id: Strings) -> Candidates:
        """Those numbered `candidate` [m] of all of the pages."""
        page = np.searchsorted(pages.offset, candidate, side="right") - 1
        used, inverse = np.unique(pages.item[candidate], return_inverse=True)
        item = world.row_of(item_id[used])[inverse]
        listener = np.asarray(world.listener_of(pages.user_id), dtype=np.int64)[page]
        rule = pages.rule[pages.shelf_offset[page] + pages.shelf[candidate]]
        taste = cosine(world.population.interest, listener, world, item)
        return cls(listener, item, rule, pages.hour[page], pages.device[page], pages.at_s[page], taste)


def cosine(vector: Floats, listener: Ints, world: World, item: Ints) -> Floats:
    """[m, K] of tracks with vectors [listeners, K, d]."""
    out = np.empty((len(item), vector.shape[1]))
    for start in range(0, len(item), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = np.einsum("nkd,nd->nk", vector[listener[part]], world.catalogue.vector[item[part]], optimize=True)
    return out


def tree(world: World, x: Candidates, rng: np.random.Generator) -> Floats:
    """A full tree: each node asks whether one attribute of listener, moment, explanation or track is above a bound."""
    p, catalogue = world.population, world.catalogue
    _, rule = np.unique(x.rule.astype(str), return_inverse=True)
    attribute = (
        x.taste.max(axis=1),
        x.taste.mean(axis=1),
        catalogue.popularity[x.item],
        np.abs(catalogue.popularity[x.item] - p.wished_popularity[x.listener]),
        catalogue.released_at[x.item].astype(np.int64).astype(np.float64),
        catalogue.cluster_genre[catalogue.cluster[x.item]].astype(np.float64),
        rule.astype(np.float64),
        x.hour.astype(np.float64),
        x.device.astype(np.float64),
        p.kind[x.listener].astype(np.float64),
        p.repeat[x.listener],
    )
    table, node = np.stack(attribute, axis=1), np.zeros(len(x.item), dtype=np.int64)
    for depth in range(DEPTH):
        asked, share = rng.integers(0, table.shape[1], 2**depth), rng.uniform(0.25, 0.75, 2**depth)
        bound = np.array([np.quantile(table[:, a], s) for a, s in zip(asked.tolist(), share.tolist(), strict=True)])
        node = 2 * node + (table[np.arange(len(table)), asked[node]] > bound[node])
    leaf: Floats = rng.normal(0.0, 1.2, 2**DEPTH)[node]
    return leaf


def neighbours(world: World, x: Candidates, rng: np.random.Generator) -> Floats:
    """How near the nearest of the listener's loved tracks stands: some close to the interests, two anywhere."""
    p, catalogue = world.population, world.catalogue
    some = rng.choice(len(catalogue), min(3_000, len(catalogue)), replace=False)
    near = np.einsum("lkd,nd->lkn", p.interest, catalogue.vector[some], optimize=True)
    close = np.argsort(-near, axis=2)[:, :, :40].reshape(len(p), -1)
    loved = some[rng.permuted(close, axis=1)[:, :LOVED]]
    loved[:, -2:] = rng.integers(0, len(catalogue), (len(p), 2))
    nearest = cosine(catalogue.vector[loved], x.listener, world, x.item).max(axis=1)
    out: Floats = 4.0 * np.exp(-(1.0 - nearest) / 0.2)
    return out


def changing(world: World, x: Candidates, rng: np.random.Generator) -> Floats:
    """Taste and popularity, and a quality of each track that comes and goes within days to weeks."""
    n = len(world.catalogue)
    period_d, phase, size = rng.uniform(4.0, 40.0, n), rng.uniform(0.0, 2.0 * np.pi, n), rng.gamma(2.0, 0.5, n)
    quality = size[x.item] * np.sin(2.0 * np.pi * x.at_s / _DAY_S / period_d[x.item] + phase[x.item])
    out: Floats = 2.5 * x.taste.max(axis=1) + 0.7 * world.catalogue.popularity[x.item] + quality
    return out


APPEALS: Mapping[str, Callable[[World, Candidates, np.random.Generator], Floats]] = {
    "tree": tree,
    "neighbours": neighbours,
    "changing quality": changing,
}


def appeal_of(name: str, world: World, x: Candidates, mean: float, seed: int) -> Floats:
    """[m] probabilities whose mean is `mean`."""
    value = APPEALS[name](world, x, np.random.default_rng([seed, list(APPEALS).index(name)]))
    level = float(logit(mean))
    for _ in range(30):
        level += float(logit(mean) - logit(expit(value + level).mean()))
    out: Floats = expit(value + level)
    return out
