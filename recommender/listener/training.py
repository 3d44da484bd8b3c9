"""Training of a sequence model: mini-batches over listeners, loss 1 - cosine to the played vector (section 5.2.1).

An optional contrastive term beside it pulls a prediction from the sessions of other listeners in the batch. Training
runs on one thread, where small matrices are fastest and the same seed gives the same bits. Start the process with
OMP_WAIT_POLICY=passive when others share the machine: idle OpenMP threads then sleep instead of spinning.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bart.errors import DataError
from bart.types import Floats32, Ints
from recommender.listener.batches import Batch, SequenceData
from recommender.sessions.table import Sessions, TimeSplit

# Of simulated worlds: at 8 listeners a batch the validation cosine peaks after 200 to 400 steps with 120 listeners and
# rises until the rate has fallen with more; above 3,000 steps nothing is gained that is worth the time.
_EPOCHS, _FEWEST_EPOCHS, _MOST_EPOCHS = 12, 4, 40
_FEWEST_STEPS, _MOST_STEPS = 375, 3000


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    epochs: at most this many passes, None for a number by size (`passes`). listeners: of a batch. learning_rate:
    AdamW's peak, reached at once and decayed to a twentieth by half a cosine. averaged: what is validated and kept are
    the weights averaged over the last steps, this share of all (0 for none): a few listeners a batch make single steps
    noisy. contrastive: weight of the contrastive term (0 is the paper's loss). temperature and negatives: of that term.
    patience: epochs without a better validation cosine before stopping. validation_users: at most so many listeners are
    validated on. bf16: mixed precision where the processor supports it and the network gains by it (`bf16_gains`).
    """

    epochs: int | None = 10
    listeners: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-1
    clip: float = 1.0
    averaged: float = 0.1
    contrastive: float = 0.0
    temperature: float = 0.1
    negatives: int = 256
    patience: int = 3
    validation_users: int = 256
    bf16: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "listeners", "patience", "validation_users", "negatives"):
            if name == "epochs" and self.epochs is None:
                continue
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("learning_rate", "temperature", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.contrastive < 0:
            raise ValueError(f"contrastive is {self.contrastive}; expected at least 0")
        if not 0 <= self.averaged < 1:
            raise ValueError(f"averaged is {self.averaged}; expected a share in [0, 1)")

    def passes(self, batches: int) -> int:
        """Passes over data of so many batches. Steps teach, not passes: few batches are seen more often, many less."""
        if self.epochs is not None:
            return self.epochs
        fewest, most = math.ceil(_FEWEST_STEPS / batches), _MOST_STEPS // batches
        return min(max(_EPOCHS, fewest), _MOST_EPOCHS) if fewest > _EPOCHS else max(min(_EPOCHS, most), _FEWEST_EPOCHS)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands. validation: mean cosine, None between ends of epochs; loss: of the last batch."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    validation: float | None
    sessions_per_s: float

    @property
    def done(self) -> int:
        """Batches that were trained on, of `total`."""
        return (
            self.epoch * self.batches if self.validation is not None else (self.epoch - 1) * self.batches + self.batch
        )

    @property
    def total(self) -> int:
        return self.epochs * self.batches

    @property
    def note(self) -> str:
        """Loss, validation cosine where there is one, and speed, for a progress bar."""
        held_out = "" if self.validation is None else f"validation {self.validation:.4f}, "
        return f"loss {self.loss:.4f}, {held_out}{self.sessions_per_s:,.0f} sessions/s"


@dataclass(frozen=True)
class Trained:
    """A trained model at its best epoch, with the validation cosine of each epoch."""

    model: nn.Module
    validation: tuple[float, ...]
    best_epoch: int


def evaluation_training(epochs: int | None = None) -> TrainingConfig:
    """How every network of the protocol is trained: small batches and more patience, because a study has few listeners
    and its validation cosine is noisy. epochs: at most; None for a number by size.
    """
    return TrainingConfig(epochs=epochs, listeners=8, patience=5)


def train(
    make: Callable[[], nn.Module],
    sessions: Sessions,
    split: TimeSplit,
    config: TrainingConfig,
    rng: np.random.Generator,
    *,
    pathways: tuple[str, ...],
    memory: tuple[str, ...],
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """A model trained on the sessions before `split.validation_s`, the best epoch on those up to `split.test_s`.

    make: builds the untrained module, whose `forward(batch)` gives [b, t, d] unit vectors. pathways and memory: what
    its batches hold. checkpoint: a file to write after each epoch and to resume from; resuming gives the same bits as
    not stopping. Without validation sessions the last epoch is kept. Raises DataError where nothing can be learnt from.
    """
    data = SequenceData(sessions.before(split.validation_s), pathways, memory)
    if not data.counts.any():
        raise DataError("no training session has a played track with a vector; nothing can be learnt")
    seed, order = int(rng.integers(2**31)), rng.spawn(1)[0]
    with _one_thread(seed):
        state = _State(make(), config, math.ceil(len(data.trainable) / config.listeners))
        bf16 = config.bf16 and bf16_gains(state.model)
        if checkpoint is not None and checkpoint.exists():
            state.load(checkpoint, order)
        held_out = _held_out(sessions.before(split.test_s), split, config.validation_users, rng, pathways, memory)
        while state.epoch < state.epochs and not state.stopped(config.patience):
            _epoch(state, data, config, bf16, order, on_progress)
            cosine = validation_cosine(state.average, held_out, held_out.trainable, bf16)
            state.end_epoch(cosine)
            if checkpoint is not None:
                state.save(checkpoint, order)
            if on_progress is not None:
                batches = state.batches
                on_progress(Progress(state.epoch, state.epochs, batches, batches, state.loss, cosine, state.speed))
        state.model.load_state_dict(state.best)
    state.model.eval()
    return Trained(state.model, tuple(state.validation), state.best_epoch)


def cosine_loss(u: Tensor, batch: Batch) -> Tensor:
    """Mean of 1 - cosine over the sessions that count. u: [b, t, d] unit vectors."""
    cosine = (u * batch.target).sum(-1)
    return ((1 - cosine) * batch.mask).sum() / batch.mask.sum()


def contrastive_loss(u: Tensor, batch: Batch, temperature: float, negatives: int) -> Tensor:
    """Cross-entropy of the true session among sessions of other listeners of the batch (InfoNCE)."""
    row, step = batch.mask.nonzero(as_tuple=True)
    chosen = torch.randperm(len(row))[:negatives]
    u, target = u[row, step], batch.target[row, step]  # [m, d]
    own = (u * target).sum(-1, keepdim=True) / temperature  # [m, 1]
    other = (u @ target[chosen].T) / temperature  # [m, negatives]
    other = other.masked_fill(row[:, None] == row[chosen], -torch.inf)
    return (torch.logsumexp(torch.cat([own, other], -1), -1) - own[:, 0]).mean()


def predict_all(model: nn.Module, data: SequenceData, listeners: int = 32) -> Floats32:
    """The model's vector before each session, [n, d] float32; each sees only what came before."""
    out = np.zeros((len(data.sessions), data.sessions.dimension), dtype=np.float32)
    users = np.argsort(data.sessions.size, kind="stable")
    users = users[data.sessions.size[users] > 0]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(users), listeners):
            some = users[start : start + listeners]
            size = data.sessions.size[some]
            u = model(data.batch(some)).float().numpy()
            real = np.arange(u.shape[1]) < size[:, None]
            rows = (data.sessions.offset[:-1][some][:, None] + np.arange(u.shape[1]))[real]
            out[rows] = u[real]
    model.train(was_training)
    return out


def validation_cosine(model: nn.Module, data: SequenceData, users: Ints, bf16: bool = False) -> float:
    """Mean cosine over the sessions of `data` that count; NaN where there are none. Listeners of about equal length
    stand in a batch, which saves padding.
    """
    total, count = 0.0, 0
    model.eval()
    users = users[np.argsort(data.sessions.size[users], kind="stable")]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        for start in range(0, len(users), 32):
            batch = data.batch(users[start : start + 32])
            n = int(batch.mask.sum())
            total += (1 - float(cosine_loss(model(batch).float(), batch))) * n
            count += n
    return total / count if count else math.nan


class _State:
    """Everything that a checkpoint holds."""

    def __init__(self, model: nn.Module, config: TrainingConfig, batches: int) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.epochs = config.passes(batches)
        steps = self.epochs * batches
        self.average = copy.deepcopy(model)
        self._horizon = config.averaged * steps
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 0.05 + 0.95 * (1 + math.cos(math.pi * min(step / steps, 1))) / 2
        )
        self.batches = batches
        self.epoch = 0
        self.best_epoch = 0
        self.best = copy.deepcopy(model.state_dict())
        self.validation: list[float] = []
        self.loss = math.nan
        self.speed = math.nan

    def stopped(self, patience: int) -> bool:
        return self.epoch - self.best_epoch >= patience

    def step(self) -> None:
        """One step of the optimiser, of its rate and of the averaged weights."""
        self.optimizer.step()
        self.schedule.step()
        step = self.schedule.last_epoch
        share = 1 / max(min(self._horizon, step / 2), 1)  # of the new weights; early on over the latter half so far
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)

    def end_epoch(self, cosine: float) -> None:
        self.epoch += 1
        self.validation.append(cosine)
        if math.isnan(cosine) or cosine >= np.nanmax(self.validation):
            self.best_epoch = self.epoch
            self.best = copy.deepcopy(self.average.state_dict())

    def save(self, path: Path, order: np.random.Generator) -> None:
        """Written beside, then renamed, so that a stop in between leaves the last checkpoint whole."""
        content = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
            "progress": [self.epoch, self.best_epoch],
            "validation": self.validation,
            "torch_random": torch.get_rng_state(),
            "numpy_random": json.dumps(order.bit_generator.state),
        }
        beside = path.with_name(path.name + ".new")
        torch.save(content, beside)
        beside.replace(path)

    def load(self, path: Path, order: np.random.Generator) -> None:
        try:
            content: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises what its readers do, from EOFError to RuntimeError
            raise DataError(
                f"{path} is not a whole checkpoint; expected one, or none to train from the start"
            ) from error
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.best, self.validation = content["best"], content["validation"]
        self.epoch, self.best_epoch = content["progress"]
        torch.set_rng_state(content["torch_random"])
        order.bit_generator.state = json.loads(content["numpy_random"])


