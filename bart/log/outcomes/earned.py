"""What the cards of one page earned, by a reward's name."""

from __future__ import annotations

import numpy as np

from bart.log.record.feedback import PageFeedback
from bart.reward.rewards import reward_of
from bart.types import Decision, Floats, ItemTable


def page_reward(decision: Decision, feedback: PageFeedback, items: ItemTable, reward: str) -> Floats:
    """[rows, columns], 0 where no card was seen. items: give the lengths; unknown for an item that is not there."""
    card, shown = decision.page.card, decision.page.shown
    duration_s = np.full(card.shape, np.nan)
    row = items.rows(decision.item_id[card[shown]])
    duration_s[shown] = np.append(items.duration_s, np.nan)[row]  # -1: the last, unknown
    return reward_of(reward, feedback.listened_s, duration_s, feedback.saved, feedback.seen)
