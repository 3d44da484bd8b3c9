"""CoSeRNN: a listener's preference before each session, from context and past sessions.

Hansen et al., Contextual and Sequential User Embeddings for Large-Scale Music Recommendation (RecSys 2020), section
5.1, in the paper's order: input layers, recurrent layers, fusion with the long-term vector.

Where paper and the authors' published code differ, `CoSeRNNConfig.input` chooses: "relu2" are the paper's two ReLU
layers before the LSTM, "linear" the code's single linear layer (the default, it measured better). As in that code both
pathways share their weights and the final vector is normalised.

Improvement: `memory` names the vectors that the attention weighs beside the recurrent one. LONG_TERM is the paper's
model ("CoSeRNN" in every table). BANK adds decayed averages, overall and by context, which hold what a listener plays
in each context for longer than an LSTM does ("CoSeRNN+", the default for serving).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recommender.listener.batches import Batch
from recommender.listener.memories import BANK, LONG_TERM, memories
from recommender.sessions.features import FEATURES, N_AGES, PATHWAYS, feature_slices, vector_scale
from recommender.sessions.table import N_DEVICES

COSERNN_MODELS: Mapping[str, tuple[str, ...]] = {"CoSeRNN": LONG_TERM, "CoSeRNN+": BANK}  # what each one fuses


_LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class CoSeRNNConfig:
    """Shape of a CoSeRNN.

    dimension: of the track vectors. hidden: LSTM cells; the paper's best is 400, 100 trains four times as fast and is
    within noise on small data. width: of the fully connected layers (the paper keeps 200). input: "linear" or "relu2".
    dropout: share of units dropped after the input layer and before the output; none measured better on simulated
    listening. scaled: session vectors are read at `vector_scale`, not at unit length. pathways: session vectors read,
    one pathway each (Table 4). features: input groups (Table 3). memory: vectors that the fusion weighs. sources:
    vocabulary of stream sources, the first is "".
    """

    dimension: int = 40
    hidden: int = 100
    width: int = 200
    input: str = "linear"
    dropout: float = 0.0
    scaled: bool = True
    pathways: tuple[str, ...] = ("played", "skipped")
    features: tuple[str, ...] = FEATURES
    memory: tuple[str, ...] = BANK
    sources: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        for name in ("pathways", "features", "memory", "sources"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.input not in ("linear", "relu2"):
            raise ValueError(f"input is {self.input!r}; expected 'linear' or 'relu2'")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected a share in [0, 1)")
        for name in ("dimension", "hidden", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not self.pathways or not set(self.pathways) <= set(PATHWAYS):
            raise ValueError(f"pathways are {self.pathways}; expected some of {PATHWAYS}")
        if not set(self.features) <= {*FEATURES, "current_source"}:
            raise ValueError(f"features are {self.features}; expected some of {(*FEATURES, 'current_source')}")
        if not self.sources or self.sources[0] != "":
            raise ValueError('sources must start with "", the unknown source')
        memories(self.memory)

    @property
    def n_features(self) -> int:
        """Width of one pathway's feature vector."""
        return sum(s.stop - s.start for s in feature_slices(self.features, self.dimension, len(self.sources)).values())


