"""Labels that say nothing: "other", "unknown" and the like stand in files for a genre or an artist nobody knows."""

from __future__ import annotations

import numpy as np

from bart.types import Bools, Labels

_NOTHING = {
    "other", "others", "unknown", "misc", "miscellaneous", "various", "undefined", "unclassified", "uncategorized",
    "none", "null", "nil", "na", "n/a", "nan", "tba", "unspecified", "default", "general", "untagged", "unlabeled",
    "no genre", "not available", "not known", "not set",
}  # fmt: skip
_OF_WHAT = ("genre", "genres", "artist", "artists", "music", "style")
_ROUND = " \t<>()[]{}.,:;-–—_?!*#/\\\"'"


def says_something(labels: Labels) -> Bools:
    """[labels] whether each word of the vocabulary names something that may stand in a title."""
    return np.array([is_telling(name) for name in labels.vocabulary], dtype=np.bool_)


def is_telling(label: str) -> bool:
    """Whether a label names something: "<unknown>", "Other", "Unknown artist", "N/A" and " - " do not."""
    words = label.casefold().strip(_ROUND).split()
    if not words:
        return False
    if len(words) > 1 and words[-1].strip(_ROUND) in _OF_WHAT:
        words = words[:-1]
    return " ".join(words).strip(_ROUND) not in _NOTHING
