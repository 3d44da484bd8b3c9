"""Training and serving of CoSeRNN: python benchmarks/cosernn.py [--hidden 400] [--users 400] [--seed 0] [--layers]

Training sessions per CPU-second in bf16 and float32, the served step (median of batches of 100), states of all
listeners at once, reads and writes of the store. Random listening: speed does not depend on what is learnt.
--layers: instead, the plainest torch loop over batches of the same shape that lie ready: one recurrent layer between
two linear ones, forward, backward and a step of AdamW. What CoSeRNN takes beyond its LSTM's is batches, features,
attention, averaging and clipping.
Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from sessions import sessions as random_sessions
from torch import nn

from bart.types import Context
from recommender.listener.cosernn import CoSeRNN, CoSeRNNConfig
from recommender.listener.memories import BANK, LONG_TERM
from recommender.listener.training import Progress, TrainingConfig, bf16_supported, train
from recommender.sessions.sessions import time_split
from recommender.states.states import (
    CoSeRNNListener,
    ListenerRow,
    SqliteListenerStore,
    compute_states,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", action="store_true")
    arguments = parser.parse_args()
    if arguments.layers:
        torch.set_num_threads(1)
        for layer in (nn.LSTM, nn.GRU, nn.RNN):
            for bf16 in (True, False) if bf16_supported() else (False,):
                speed = plain_speed(layer, arguments.hidden, bf16)
                name = f"{layer.__name__} alone, {'bf16' if bf16 else 'fp32'}"
                print(f"{name:16} {speed:,.0f} sessions per CPU-second")
        return
    rng = np.random.default_rng(arguments.seed)
    data, _, _ = random_sessions(arguments.users, rng)
    split = time_split(data)
    n = int((data.columns.started_s < split.validation_s).sum())
    print(f"seed {arguments.seed}, hidden {arguments.hidden}, {data.n_users} listeners, {n:,} training sessions")

    for memory, label in ((LONG_TERM, "CoSeRNN"), (BANK, "CoSeRNN+")):
        config = CoSeRNNConfig(hidden=arguments.hidden, sources=data.sources, memory=memory)
        for bf16 in (True, False) if bf16_supported() else (False,):
            trained, speed = training_speed(data, split, config, bf16, rng)
            print(f"{label:10} training, {'bf16' if bf16 else 'fp32'}: {speed:,.0f} sessions per CPU-second")
        serving(CoSeRNNListener.of(trained), data, rng)


def plain_speed(layer: type[nn.RNNBase], hidden: int, bf16: bool, listeners: int = 16, length: int = 220) -> float:
    """Sessions per CPU-second of a loop that has nothing but a recurrent layer of both pathways."""
    width = CoSeRNNConfig().width
    model = nn.ModuleList([nn.Linear(width, width), layer(width, hidden), nn.Linear(hidden, width)])
    step = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(length, 2 * listeners, width)
    spent = []
    for _ in range(6):
        started = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            o, _ = model[1](model[0](x))
            loss = model[2](o).float().square().mean()
        step.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        step.step()
        spent.append(time.process_time() - started)
    return float(listeners * length / np.median(spent))


def training_speed(data, split, config, bf16, rng):  # type: ignore[no-untyped-def]
    """A model after one epoch, and the sessions of that epoch per CPU-second, batches included."""
    marks: list[tuple[int, float]] = []

    def mark(progress: Progress) -> None:
        if progress.validation is None:
            marks.append((progress.batch, time.process_time()))

    training = TrainingConfig(epochs=1, bf16=bf16, validation_users=1)
    trained = train(
        lambda: CoSeRNN(config),
        data,
        split,
        training,
        rng,
        pathways=config.pathways,
        memory=config.memory,
        on_progress=mark,
    ).model
    (first, start), (last, end) = marks[1], marks[-1]  # the first batches warm up
    per_batch = (data.columns.started_s < split.validation_s).sum() / data.n_users * training.listeners
    return trained, per_batch * (last - first) / (end - start)


def serving(model: CoSeRNNListener, data, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    started = time.process_time()
    states = compute_states(model, data)
    print(f"  states of all listeners: {time.process_time() - started:.2f} CPU s ({4 * model.state_size:,} bytes each)")
    context = Context(datetime(2024, 5, 1, 12, tzinfo=timezone.utc))
    print(f"  predict: {median_ms(lambda i: model.predict(states[i], context)):.3f} ms CPU")
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteListenerStore(Path(folder) / "listeners.sqlite", model, "batch")
        recent = np.arange(50)
        started = time.process_time()
        store.put_many(
            ListenerRow(user, state, recent, recent) for user, state in zip(data.user_id, states, strict=True)
        )
        print(f"  store, writing: {(time.process_time() - started) / len(states) * 1e3:.3f} ms CPU a listener")
        ids = rng.permutation(data.user_id).tolist()
        print(f"  store, reading a row: {median_ms(lambda i: store.get(ids[i])):.3f} ms CPU")
        print(f"  store, listener with prediction: {median_ms(lambda i: store.listener(ids[i], context)):.3f} ms CPU")
        store.close()


def median_ms(call, batches: int = 31, size: int = 100) -> float:  # type: ignore[no-untyped-def]
    """Median CPU milliseconds of a call, over batches of calls."""
    times = []
    for _ in range(batches):
        started = time.process_time()
        for i in range(size):
            call(i)
        times.append((time.process_time() - started) / size)
    return float(np.median(times) * 1e3)


if __name__ == "__main__":
    main()