class CoSeRNN(nn.Module):
    """The network. `forward` gives [b, t, d] unit vectors, the t-th from the sessions before t and the context of t."""

    def __init__(self, config: CoSeRNNConfig) -> None:
        super().__init__()
        self.config = config
        c, outputs = config, config.hidden * len(config.pathways)
        self.input: nn.Module = nn.Linear(c.n_features, c.width)
        if c.input == "relu2":
            self.input = nn.Sequential(self.input, nn.ReLU(), nn.Linear(c.width, c.width), nn.ReLU())
        self.lstm = nn.LSTM(c.width, c.hidden)
        self.initial = nn.Embedding(N_AGES, 2 * outputs)  # hidden and cell state of each pathway, by age of the account
        nn.init.zeros_(self.initial.weight)
        self.combine = nn.Sequential(nn.Linear(outputs, c.width), nn.ReLU(), nn.Linear(c.width, c.width), nn.ReLU())
        self.offset = nn.Linear(c.width, c.dimension)
        self.attention = nn.Linear(c.width, 1 + len(c.memory))

    def forward(self, batch: Batch) -> Tensor:
        x = pathway_features(self.config, batch)  # [pathways, b, t, features]
        folded = self.folded()
        x = self.drop(self.input(x)) if folded is None else x  # [pathways, b, t, width or features]
        o = self.recur(x, batch.age, folded)  # [b, t, pathways * hidden]
        o = self.drop(self.combine(o))  # [b, t, width]
        return self.fuse(o, batch.memory)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of the same units throughout a sequence (Gal and Ghahramani 2016), a tenth of the random numbers."""
        if not self.training or self.config.dropout == 0:
            return x
        kept = 1 - self.config.dropout
        return x * x.new_empty(*x.shape[:-2], 1, x.shape[-1]).bernoulli_(kept).div_(kept)

    def folded(self) -> list[Tensor] | None:
        """The LSTM's weights with a linear input layer multiplied into them, which saves nearly half of the products;
        None where something comes between the two. The same network, and its gradients go to the same parameters.
        """
        if not isinstance(self.input, nn.Linear) or (self.training and self.config.dropout > 0):
            return None
        enter, again, enter_bias, again_bias = (getattr(self.lstm, f"{name}_l0") for name in _LSTM)
        return [enter @ self.input.weight, again, enter @ self.input.bias + enter_bias, again_bias]

    def recur(self, x: Tensor, age: Tensor, folded: list[Tensor] | None = None) -> Tensor:
        """Section 5.1.3: one LSTM reads every pathway, each with its own state. folded: weights in place of its own."""
        p, b, t, _ = x.shape
        start = self.initial(age).view(b, 2, p, self.config.hidden)
        start = start.permute(1, 2, 0, 3).reshape(2, 1, p * b, -1)  # [2, layer, pathways * b, hidden]
        x, at = x.permute(2, 0, 1, 3).reshape(t, p * b, -1), (start[0].contiguous(), start[1].contiguous())
        if folded is None:
            o, _ = self.lstm(x, at)
        else:
            o, *_ = torch.lstm(x, at, folded, True, 1, 0.0, self.training, False, False)
        by_listener: Tensor = o.view(t, p, b, -1).permute(2, 0, 1, 3).reshape(b, t, -1)
        return by_listener

    def fuse(self, o: Tensor, memory: Tensor) -> Tensor:
        """Section 5.1.4: attention between the recurrent vector and the long-term one (and any other memory)."""
        weight = torch.softmax(self.attention(o).float(), dim=-1)  # [b, t, 1 + memories]
        mixed = weight[..., :1] * self.offset(o).float() + torch.einsum("btk,btkd->btd", weight[..., 1:], memory)
        u: Tensor = F.normalize(mixed, dim=-1)
        return u


def pathway_features(config: CoSeRNNConfig, batch: Batch) -> Tensor:
    """Section 5.1.2: f = context, last session vector, [number of tracks, time since, source], [pathways, b, t, f]."""
    n, p = len(config.sources), len(config.pathways)
    last = batch.last * vector_scale(config.dimension) if config.scaled else batch.last
    shared = {
        "weekday": F.one_hot(batch.weekday, 7),
        "hour": F.one_hot(batch.hour, 24),
        "device": F.one_hot(batch.device, N_DEVICES),
        "tracks": batch.log_tracks[..., None],
        "gap": batch.log_gap[..., None],
        "source": F.one_hot(batch.last_source, n),
        "current_source": F.one_hot(batch.source, n),
    }
    return torch.cat(
        [
            last if name == "last" else shared[name].float().expand(p, *shared[name].shape)
            for name in feature_slices(config.features, config.dimension, n)
        ],
        -1,
    )
