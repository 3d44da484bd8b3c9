"""One listener model trained from an event table into a directory: weights, track vectors, checkpoint, measurements.

The directory holds what `load_listener_model` reads, `tracks.parquet` (the vectors the model was trained on), the
checkpoint to resume from, and training.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError
from recommender.listener.cosernn import COSERNN_MODELS, CoSeRNN, CoSeRNNConfig
from recommender.listener.cosernn_serving import CoSeRNNListener
from recommender.listener.data import listening_data, write_vectors
from recommender.listener.training import evaluation_training, train
from recommender.sessions.sessions import time_split

if TYPE_CHECKING:
    import pyarrow as pa

Tick = Callable[..., None]
CHECKPOINT, RECORD, TRACKS = "checkpoint.pt", "training.json", "tracks.parquet"


def train_listener_model(
    events: pa.Table,
    out: Path,
    *,
    model: str = "CoSeRNN+",
    tracks: Path | None = None,
    playlists: Path | None = None,
    hidden: int = 100,
    epochs: int | None = None,
    seed: int = 1,
    stage: Callable[[str], Tick] | None = None,
) -> dict[str, Any]:
    """Trains into `out` and returns what stands in training.json.

    model: a name of `COSERNN_MODELS`. epochs: at most; None for a number by size. The last five days choose the epoch.
    A checkpoint in `out` is resumed where it was made by the same call, to the same bits. stage: begins a named stage,
    returns its tick(done, total, note).
    Raises DataError for an unknown model, or an `out` with a checkpoint of another training.
    """
    if model not in COSERNN_MODELS:
        raise DataError(f"model is {model!r}; expected {' or '.join(COSERNN_MODELS)}")
    begin = stage or (lambda _: _silent)
    vector_rng, model_rng = np.random.default_rng(seed).spawn(2)
    data = listening_data(events, rng=vector_rng, tracks=tracks, playlists=playlists, hidden_d=0, on_stage=begin)
    sessions = data.sessions
    split = time_split(sessions, test_d=0)
    shape = CoSeRNNConfig(
        dimension=sessions.dimension, hidden=hidden, sources=sessions.sources, memory=COSERNN_MODELS[model]
    )
    record: dict[str, Any] = {
        "model": model, "seed": seed, "shape": asdict(shape), "training": asdict(evaluation_training(epochs)),
        "listeners": sessions.n_users, "sessions": len(sessions), "vectors_from": data.vectors_from,
        "vectors": float(np.abs(data.vector).sum(dtype=np.float64)),
        "last_session_s": int(sessions.columns.started_s.max()),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    _same_training(out, record)
    _write(out / RECORD, record)

    tick = begin(f"Training {model}")

    trained = train(
        lambda: CoSeRNN(shape), sessions, split, evaluation_training(epochs), model_rng,
        pathways=shape.pathways, memory=shape.memory, checkpoint=out / CHECKPOINT,
        on_progress=lambda p: tick(p.done, p.total, p.note),
    )  # fmt: skip
    CoSeRNNListener.of(trained.model).save(out)
    write_vectors(out / TRACKS, data.item_id, data.vector)
    best = trained.validation[trained.best_epoch - 1] if trained.validation and trained.best_epoch else None
    record |= {
        "validation": [round(value, 6) for value in trained.validation],
        "best_epoch": trained.best_epoch,
        "best_validation": None if best is None or np.isnan(best) else round(best, 4),
    }
    _write(out / RECORD, record)
    return record


def _same_training(out: Path, record: dict[str, Any]) -> None:
    """Refuses a directory whose checkpoint another training made."""
    if not (out / CHECKPOINT).exists():
        return
    try:
        before = dict(json.loads((out / RECORD).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{out} holds a checkpoint of an unknown training; expected another --out") from error
    for key, value in json.loads(json.dumps(record)).items():
        if before.get(key) != value:
            raise DataError(
                f"{out} holds a checkpoint of another training ({key} differs); expected the same call or another --out"
            )


def _write(path: Path, record: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def _silent(done: int, total: int, note: str = "") -> None:
    """Progress for nobody."""
