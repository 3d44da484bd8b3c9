"""What CoSeRNN is compared with (section 6.1), under one protocol: vectors before each session, [n, d].

Heuristics: Last and Avg over any or the same context, Popularity, and an exponentially decayed average (EMA), which the
paper lacks. Networks: RRN (Wu et al. 2017), LatentCross (Beutel et al. 2018) and JODIE (Kumar et al. 2019), adapted as
the paper adapts them: track vectors fixed, one recurrent pathway each for all, skipped and played tracks, an output of
the vectors' dimension, the loss of CoSeRNN. Oracles read the session itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bart.types import Floats32, Ints
from recommender.listener.batches import Batch
from recommender.listener.memories import memory_vectors
from recommender.sessions.features import PATHWAYS, vector_scale
from recommender.sessions.table import N_DEVICES, Sessions, unit

HEURISTICS: Mapping[str, str] = {  # names of Table 2 and the memory that each one is
    "Last, any cxt": "last",
    "Last, same cxt": "last_same_context",
    "Avg, any cxt": "average",
    "Avg, same cxt": "average_same_context",
    "EMA": "ema_0.8",
}


@dataclass(frozen=True)
class BaselineConfig:
    """Shape of a network baseline. hidden: recurrent units of each pathway; n_users: listeners with an own vector."""

    n_users: int
    dimension: int = 40
    hidden: int = 100
    dropout: float = 0.0
    n_sources: int = 1


def heuristic(sessions: Sessions, name: str) -> Floats32:
    """[n, d] by the name of Table 2. "Same context" falls back to any context where the context is new."""
    memory = HEURISTICS[name]
    if not memory.endswith("same_context"):
        return memory_vectors(sessions, (memory,))[:, 0]
    both = memory_vectors(sessions, (memory, memory.removesuffix("_same_context")))
    return np.where(both[:, 0].any(axis=1, keepdims=True), both[:, 0], both[:, 1])


def popularity(sessions: Sessions, play_count: Ints) -> Floats32:
    """[n, d] the past session with the most popular tracks on average. play_count: [items] plays of training."""
    track = np.append(np.log1p(play_count)[sessions.track], 0.0)
    total = np.add.reduceat(track, sessions.track_offset[:-1]) if len(sessions) else np.empty(0)
    score = np.where(sessions.has_played, total / np.maximum(np.diff(sessions.track_offset), 1), -1.0)
    rank = np.empty(len(sessions), dtype=np.int64)
    rank[np.argsort(score, kind="stable")] = np.arange(len(sessions))
    # A running maximum within each listener: listeners stand in ascending order, so their ranks can be set apart.
    best = np.maximum.accumulate(rank + sessions.user * len(sessions)) - sessions.user * len(sessions)
    row_of_rank = np.argsort(rank)
    out = np.zeros_like(sessions.columns.played)
    later = np.flatnonzero(sessions.position > 0)
    out[later] = sessions.columns.played[row_of_rank[best[later - 1]]]
    return out


def oracle_full(sessions: Sessions) -> Floats32:
    """[n, d] the session's own played vector."""
    return sessions.columns.played


def oracle_half(sessions: Sessions, vector: Floats32, rng: np.random.Generator) -> Floats32:
    """[n, d] the unit mean of a random half of the session's played tracks, rounded up."""
    from scipy.sparse import csr_matrix

    session = np.repeat(np.arange(len(sessions)), np.diff(sessions.track_offset))
    drawn = np.where(sessions.track_skipped, 2.0, rng.random(len(session)))  # skipped ones last
    order = np.lexsort((drawn, session))
    played = np.bincount(session[~sessions.track_skipped], minlength=len(sessions))
    nth = np.arange(len(session)) - sessions.track_offset[:-1][session]
    weight = (nth < np.ceil(played / 2)[session]).astype(np.float32)
    matrix = csr_matrix((weight, sessions.track[order], sessions.track_offset), shape=(len(sessions), len(vector)))
    return unit(np.asarray(matrix @ vector, dtype=np.float32))


