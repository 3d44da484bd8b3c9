"""The task model that judges vectors of listeners: will this listener play this track within the next days?

Two towers, one over the listener's vector, one over what is known of a track (its content vector, its factors, its
popularity), a product and a term of the track's own; the same for every kind of vector, with the same trials. Only the
listener's vector differs, so the difference is what the vector carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bart.types import Floats, Floats32, Ints

BATCH = 4096


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of the task model. rate: of Adam; decay: of weights; hidden: width of both towers; dropout: of the
    listener's vector."""

    rate: float = 3e-3
    decay: float = 1e-4
    hidden: int = 64
    dropout: float = 0.0


TRIALS: tuple[Trial, ...] = (
    Trial(rate=1e-3, hidden=128, dropout=0.2),
    Trial(rate=1e-3, hidden=64, decay=1e-1, dropout=0.4),
    Trial(rate=3e-3, hidden=128, decay=1e-2, dropout=0.3),
)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """m listeners and tracks: user [m] rows of the vectors, item [m] rows, played [m] 1 or 0."""

    user: Ints
    item: Ints
    played: Floats32

    def __len__(self) -> int:
        return len(self.user)


class TwoTowers(nn.Module):
    """The score of a listener and a track, in logits."""

    def __init__(self, user: int, item: int, trial: Trial) -> None:
        super().__init__()
        h = trial.hidden
        self.user = nn.Sequential(nn.Dropout(trial.dropout), nn.Linear(user, h), nn.ReLU(), nn.Linear(h, h))
        self.item = nn.Sequential(nn.Linear(item, h), nn.ReLU(), nn.Linear(h, h + 1))
        self.scale = h**-0.5

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """[b] logits; user [b, u], item [b, i]."""
        own = self.item(item)  # [b, h + 1]
        out: torch.Tensor = (self.user(user) * own[:, :-1]).sum(dim=1) * self.scale + own[:, -1]
        return out


def scaled(vector: Floats32, rows: Ints) -> Floats32:
    """Vectors about 0 and of unit variance on average, by the given rows alone: their geometry stays."""
    mean = vector[rows].mean(axis=0)
    spread = float(np.sqrt(np.mean((vector[rows] - mean) ** 2)))
    out: Floats32 = ((vector - mean) / max(spread, 1e-12)).astype(np.float32)
    return out


def fit(
    vector: Floats32,
    item: Floats32,
    train: Pairs,
    valid: Pairs,
    trial: Trial,
    seed: int,
    epochs: int = 12,
    patience: int = 2,
) -> tuple[TwoTowers, float]:
    """The trained task model and its validation loss; training stops where that no longer falls.

    vector [listeners, u], item [items, i] as `scaled` makes them.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TwoTowers(vector.shape[1], item.shape[1], trial)
        optimizer = torch.optim.AdamW(model.parameters(), lr=trial.rate, weight_decay=trial.decay)
        u, i = torch.from_numpy(vector), torch.from_numpy(item)
        who, what = torch.from_numpy(train.user), torch.from_numpy(train.item)
        target = torch.from_numpy(train.played)
        best, kept, waited = float("inf"), model.state_dict(), 0
        for _ in range(epochs):
            model.train()
            order = torch.randperm(len(train), generator=generator)
            for rows in torch.split(order, BATCH):
                optimizer.zero_grad()
                logit = model(u[who[rows]], i[what[rows]])
                nn.functional.binary_cross_entropy_with_logits(logit, target[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            loss = _loss(score(model, vector, item, valid), valid.played)
            if loss < best - 1e-5:
                best, waited = loss, 0
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            else:
                waited += 1
                if waited >= patience:
                    break
        model.load_state_dict(kept)
    return model, best


def score(model: TwoTowers, vector: Floats32, item: Floats32, pairs: Pairs) -> Floats:
    """[m] logits of pairs."""
    model.eval()
    with torch.no_grad():
        every = model.item(torch.from_numpy(item))
        own = model.user(torch.from_numpy(vector))
        who, what = torch.from_numpy(pairs.user), torch.from_numpy(pairs.item)
        side = every[what]
        out = (own[who] * side[:, :-1]).sum(dim=1) * model.scale + side[:, -1]
    return np.asarray(out.numpy(), dtype=np.float64)


def tuned(
    vector: Floats32, item: Floats32, train: Pairs, valid: Pairs, seed: int, trials: Sequence[Trial] = TRIALS
) -> tuple[TwoTowers, Trial, float]:
    """The best of the trials by validation loss."""
    found = [(*fit(vector, item, train, valid, trial, seed), trial) for trial in trials]
    model, loss, trial = min(found, key=lambda one: one[1])
    return model, trial, loss


def _loss(logit: Floats, played: Floats32) -> float:
    return float(np.mean(np.logaddexp(0.0, logit) - logit * played))
