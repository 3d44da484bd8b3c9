"""Where and how often items were shown lately, and what they earned: the latest pages, kept decoded.

Pages whose seed or time was set by hand, and shadows, are left out, as on the operator's page.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from api.upkeep.operating_figures import first_time
from bart.log.store.store import SELECT, StoredDecision
from bart.reward.rewards import reward_of
from bart.types import Bools, Decision, Floats, Ints, Strings

if TYPE_CHECKING:
    from api.service.service import HomeService

PAGES = 3000  # read, the latest
PERIODS = 12  # into which they are cut, of equally many pages
FRESH_S = 15.0  # the log is read that often at most


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The cards of one page: item [c] ids, rule [c] of their shelves, place: which slots [rows, columns] hold them."""

    item: Strings
    rule: Strings
    place: Bools
    forced: bool

    @classmethod
    def of(cls, decision: Decision) -> Shown:
        place = decision.page.card >= 0
        rules = np.array([decision.shelves[number].rule for number in decision.page.shelf.tolist()], dtype=object)
        rule = np.repeat(rules, place.sum(axis=1)) if len(rules) else rules
        return cls(decision.item_id[decision.page.card[place]], rule, place, decision.forced)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The cards of the latest pages: item, rule [c], page [c] (its number), seen [c], reward [c], 0 where not seen.
    at_us: [pages], the oldest first."""

    at_us: Ints
    item: Strings
    rule: Strings
    page: Ints
    seen: Bools
    reward: Floats

    def of(self, item_id: str) -> dict[str, Any]:
        """The exposure of one item: in all, over time, by the rule of the shelf that it stood on."""
        mine = np.flatnonzero(self.item == item_id)
        page, rule = self.page[mine], self.rule[mine]
        parts = [part for part in np.array_split(np.arange(len(self.at_us)), PERIODS) if len(part)]
        spans = [mine[(page >= part[0]) & (page <= part[-1])] for part in parts]
        by_rule = sorted(((name, mine[rule == name]) for name in set(rule.tolist())), key=lambda one: -len(one[1]))
        return {
            "pages": len(self.at_us),
            "since": first_time(self.at_us[:1]),
            "until": first_time(self.at_us[-1:]),
            **self._counts(mine),
            "periods": [
                {"since": first_time(self.at_us[part[:1]]), "pages": len(part), **self._counts(span)}
                for part, span in zip(parts, spans, strict=True)
            ],
            "shelves": [{"rule": name, **self._counts(cards)} for name, cards in by_rule],
        }

    def _counts(self, card: Ints) -> dict[str, Any]:
        seen = int(self.seen[card].sum())
        reward = float(self.reward[card].sum())
        return {"shown": len(card), "seen": seen, "reward": reward, "reward_rate": reward / seen if seen else None}


class Exposure:
    """The window of one process, read anew after `FRESH_S`; of pages that it has met it reads the outcomes alone."""

    def __init__(self, pages: int = PAGES) -> None:
        self._pages = pages
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._of: tuple[str, str] | None = None
        self._shown: dict[int, Shown] = {}
        self._window: Window | None = None

    def window(self, service: HomeService) -> Window:
        """Of the latest pages; read once for all who ask at the same time."""
        of = (service.run.bundle.batch_id, service.settings.reward.name)
        with self._lock:
            if self._window is None or self._of != of or time.monotonic() - self._read_at >= FRESH_S:
                self._window = self._read(service)
                self._read_at, self._of = time.monotonic(), of
            return self._window

    def _read(self, service: HomeService) -> Window:
        query = "SELECT seq, request_id, user_id, decided_us, shown, x'', x'' FROM decision ORDER BY seq DESC LIMIT ?"
        with service.log.reading() as connection:
            rows = [StoredDecision(*row) for row in connection.execute(query, (self._pages,))][::-1]
        known = {row.seq: self._shown[row.seq] for row in rows if row.seq in self._shown}
        for row in rows:
            if row.seq not in known:
                with service.log.reading() as connection:
                    found = connection.execute(f"{SELECT} WHERE seq = ?", (row.seq,)).fetchone()
                if found is not None:  # else erased meanwhile
                    known[row.seq] = Shown.of(StoredDecision(*found).decode())
        self._shown = known
        kept = [row for row in rows if row.seq in known and not known[row.seq].forced]
        shown = [known[row.seq] for row in kept]
        outcomes = service.log.join(kept)
        none = np.empty(0)

        def cards(name: str) -> Any:
            parts = [getattr(one, name)[page.place] for one, page in zip(outcomes, shown, strict=True)]
            return np.concatenate([none.astype(parts[0].dtype if parts else float), *parts])

        item = np.concatenate([none.astype(object), *(page.item for page in shown)])
        at = service.run.items.rows(item)
        duration_s = np.where(at >= 0, service.run.items.duration_s[at], np.nan) if len(at) else none
        seen = cards("seen").astype(np.bool_)
        saved = cards("saved").astype(np.bool_)
        return Window(
            at_us=np.array([row.decided_us for row in kept], dtype=np.int64),
            item=item,
            rule=np.concatenate([none.astype(object), *(page.rule for page in shown)]),
            page=np.repeat(np.arange(len(shown)), [len(page.item) for page in shown]),
            seen=seen,
            reward=reward_of(service.settings.reward.name, cards("listened_s"), duration_s, saved, seen),
        )
