"""A decided page to be read by people: shelves and cards by name, with the scores and propensities of the draw."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from bart.types import Decision, Floats, ItemTable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 120  # columns of the text


@dataclass(frozen=True, slots=True)
class ShownCard:
    """A card of a page. score: drawn by. propensity: given the cards before it. pinned: it was not drawn."""

    item_id: str
    title: str
    artists: tuple[str, ...]
    score: float
    propensity: float
    pinned: bool


@dataclass(frozen=True, slots=True)
class ShownShelf:
    """A row of a page. propensity: given the shelves before it."""

    title: str
    explanation: str
    propensity: float
    cards: tuple[ShownCard, ...]


@dataclass(frozen=True, eq=False, repr=False)
class ShownPage:
    """What a decision shows, from the first shelf and card on. known: whether the listener is."""

    decision: Decision
    shelves: tuple[ShownShelf, ...]
    known: bool = True

    @property
    def cards(self) -> tuple[ShownCard, ...]:
        """All cards, shelf by shelf."""
        return tuple(card for shelf in self.shelves for card in shelf.cards)

    @property
    def propensities(self) -> Floats:
        """[rows, columns] of each card given those before it, NaN where none stands."""
        return self.decision.page.card_propensity

    def table(self) -> Table:
        """For a terminal: a line for each shelf and each card."""
        from rich.table import Table
        from rich.text import Text

        made = self.decision
        size = f"{len(self.shelves)} shelves, {len(self.cards)} of {len(made.item_id)} candidates"
        who = made.user_id if self.known else f"{made.user_id}, who is unknown here"
        title = f"{who}: {size}; model {made.model_id[:8] or 'none'}, seed {made.seed}"
        table = Table(title=Text(title), title_justify="left", box=None)
        for name in ("shelf", "card", "score", "propensity"):
            table.add_column(name, justify="left" if name in ("shelf", "card") else "right", overflow="fold")
        for shelf in self.shelves:
            table.add_row(
                Text(shelf.title), Text(shelf.explanation, "dim"), "", f"{shelf.propensity:.4f}", style="bold"
            )
            for card in shelf.cards:
                named = " - ".join([card.title or card.item_id, *card.artists[:1]])
                propensity = "pinned" if card.pinned else f"{card.propensity:.4f}"
                table.add_row("", Text(named), f"{card.score:.4f}", propensity)
        return table

    def __repr__(self) -> str:
        return self._written()[0]

    def _repr_html_(self) -> str:
        return self._written()[1]

    def _written(self) -> tuple[str, str]:
        """The table as text and as HTML."""
        from rich.console import Console

        screen: Console = Console(file=StringIO(), width=WIDTH, record=True, highlight=False)
        screen.print(self.table())
        html = screen.export_html(inline_styles=True, code_format="<pre>{code}</pre>", clear=False)
        return screen.export_text(), html


def shown(decision: Decision, items: ItemTable, *, known: bool = True) -> ShownPage:
    """The page of a decision, its cards named from `items`; one that they do not hold is named by its id."""
    page, shelves = decision.page, []
    for row, number in enumerate(page.shelf.tolist()):
        cards = []
        for column, candidate in enumerate(page.card[row].tolist()):
            if candidate < 0:
                continue
            item_id = str(decision.item_id[candidate])
            place = items.row_of.get(item_id)
            cards.append(
                ShownCard(
                    item_id=item_id,
                    title=item_id if place is None else items.title[place],
                    artists=() if place is None else items.artists[place],
                    score=float(decision.score[candidate]),
                    propensity=float(page.card_propensity[row, column]),
                    pinned=bool(page.pinned[row, column]),
                )
            )
        shelf = decision.shelves[number]
        shelves.append(ShownShelf(shelf.title, shelf.explanation, float(page.shelf_propensity[row]), tuple(cards)))
    return ShownPage(decision, tuple(shelves), known)
