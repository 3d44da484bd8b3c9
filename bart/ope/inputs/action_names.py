"""Which column of a pmf stands for which action of a log: by its name, by what differs in the names, or as said."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bart.errors import DataError

_WORDS = re.compile(r"[^\W\d_]+|\d+|[\W_]")  # of a column's name: words, numbers, and what stands between them


def action_names(columns: Sequence[tuple[str, ...]], given: Sequence[tuple[str, ...]]) -> tuple[dict[str, int], bool]:
    """The place of each action by its name, and whether actions may be numbered by the columns from 0: not where names
    were given, nor where the columns have other numbers for names.

    columns: of each policy and model, a column an action. given: the names of the actions of each policy, where they
    were said. Raises DataError where two disagree.
    """
    out = {name: i for names in columns for i, name in enumerate(names)}
    short = given or [differing(names) for names in columns]
    for names in short:
        for i, name in enumerate(names):
            if out.setdefault(name, i) != i:
                raise DataError(f"{name!r} is another column for another policy; expected one order of actions in all")
    numbers = {str(i) for names in columns for i in range(len(names))}
    named = {name for names in short for name in names}
    return out, not given and (named == numbers or not all(name.isdecimal() for name in named))


def differing(columns: tuple[str, ...]) -> tuple[str, ...]:
    """What tells names of columns apart: without the words that all begin and end with, such as p_jazz and p_rock."""
    parts = [_WORDS.findall(name) for name in columns]
    head = _common(parts)
    tail = _common([part[head:][::-1] for part in parts])
    return tuple("".join(part[head : len(part) - tail]) for part in parts)


def _common(parts: list[list[str]]) -> int:
    """How many words all lists begin with, but for the last of each."""
    most = min(map(len, parts)) - 1
    return next((i for i in range(most) if len({part[i] for part in parts}) > 1), max(most, 0))
