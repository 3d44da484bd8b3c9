"""How one page was drawn, in three numbers that add up over pages: cheap enough to be counted at every request."""

from __future__ import annotations

from dataclasses import dataclass

from bart.types import Decision


@dataclass(frozen=True, slots=True)
class PageChoices:
    """n: shelves and cards drawn among two or more. explored: of these, not the best that was left (or one that only
    chance could prefer). weight: the sum of 1 / (actions left x propensity), whose expectation is n."""

    n: int
    explored: int
    weight: float


def page_choices(decision: Decision, disjoint: bool = False) -> PageChoices:
    """The choices of an epsilon-greedy page; pins are no choices.

    Where items stand in several shelves, how many were left depends on the rows above: such a page counts nothing.
    disjoint: the caller knows that none does.
    """
    from api.service.choices_kernel import count_choices

    page = decision.page
    if not disjoint and len(set(decision.item_id.tolist())) < len(decision.item_id):
        return PageChoices(0, 0, 0.0)
    counted = count_choices(
        decision.shelf,
        len(decision.shelves),
        page.shelf,
        page.card,
        page.pinned,
        decision.shelf_epsilon,
        decision.card_epsilon,
        page.shelf_propensity,
        page.card_propensity,
    )
    return PageChoices(*counted)