def _epoch(
    state: _State,
    data: SequenceData,
    config: TrainingConfig,
    bf16: bool,
    order: np.random.Generator,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """One pass over the listeners."""
    model, started, done = state.model, time.perf_counter(), 0
    model.train()
    for i, users in enumerate(data.epoch(config.listeners, order)):
        batch = data.batch(users)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            u = model(batch)
        u = u.float()
        loss = cosine_loss(u, batch)
        state.loss = float(loss.detach())
        if config.contrastive:
            loss = loss + config.contrastive * contrastive_loss(u, batch, config.temperature, config.negatives)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        state.step()
        done += int(data.sessions.size[users].sum())
        state.speed = done / (time.perf_counter() - started)
        if on_progress is not None:
            on_progress(Progress(state.epoch + 1, state.epochs, i + 1, state.batches, state.loss, None, state.speed))


def bf16_gains(model: nn.Module) -> bool:
    """Whether mixed precision pays: for an LSTM, which takes 2.5 times as long in float32. GRUs and plain recurrences
    take as long in either (`python -m benchmarks cosernn --layers`), and would lose digits for nothing.
    """
    return any(isinstance(layer, nn.LSTM) for layer in model.modules()) and bf16_supported()


def bf16_supported() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _held_out(
    known: Sessions,
    split: TimeSplit,
    most: int,
    rng: np.random.Generator,
    pathways: tuple[str, ...],
    memory: tuple[str, ...],
) -> SequenceData:
    """The validation sessions of at most so many listeners, and of these listeners alone: the others take memory."""
    counts = known.has_played & (known.columns.started_s >= split.validation_s)
    users = np.unique(known.user[counts])
    if len(users) > most:
        users = np.sort(rng.choice(users, most, replace=False))
    known = known.take_users(users)
    return SequenceData(known, pathways, memory, known.columns.started_s >= split.validation_s)


@contextmanager
def _one_thread(seed: int) -> Iterator[None]:
    """One thread and torch's own random stream; both as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
