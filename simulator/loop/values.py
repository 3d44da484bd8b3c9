"""What the policies of one round are worth on its visits, side by side on shared randomness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bart.page.exploration import Exploration
from bart.reward.baselines import PopularityScorer
from bart.types import Bools, Floats, Ints, PageBatch
from simulator.loop.rounds import Offers, decide, patience_of
from simulator.loop.service import Service
from simulator.loop.truth import page_values
from simulator.reading.browsing import BrowsingParams
from simulator.world.appeal import batch_appeal


@dataclass(frozen=True, eq=False)
class Judge:
    """Values of policies on given offers, by visit. variates [k, b, rows, 1 + columns]: k draws, for all policies."""

    service: Service
    offers: Offers
    browsing: BrowsingParams
    variates: Floats

    @cached_property
    def appeal(self) -> Floats:
        """[N] true P(stream | examined) of all candidates."""
        return batch_appeal(self.service.world, self.offers.pages, self.service.items.item_id)

    @cached_property
    def listener(self) -> Ints:
        """[b] whose visit it is."""
        return self.service.world.listener_of(self.offers.pages.user_id)

    def values(self, score: Floats, exploration: Exploration) -> Floats:
        """[b] expected streams of each displayed page under epsilon-greedy by `score` [N], the mean over the draws."""
        patience = patience_of(self.service.world, self.offers.pages)
        fixed = exploration.default == 0.0 and not exploration.table and not exploration.adapt
        total = np.zeros(len(self.offers))
        draws = self.variates[:1] if fixed else self.variates
        for uniform in draws:
            pages = decide(self.offers, score, exploration, variates=uniform)
            total += page_values(self.appeal, pages.offset, pages.card, self.browsing, patience=patience)
        out: Floats = total / len(draws)
        return out

    @cached_property
    def random(self) -> Floats:
        """[b] of a page that is any page."""
        return self.values(np.zeros(len(self.appeal)), Exploration.fixed(1.0))

    @cached_property
    def popularity(self) -> Floats:
        """[b] of the greedy page by popularity."""
        return self.values(PopularityScorer(self.service.items).score_batch(self.offers.pages), Exploration.fixed(0.0))

    @cached_property
    def true_score(self) -> Floats:
        """[b] of the greedy page by the true appeal."""
        return self.values(self.appeal, Exploration.fixed(0.0))

    def groups(self, groups: Mapping[str, Bools], greedy: Floats) -> dict[str, dict[str, float]]:
        """Mean values in groups of visits."""
        each = {"greedy": greedy, "random": self.random, "popularity": self.popularity, "true_score": self.true_score}
        return {
            name: {"visits": float(mask.sum()), **{k: float(v[mask].mean()) for k, v in each.items()}}
            for name, mask in groups.items()
            if mask.any()
        }


@dataclass(eq=False)
class Discovery:
    """Which artists, albums, playlists and shows each listener has met, on one policy's pages or before them."""

    service: Service
    heard: Ints

    def share(self, pages: PageBatch) -> tuple[float, float]:
        """Shares of the streams on these pages that were of what is new to the listener, and of unheard items.

        NaN without a stream. What was streamed is known from then on, within these pages as well.
        """
        page, row, column = np.nonzero((pages.reward > 0) & pages.seen)
        if len(page) == 0:
            return float("nan"), float("nan")
        item = pages.item[pages.offset[page] + pages.card[page, row, column]]
        key = self.service.novelty_key(self.service.world.listener_of(pages.user_id)[page], item)
        first = np.zeros(len(key), dtype=np.bool_)
        first[np.unique(key, return_index=True)[1]] = True
        new = first & ~np.isin(key, self.heard)
        self.heard = np.union1d(self.heard, key)
        unheard = self.service.unheard[item].mean() if len(self.service.unheard) else 0.0
        return float(new.mean()), float(unheard)
