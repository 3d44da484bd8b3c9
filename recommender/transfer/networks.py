"""Peers that are small networks: VAE-CF, LightFM and DLRM, written to the size of their task.

Sources: Liang and others 2018 (a variational autoencoder of the set of played items, multinomial likelihood, annealed
to a fifth of the divergence); Kula 2015 (LightFM: a listener and an item are the sums of the vectors of what is known
of them; the pairwise loss of BPR); Naumov and others 2019 (DLRM: vectors of categories and a tower of numbers, their
products, a tower above). Departure: AdamW for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bart.types import Floats32, Ints

BATCH = 4096
ANNEALED = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """What is known beside plays [n, m]. user [n, a], item [m, b]: codes of categories, each column its own, -1 where
    not known; number [n, k]: of listeners, about zero and of unit deviation."""

    plays: Any
    user: Ints
    item: Ints
    number: Floats32


def network_vectors(name: str, sides: Sides, dimension: int, seed: int) -> Floats32:
    """[n, dimension] vectors of listeners by the network of that name. Same seed, same vectors."""
    with torch.random.fork_rng(devices=[]):
        return NETWORKS[name](sides, dimension, seed)


def vae_cf(sides: Sides, dimension: int, seed: int, epochs: int = 60, together: int = 100) -> Floats32:
    """[n, dimension] means of the latent vectors; zero of who played nothing."""
    plays = sides.plays.tocsr()
    n, m = plays.shape
    hidden = 2 * dimension
    torch.manual_seed(seed)
    table = nn.Embedding(m, hidden)
    latent = nn.Linear(hidden, 2 * dimension)
    decoder = nn.Sequential(nn.Linear(dimension, hidden), nn.Tanh(), nn.Linear(hidden, m))
    nn.init.normal_(table.weight, std=0.05)
    parts = nn.ModuleList([table, latent, decoder])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-3, weight_decay=0.01)
    able = np.flatnonzero(np.diff(plays.indptr))
    steps = epochs * -(-len(able) // together)
    step = 0
    for _ in range(epochs):
        for rows in np.array_split(able[torch.randperm(len(able)).numpy()], -(-len(able) // together)):
            x = _played(plays, rows)
            kept = x * (torch.rand(x.shape) >= 0.5)
            told = kept / kept.norm(dim=1, keepdim=True).clamp_min(1e-6)
            mean, spread = latent(torch.tanh(told @ table.weight)).chunk(2, dim=1)
            z = mean + torch.exp(0.5 * spread) * torch.randn(mean.shape)
            likely = (nn.functional.log_softmax(decoder(z), dim=1) * x).sum(dim=1)
            apart = -0.5 * (1 + spread - mean**2 - spread.exp()).sum(dim=1)
            loss = (ANNEALED * min(2 * step / steps, 1.0) * apart - likely).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    out = np.zeros((n, dimension), np.float32)
    with torch.no_grad():
        for rows in np.array_split(able, -(-len(able) // together)):
            x = _played(plays, rows)
            told = x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)
            out[rows] = latent(torch.tanh(told @ table.weight))[:, :dimension].numpy()
    return out


def _played(plays: Any, rows: Ints) -> torch.Tensor:
    """[b, m] 1 where one of these listeners played an item."""
    return torch.from_numpy((plays[rows].toarray() > 0).astype(np.float32))


class _Sums(nn.Module):
    """Sums of the vectors of an id and of categories [., columns], -1 where not known; with `own`, a term beside."""

    def __init__(self, codes: Ints, dimension: int, own: bool) -> None:
        super().__init__()
        size = codes.max(axis=0, initial=-1) + 1
        first = len(codes) + np.concatenate([[0], np.cumsum(size)])[:-1]
        every = np.concatenate([np.arange(len(codes))[:, None], np.where(codes >= 0, codes + first, -1)], axis=1)
        self.code = torch.from_numpy(every + 1)  # 0: not known, a vector that stays zero
        self.table = nn.Embedding(len(codes) + int(size.sum()) + 1, dimension + own, padding_idx=0)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.table(self.code[rows]).sum(dim=1)
        return out


def lightfm(sides: Sides, dimension: int, seed: int, epochs: int = 12) -> Floats32:
    """[n, dimension] sums of the vectors of each listener and of what is known of the listener."""
    rng = np.random.default_rng(seed)
    user, item = _Sums(sides.user, dimension, own=False), _Sums(sides.item, dimension, own=True)
    _small(rng, user.table, item.table)
    optimizer = torch.optim.AdamW([*user.parameters(), *item.parameters()], lr=3e-3, weight_decay=0.01)
    coo = sides.plays.tocoo()
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(coo.nnz), -(-coo.nnz // BATCH)):
            u = user(torch.from_numpy(coo.row[rows].astype(np.int64)))
            liked = item(torch.from_numpy(coo.col[rows].astype(np.int64)))
            other = item(torch.from_numpy(rng.integers(0, sides.plays.shape[1], len(rows))))
            apart = liked - other
            loss = nn.functional.softplus(-((u * apart[:, :-1]).sum(dim=1) + apart[:, -1])).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        return np.asarray(user(torch.arange(sides.plays.shape[0])).numpy(), dtype=np.float32)


def dlrm(sides: Sides, dimension: int, seed: int, epochs: int = 2) -> Floats32:
    """[n, dimension]: half the vector of the listener's id, half what the tower of numbers makes."""
    rng = np.random.default_rng(seed)
    n, m = sides.plays.shape
    half = dimension // 2
    codes = (np.concatenate([np.arange(n)[:, None], sides.user], axis=1),
             np.concatenate([np.arange(m)[:, None], sides.item], axis=1))  # fmt: skip
    tables = [nn.Embedding(int(column.max(initial=0)) + 2, half, padding_idx=0) for side in codes for column in side.T]
    _small(rng, *tables)
    code = [[torch.from_numpy(column + 1) for column in side.T] for side in codes]
    torch.manual_seed(seed)
    bottom = nn.Sequential(nn.Linear(sides.number.shape[1], half), nn.ReLU(), nn.Linear(half, dimension - half))
    k = len(tables) + 1
    top = nn.Sequential(nn.Linear(dimension - half + k * (k - 1) // 2, 64), nn.ReLU(), nn.Linear(64, 1))
    fitting = nn.Linear(dimension - half, half)  # to the width of the other vectors
    parts = nn.ModuleList([*tables, bottom, top, fitting])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=2e-3, weight_decay=0.01)
    number, coo = torch.from_numpy(sides.number), sides.plays.tocoo()
    chance = np.cumsum(np.asarray(sides.plays.sum(axis=0), dtype=np.float64).ravel() ** 0.75)
    one, other = torch.triu_indices(k, k, offset=1)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(coo.nnz), -(-coo.nnz // BATCH)):
            drawn = np.minimum(np.searchsorted(chance, rng.random(len(rows)) * chance[-1]), m - 1)
            who = torch.from_numpy(np.tile(coo.row[rows].astype(np.int64), 2))
            what = torch.from_numpy(np.concatenate([coo.col[rows].astype(np.int64), drawn]))
            dense = bottom(number[who])
            column = [c[who] for c in code[0]] + [c[what] for c in code[1]]
            vector = torch.stack([fitting(dense), *(t(c) for t, c in zip(tables, column, strict=True))], dim=1)
            product = (vector @ vector.transpose(1, 2))[:, one, other]
            logit = top(torch.cat([dense, product], dim=1))[:, 0]
            played = torch.from_numpy(np.repeat(np.array([1, 0], np.float32), len(rows)))
            loss = nn.functional.binary_cross_entropy_with_logits(logit, played)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        own = tables[0](code[0][0])
        return np.asarray(torch.cat([own, bottom(number)], dim=1).numpy(), dtype=np.float32)


def _small(rng: np.random.Generator, *tables: nn.Embedding) -> None:
    for table in tables:
        start = 0.1 * rng.standard_normal(tuple(table.weight.shape), dtype=np.float32)
        with torch.no_grad():
            table.weight.copy_(torch.from_numpy(start))
            table.weight[0] = 0


NETWORKS: Mapping[str, Callable[[Sides, int, int], Floats32]] = {"VAE-CF": vae_cf, "LightFM": lightfm, "DLRM": dlrm}