class _Network(nn.Module):
    """What the three share: pathway inputs and the context as one vector."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.n_context = 7 + 24 + N_DEVICES
        self.n_input = config.dimension + 2 + config.n_sources

    def context(self, batch: Batch) -> Tensor:
        """[b, t, 7 + 24 + devices] one-hot."""
        codes = ((batch.weekday, 7), (batch.hour, 24), (batch.device, N_DEVICES))
        return torch.cat([F.one_hot(code, n) for code, n in codes], -1).float()

    def inputs(self, batch: Batch) -> Tensor:
        """[pathways, b, t, n_input]: last vector, number of tracks, time since, source."""
        scalar = torch.stack([batch.log_tracks, batch.log_gap], -1)
        shared = torch.cat([scalar, F.one_hot(batch.last_source, self.config.n_sources).float()], -1)
        last = batch.last * vector_scale(self.config.dimension)
        return torch.cat([last, shared.expand(len(last), *shared.shape)], -1)

    def recur(self, network: nn.Module, x: Tensor) -> Tensor:
        """[b, t, pathways * hidden]: one recurrent network over x [pathways, b, t, features]."""
        p, b, t, _ = x.shape
        o, _ = network(x.permute(2, 0, 1, 3).reshape(t, p * b, -1))
        by_listener: Tensor = o.view(t, p, b, -1).permute(2, 0, 1, 3).reshape(b, t, -1)
        return by_listener

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


class RRN(_Network):
    """Recurrent recommender network: an LSTM's output plus a stationary vector of the listener."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.input = nn.Linear(self.n_context + self.n_input, 200)
        self.lstm = nn.LSTM(200, config.hidden)
        self.output = nn.Linear(len(PATHWAYS) * config.hidden, config.dimension)
        self.stationary = nn.Embedding(config.n_users, config.dimension)
        nn.init.zeros_(self.stationary.weight)

    def forward(self, batch: Batch) -> Tensor:
        x = self.inputs(batch)
        context = self.context(batch)
        x = self.drop(self.input(torch.cat([context.expand(len(x), *context.shape), x], -1)))
        u = self.output(self.drop(self.recur(self.lstm, x))).float() + self.stationary(batch.user)[:, None]
        out: Tensor = F.normalize(u, dim=-1)
        return out


class LatentCross(_Network):
    """A GRU whose input and output are multiplied by what the context says (1 + w), no vector of the listener."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        outputs = len(PATHWAYS) * config.hidden
        self.input = nn.Linear(self.n_input, 200)
        self.before = nn.Linear(self.n_context + 1, 200)
        self.gru = nn.GRU(200, config.hidden)
        self.after = nn.Linear(self.n_context + 1, outputs)
        self.output = nn.Sequential(nn.Linear(outputs, 200), nn.ReLU(), nn.Linear(200, config.dimension))
        for cross in (self.before, self.after):  # the crosses start as "no effect" (their section 4.2)
            nn.init.normal_(cross.weight, std=0.01)
            nn.init.zeros_(cross.bias)

    def forward(self, batch: Batch) -> Tensor:
        context = torch.cat([self.context(batch), batch.log_gap[..., None]], -1)
        x = self.input(self.inputs(batch)) * (1 + self.before(context))
        o = self.recur(self.gru, self.drop(x)) * (1 + self.after(context))
        out: Tensor = F.normalize(self.output(self.drop(o)).float(), dim=-1)
        return out


class JODIE(_Network):
    """A recurrent vector projected by the time that passed, beside a static vector of the listener and the last one."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        outputs = len(PATHWAYS) * config.hidden
        self.input = nn.Linear(self.n_context + self.n_input, 200)
        self.rnn = nn.RNN(200, config.hidden)
        self.project = nn.Linear(1, outputs)
        nn.init.normal_(self.project.weight, std=0.01)
        nn.init.zeros_(self.project.bias)
        self.static = nn.Embedding(config.n_users, config.dimension)
        nn.init.zeros_(self.static.weight)
        self.output = nn.Linear(outputs + (1 + len(PATHWAYS)) * config.dimension, config.dimension)

    def forward(self, batch: Batch) -> Tensor:
        x = self.inputs(batch)
        context = self.context(batch)
        x = self.drop(self.input(torch.cat([context.expand(len(x), *context.shape), x], -1)))
        o = self.recur(self.rnn, x) * (1 + self.project(batch.log_gap[..., None]))
        b, t = o.shape[:2]
        static = self.static(batch.user)[:, None].expand(b, t, -1)
        last = batch.last.permute(1, 2, 0, 3).reshape(b, t, -1)
        out: Tensor = F.normalize(self.output(torch.cat([self.drop(o), static, last], -1)).float(), dim=-1)
        return out


NETWORKS: Mapping[str, Callable[[BaselineConfig], nn.Module]] = {"RRN": RRN, "LatentCross": LatentCross, "JODIE": JODIE}
