"""How one page was drawn, in sums that add up over pages: cheap enough to be counted at every request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from bart.types import Decision, Floats


@dataclass(frozen=True, slots=True)
class PageChoices:
    """n: shelves and cards drawn among two or more. explored: of these, not the best that was left (or one that only
    chance could prefer).

    What recorded propensities promise, beside what was drawn; the difference over the square root of the variance is a
    standard normal number where they are right:
    weight: the sum of 1 / (actions left x propensity). greedy: choices that are the best of what was left; epsilons
    recorded wrongly show here. tie_place: where among equal best ones the choice stood, in (0, 1); ties that are not
    shared show here, and nowhere else.
    """

    n: int = 0
    explored: int = 0
    weight: float = 0.0
    weight_expected: float = 0.0
    weight_variance: float = 0.0
    greedy: int = 0
    greedy_expected: float = 0.0
    greedy_variance: float = 0.0
    tie_place: float = 0.0
    tie_expected: float = 0.0
    tie_variance: float = 0.0

    def errors(self) -> dict[str, float]:
        """Standard errors between drawn and promised, by name; 0 where nothing could vary."""
        out = {}
        for name, found in (("weight", self.weight), ("greedy", float(self.greedy)), ("tie", self.tie_place)):
            variance = getattr(self, f"{name}_variance")
            out[name] = (found - getattr(self, f"{name}_expected")) / variance**0.5 if variance > 0 else 0.0
        return out


def summed(parts: Iterable[PageChoices]) -> PageChoices:
    """The sums of several pages."""
    every = list(parts)
    return PageChoices(*(sum(getattr(part, f.name) for part in every) for f in fields(PageChoices)))


def page_choices(decision: Decision, disjoint: bool = False) -> PageChoices:
    """The choices of an epsilon-greedy page; pins are no choices.

    Where items stand in several shelves, how many were left depends on the rows above: such a page counts nothing, as
    one of another policy does. disjoint: the caller knows that none does.
    """
    sums = choice_sums(decision, disjoint)
    return PageChoices() if sums is None else as_choices(sums)


def choice_sums(decision: Decision, disjoint: bool = False) -> Floats | None:
    """[11] `page_choices` in the order of its fields; None for a page that counts nothing."""
    from api.metrics.choices_kernel import count_choices

    page = decision.page
    shared = not disjoint and len(set(decision.item_id.tolist())) < len(decision.item_id)
    if shared or decision.policy != "epsilon_greedy":
        return None
    sums: Floats = count_choices(
        decision.shelf,
        len(decision.shelves),
        page.shelf,
        page.card,
        page.pinned,
        decision.shelf_epsilon,
        decision.card_epsilon,
        page.shelf_propensity,
        page.card_propensity,
        decision.score,
        decision.raw_score,
    )
    return sums


def as_choices(sums: Floats) -> PageChoices:
    """Sums [11] by name."""
    n, explored, weight, expected, variance, greedy, *rest = sums.tolist()
    return PageChoices(int(n), int(explored), weight, expected, variance, int(greedy), *rest)
