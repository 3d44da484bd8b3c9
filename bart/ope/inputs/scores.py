"""Scores of an outside ranker: a table of request_id, item_id, score, joined to the candidates of a log.

Kept as sorted pairs of codes, 16 bytes a score. A candidate without a score ranks last; beyond a share of them the file
is taken for that of another log and refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bart.errors import DataError
from bart.ope.inputs import files as inputs_files
from bart.types import Floats, Ints, Strings

NAMES = ("request_id", "item_id", "score")
MOST_MISSING = 0.1  # share of candidates without a score beyond which the scores are refused


@dataclass(slots=True, eq=False)
class Scores:
    """name: of the ranker. candidates, missing: how many were asked for, and how many of them had no score."""

    name: str
    path: Path
    _request: dict[str, int]
    _item: dict[str, int]
    _key: Ints
    _score: Floats
    candidates: int = 0
    missing: int = 0
    _lowest: float = field(default=0.0)

    def of(self, request_id: Strings, offset: Ints, item_id: Strings) -> Floats:
        """[N] score of each candidate; those of request i are item_id[offset[i]:offset[i + 1]].

        A candidate without one scores below every score of the file.
        """
        request = np.array([self._request.get(r, -1) for r in request_id], dtype=np.int64)
        page = np.repeat(np.arange(len(request_id)), np.diff(offset))
        distinct, place = np.unique(item_id.astype(str), return_inverse=True)
        item = np.array([self._item.get(i, -1) for i in distinct], dtype=np.int64)[place.reshape(-1)]
        key = request[page] * len(self._item) + item
        at = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
        known = (request[page] >= 0) & (item >= 0) & (self._key[at] == key)
        self.candidates += len(key)
        self.missing += int((~known).sum())
        return np.where(known, self._score[at], self._lowest)

    def check(self, most_missing: float = MOST_MISSING) -> None:
        """Raises DataError where more than this share of all candidates asked for had no score."""
        if self.missing > most_missing * self.candidates:
            raise DataError(
                f"{self.path} has no score for {self.missing:,} of the log's {self.candidates:,} candidates "
                f"({self.missing / self.candidates:.0%}); expected at most {most_missing:.0%} without one"
            )


def read_scores(name: str, path: Path) -> Scores:
    """The scores of a CSV or Parquet file with the columns request_id, item_id, score.

    Raises DataError for a file without them, without rows, with a score that is no finite number, or with two scores
    for one candidate.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a table of {', '.join(NAMES)}")
    request: dict[str, int] = {}
    item: dict[str, int] = {}
    requests: list[Ints] = []
    items: list[Ints] = []
    scores: list[Floats] = []
    row = 0
    for batch, _ in inputs_files.record_batches(path, list(NAMES)):
        for known, column, out in ((request, "request_id", requests), (item, "item_id", items)):
            encoded = inputs_files.text(path, batch, column, row).dictionary_encode()
            own = np.array([known.setdefault(v, len(known)) for v in encoded.dictionary.to_pylist()], dtype=np.int32)
            out.append(own[encoded.indices.to_numpy(zero_copy_only=False)])
        scores.append(inputs_files.number(path, batch, "score", row))
        row += batch.num_rows
    if not row:
        raise DataError(f"{path} holds no score; expected rows of {', '.join(NAMES)}")
    key = np.concatenate(requests).astype(np.int64) * len(item) + np.concatenate(items)
    del requests, items
    score = np.concatenate(scores)
    order = np.argsort(key, kind="stable")
    key, score = key[order], score[order]
    same = np.flatnonzero(key[1:] == key[:-1])
    if len(same):
        which = int(key[same[0]])
        names = list(request)[which // len(item)], list(item)[which % len(item)]
        raise DataError(f"{path} has two scores for request_id {names[0]!r}, item_id {names[1]!r}; expected one each")
    lowest = float(score.min())
    return Scores(name, path, request, item, key, score, _lowest=lowest - max(1.0, abs(lowest)))
