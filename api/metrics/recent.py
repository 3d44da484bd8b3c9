"""What the latest pages of a log earned: for metrics, and for the guard over the model that serves."""

from __future__ import annotations

from dataclasses import dataclass

from bart.log.decision_log import DecisionLog
from bart.log.outcomes.earned import page_reward
from bart.log.store.store import SELECT, StoredDecision
from bart.types import ItemTable


@dataclass(frozen=True, slots=True)
class Recent:
    """pages: looked at. empty: of them, without a card. reported: of them, with a card that was seen. seen: such cards.
    reward, predicted: their rewards and scores, summed."""

    pages: int
    empty: int
    reported: int
    seen: int
    reward: float
    predicted: float

    @property
    def reward_rate(self) -> float:
        """Reward a seen card; NaN without any."""
        return self.reward / self.seen if self.seen else float("nan")

    @property
    def predicted_rate(self) -> float:
        """Mean score of the same cards; NaN without any."""
        return self.predicted / self.seen if self.seen else float("nan")

    @property
    def empty_share(self) -> float:
        """Share of pages without a card; 0 without any page."""
        return self.empty / self.pages if self.pages else 0.0


def recent(log: DecisionLog, items: ItemTable, reward: str, pages: int, model_id: str | None = None) -> Recent:
    """Over the latest pages that were drawn by the policy itself; model_id: only of these, those that it decided."""
    with log.reading() as connection:
        query = f"{SELECT} ORDER BY seq DESC LIMIT ?"
        rows = [StoredDecision(*row) for row in connection.execute(query, (pages,))]
    found = empty = reported = seen = 0
    total = predicted = 0.0
    for row, feedback in zip(rows, log.join(rows), strict=True):
        decision = row.decode()
        if decision.forced or model_id not in (None, decision.model_id):
            continue
        found += 1
        empty += not decision.page.shown.any()
        if not feedback.seen.any():
            continue
        reported += 1
        card = decision.page.card
        value = page_reward(decision, feedback, items, reward)
        seen += int(feedback.seen.sum())
        total += float(value.sum())
        predicted += float(decision.raw_score[card[feedback.seen]].sum())
    return Recent(found, empty, reported, seen, total, predicted)
