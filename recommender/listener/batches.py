"""Sessions as padded sequences: what a sequence model may see of session t when it predicts it.

That is the context of t, and of t - 1 the vectors, the number of tracks, the source and the time since it ended
(section 5.1.2 of the CoSeRNN paper). The shift by one session happens here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bart.types import Bools, Ints
from recommender.listener.memories import memory_vectors
from recommender.sessions.features import age_bucket, log_gap, log_tracks
from recommender.sessions.table import Sessions


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """b listeners, t sessions each, padded behind.

    weekday, hour, device, source: [b, t] codes of session t; source may only be read where the current source is
    known beforehand. last: [pathways, b, t, d], last_source, log_tracks, log_gap: [b, t] of the session before, zero
    at the first. memory: [b, t, memories, d]. age: [b] bucket. user: [b], listener of the data set (for models with a
    vector of each listener). target: [b, t, d]; mask: [b, t], where the loss counts.
    """

    weekday: Tensor
    hour: Tensor
    device: Tensor
    source: Tensor
    last: Tensor
    last_source: Tensor
    log_tracks: Tensor
    log_gap: Tensor
    memory: Tensor
    age: Tensor
    user: Tensor
    target: Tensor
    mask: Tensor


class SequenceData:
    """A data set laid out for a sequence model; `batch` cuts padded batches out of it.

    part: [n] bool, sessions where the loss counts (all by default); sessions without a played track never count.
    """

    def __init__(
        self, sessions: Sessions, pathways: Sequence[str], memory: Sequence[str], part: Bools | None = None
    ) -> None:
        columns = sessions.columns
        self.sessions = sessions
        self.counts = sessions.has_played if part is None else sessions.has_played & part
        has_last = sessions.position > 0
        before = np.maximum(np.arange(len(sessions)) - 1, 0)
        self._code = torch.from_numpy(
            np.stack([columns.weekday, columns.hour, columns.device, columns.source, columns.source[before] * has_last])
        )  # [5, n]
        self._scalar = torch.from_numpy(
            np.stack([log_tracks(columns.n_tracks)[before] * has_last, log_gap(sessions.gap_s)])
        )
        self._vector = [torch.from_numpy(getattr(columns, name)) for name in pathways]
        self._target = torch.from_numpy(columns.played)
        self._memory = torch.from_numpy(memory_vectors(sessions, memory))
        self.trainable = np.unique(sessions.user[self.counts])  # listeners with a session that counts
        self._counts = torch.from_numpy(self.counts)
        self._age = torch.from_numpy(age_bucket(sessions.account_age_d))

    def batch(self, users: Ints, length: int | None = None) -> Batch:
        """The given listeners; padded to `length` sessions, by default the longest of them."""
        size = self.sessions.size[users]
        t = int(size.max()) if length is None else length
        if length is not None and len(size) and size.max() > length:
            raise ValueError(f"length is {length}; expected at least {int(size.max())}, the longest history")
        step = np.arange(t)
        real = step < size[:, None]  # [b, t]
        flat = np.where(real, self.sessions.offset[:-1][users][:, None] + step, 0)
        row, present = torch.from_numpy(flat), torch.from_numpy(real)
        later = torch.from_numpy(real & (step > 0))[..., None]
        last = torch.stack([v[torch.clamp(row - 1, min=0)] * later for v in self._vector])  # [pathways, b, t, d]
        code = self._code[:, row] * present
        scalar = self._scalar[:, row] * present
        return Batch(
            weekday=code[0],
            hour=code[1],
            device=code[2],
            source=code[3],
            last=last,
            last_source=code[4],
            log_tracks=scalar[0],
            log_gap=scalar[1],
            memory=self._memory[row] * present[..., None, None],
            age=self._age[torch.from_numpy(users)],
            user=torch.from_numpy(users),
            target=self._target[row],
            mask=self._counts[row] & present,
        )

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[Ints]:
        """Listeners of each batch of one epoch: in random order, near equal lengths together, which saves padding."""
        users = rng.permutation(self.trainable)
        pool = 8 * size
        batches: list[Ints] = []
        for start in range(0, len(users), pool):
            some = users[start : start + pool]
            some = some[np.argsort(self.sessions.size[some], kind="stable")]
            batches.extend(some[i : i + size] for i in range(0, len(some), size))
        for i in rng.permutation(len(batches)):
            yield batches[i]
