"""What a listener asks for: what must not be shown, whom they follow, what may be made of their listening."""

from __future__ import annotations

from dataclasses import dataclass

PERSONALISED, NOT_PROFILED = "personalised", "not_profiled"
MODES = (PERSONALISED, "no_experiments", NOT_PROFILED)
UNNAMED = "unnamed:"  # how the user id of a page begins that is recorded of nobody


@dataclass(frozen=True, slots=True)
class Wishes:
    """A listener's own wishes; the rules keep to them on every surface, whatever else is configured.

    blocked_artists: names. blocked_items, not_interested: item ids, which are hidden alike. explicit: whether explicit
    items may be shown. followed_artists: names. mode: of `MODES`; "no_experiments": no arm of an experiment and no
    exploration; "not_profiled": neither, and pages by popularity and context alone, of which nothing is kept under the
    listener's id.
    """

    blocked_artists: frozenset[str] = frozenset()
    blocked_items: frozenset[str] = frozenset()
    not_interested: frozenset[str] = frozenset()
    followed_artists: frozenset[str] = frozenset()
    explicit: bool = True
    mode: str = PERSONALISED

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; expected one of {', '.join(MODES)}")
        for name in ("blocked_artists", "blocked_items", "not_interested", "followed_artists"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))

    @property
    def hidden_items(self) -> frozenset[str]:
        """Ids of items that are not shown."""
        return self.blocked_items | self.not_interested

    @property
    def profiled(self) -> bool:
        """Whether anything may be kept of what the listener does."""
        return self.mode != NOT_PROFILED

    @property
    def experiments(self) -> bool:
        """Whether chance may have a part in what is shown."""
        return self.mode == PERSONALISED


NO_WISHES = Wishes()


def recorded_user(user_id: str, wishes: Wishes, request_id: str) -> str:
    """The id under which a page is recorded: of who is not profiled one of the page's own."""
    return user_id if wishes.profiled else UNNAMED + request_id
