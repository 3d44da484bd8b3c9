"""A world fitted on real interactions: KuaiRand's pages, with a taste model as the truth.

What was watched and not rated is not in the data, so users of this world go on less often than those of a whole feed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bart.types import Bools, Floats, Ints
from simulator.datasets.kuairand.fit import ReadingFit, TasteConfig, TasteModel, fit_reading, fit_taste
from simulator.datasets.kuairand.log import read_kuairand
from simulator.reading.browsing import BrowsingParams, Feedback, browse, page_value


@dataclass(frozen=True, eq=False)
class KuaiRandWorld:
    """Users, videos and the fitted truth about them: P(long view) of any video for any user, and how pages are read.

    browsing: the way of reading; its row and column trust come from the same fit as the taste. patience [users]: what
    is expected of each user's own, given how often they went on.
    """

    browsing: BrowsingParams
    patience: Floats
    taste: TasteModel
    reading: ReadingFit
    user_id: Ints
    video_id: Ints

    @property
    def n_users(self) -> int:
        return len(self.user_id)

    @property
    def n_videos(self) -> int:
        return len(self.video_id)

    def appeal(self, user: Ints, video: Ints) -> Floats:
        """P(long view | seen in the first slot), of any shape. user, video: numbers below n_users, n_videos."""
        return self.taste.appeal(user, video)

    def value(self, user: Ints, card: Ints) -> Floats:
        """[b] expected long views of each displayed page, exactly. user [b]; card [b, rows, columns], -1 where none."""
        likes, present = self._on_page(user, card)
        return page_value(likes, present, self.browsing, patience=self.patience[user])

    def browse(self, user: Ints, card: Ints, rng: np.random.Generator) -> Feedback:
        """What the users do with these pages; shapes as in `value`."""
        likes, present = self._on_page(user, card)
        return browse(likes, present, self.browsing, rng, patience=self.patience[user])

    def _on_page(self, user: Ints, card: Ints) -> tuple[Floats, Bools]:
        present = card >= 0
        likes = self.appeal(user[:, None, None], np.where(present, card, 0))
        return np.where(present, likes, 0.0), present


def kuairand_world(file: Path, config: TasteConfig | None = None) -> KuaiRandWorld:
    """The world fitted on all rows of `file`; the same file gives the same world."""
    log = read_kuairand(file)
    taste, reading = fit_taste(log, config or TasteConfig()), fit_reading(log)
    browsing = BrowsingParams(
        "KUAIRAND",
        hc0=reading.value["hc0"],
        hc1=reading.value["hc1"],
        hr0=reading.value["hr0"],
        hr1=reading.value["hr1"],
        column_trust=taste.column_trust,
        row_trust=taste.row_trust,
        patience=reading.value["patience"],
        usual=float(log.long_view.mean()),
    )
    return KuaiRandWorld(browsing, reading.patience, taste, reading, log.user_id, log.video_id)
