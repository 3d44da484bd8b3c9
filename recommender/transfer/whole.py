"""The whole evaluation of listener vectors on an event table: users.json with every figure, tables.md to read.

Every kind of vector is made `seeds` times, the task model is trained on it with the same trials, and what is compared
are the same listeners and pairs: differences have intervals over listeners and trainings (`study.seeds`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.types import Floats, Floats32
from recommender.study.seeds import seeded_difference
from recommender.transfer.clusters import labels, ndcg
from recommender.transfer.cold import cold
from recommender.transfer.kinds import AVERAGE, ENCODER, KINDS, SEEDLESS, encoder_of
from recommender.transfer.protocol import NEGATIVES, Asked, Prepared, ask, aucs
from recommender.transfer.report import as_text
from recommender.transfer.task import TRIALS, Trial, scaled, score, tuned
from recommender.users.encoder import EncoderConfig, UserEncoder
from recommender.users.features import GROUP_NAMES

JSON_FILE, TEXT_FILE = "users.json", "tables.md"
MEASURES = ("auc", "accuracy", "pooled", "new_auc")
Stage = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class StudyConfig:
    """kinds: compared beside the encoder, in that order; negatives: names of `NEGATIVES`. trials: of the task model,
    the same for each kind, chosen on validation listeners. ablate: also without one group of features at a time."""

    kinds: tuple[str, ...] = tuple(KINDS)
    negatives: tuple[str, ...] = tuple(NEGATIVES)
    trials: tuple[Trial, ...] = TRIALS
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    ablate: bool = True

    def __post_init__(self) -> None:
        for given, known in ((self.kinds, KINDS), (self.negatives, NEGATIVES)):
            for name in given:
                if name not in known:
                    raise DataError(f"{name!r} is unknown; expected some of {', '.join(known)}")


def run_study(
    prepared: Prepared, config: StudyConfig, seed: int, seeds: int, on_stage: Stage | None = None
) -> dict[str, Any]:
    """Every figure of one data set, as JSON holds it, with the values by listener under "values" (arrays)."""
    tell = on_stage or (lambda _: None)
    pair_rng = np.random.default_rng(seed)
    asked = {name: ask(prepared, NEGATIVES[name], pair_rng) for name in config.negatives}
    shared = labels(prepared)
    values: dict[str, Any] = {"task": {}, "clusters": {}, "cold": {}, "without": {}}
    cpu: dict[str, float] = {}
    for run in range(seeds):
        since = time.process_time()
        tell(f"Encoder, training {run + 1} of {seeds}")
        encoder = encoder_of(prepared, config.encoder, seed + run)
        cpu[ENCODER] = cpu.get(ENCODER, 0.0) + time.process_time() - since
        vector = prepared.by_user(encoder.encode(prepared.now.value))
        _judge(values, ENCODER, vector, prepared, asked, shared, config, seed + run)
        if run == 0 and config.ablate:
            tell("Without one group of features at a time")
            values["without"] = _ablated(prepared, encoder, asked, shared, config, seed)
        for name in config.negatives:
            for kind, found in cold(prepared, encoder, NEGATIVES[name], seed + run, config.trials).items():
                values["cold"].setdefault(name, {}).setdefault(kind, []).append(found)
        for kind in config.kinds:
            if run and kind in SEEDLESS:
                continue
            tell(f"{kind}, training {run + 1} of {seeds}")
            since = time.process_time()
            vector = KINDS[kind](prepared, config.encoder.dimension, seed + run)
            cpu[kind] = cpu.get(kind, 0.0) + time.process_time() - since
            _judge(values, kind, vector, prepared, asked, shared, config, seed + run)
    told = _told(prepared, config, asked, seed, seeds) | {"cpu_s": {name: round(s, 1) for name, s in cpu.items()}}
    return {**told, **summary(values, config), "values": values}


def _judge(
    values: dict[str, Any],
    kind: str,
    vector: Floats32,
    prepared: Prepared,
    asked: dict[str, Asked],
    shared: dict[str, Any],
    config: StudyConfig,
    seed: int,
) -> None:
    for name, pairs in asked.items():
        into = values["task"].setdefault(name, {}).setdefault(kind, {measure: [] for measure in MEASURES})
        for measure, value in _task(vector, prepared, pairs, config.trials, seed).items():
            into[measure].append(value)
    for name, (places, label) in shared.items():
        own = vector[prepared.now.listener[places]]
        values["clusters"].setdefault(name, {}).setdefault(kind, []).append(ndcg(own, label))


def _task(vector: Floats32, prepared: Prepared, pairs: Asked, trials: Sequence[Trial], seed: int) -> dict[str, Floats]:
    z = scaled(vector, np.unique(pairs.train.user))
    model, _, _ = tuned(z, prepared.side, pairs.train, pairs.valid, seed, trials)
    logit = score(model, z, prepared.side, pairs.test)
    every, new = aucs(logit, pairs.test), aucs(logit, pairs.test, pairs.new)
    return {**every, "new_auc": new["auc"]}


def _ablated(
    prepared: Prepared,
    encoder: UserEncoder,
    asked: dict[str, Asked],
    shared: dict[str, Any],
    config: StudyConfig,
    seed: int,
) -> dict[str, dict[str, float]]:
    """{group: {measure: value}} of the encoder that is not told a group; any subset gives it a vector."""
    out = {}
    last = config.negatives[-1]
    for group in ("", *GROUP_NAMES):
        value = prepared.now.value.copy()
        if group:
            value[:, prepared.features.slices[group]] = np.nan
        vector = prepared.by_user(encoder.encode(value))
        found = _task(vector, prepared, asked[last], config.trials[-1:], seed)
        line = {"auc": float(np.nanmean(found["auc"]))}
        for name, (places, label) in shared.items():
            line[name] = float(np.nanmean(ndcg(vector[prepared.now.listener[places]], label)))
        out[group] = line
    return out


def _told(prepared: Prepared, config: StudyConfig, asked: dict[str, Asked], seed: int, seeds: int) -> dict[str, Any]:
    some = next(iter(asked.values()))
    return {
        "seed": seed,
        "seeds": seeds,
        "configuration": {"encoder": asdict(config.encoder), "trials": [asdict(trial) for trial in config.trials],
                          "protocol": asdict(prepared.config)},
        "sizes": {
            "listeners": len(prepared.user_id),
            "tracks": len(prepared.items),
            "events before": len(prepared.before),
            "snapshots": len(prepared.lessons.value),
            "features": prepared.features.width,
            "train, validation, test listeners": [len(np.unique(p.user)) for p in (some.train, some.valid, some.test)],
            "tested pairs": len(some.test),
        },
    }  # fmt: skip


def summary(values: dict[str, Any], config: StudyConfig) -> dict[str, Any]:
    """Means, and differences of the encoder to each other kind with intervals over listeners and trainings."""
    task, clusters, first = {}, {}, {}
    for name, kinds in values["task"].items():
        task[name] = {
            kind: {measure: _line(found[measure], kinds[ENCODER][measure]) for measure in MEASURES}
            for kind, found in kinds.items()
        }
    for name, kinds in values["clusters"].items():
        clusters[name] = {kind: _line(found, kinds[ENCODER]) for kind, found in kinds.items()}
    for name, kinds in values["cold"].items():
        first[name] = {
            kind: {
                measure: _line([run[measure] for run in found], [run[measure] for run in kinds["encoder"]])
                for measure in ("auc", "accuracy")
            }
            for kind, found in kinds.items()
        }
    del config
    return {"task": task, "clusters": clusters, "first_hours": first, "without": values["without"]}


def _line(own: list[Floats], encoder: list[Floats]) -> dict[str, Any]:
    """mean; gain: of the encoder over this kind, its interval and the gain in per cent of the mean."""
    ours = np.stack(encoder)
    theirs = np.broadcast_to(np.stack(own), ours.shape)
    there = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
    mean = float(theirs[:, there].mean()) if there.any() else float("nan")
    if theirs.shape == ours.shape and np.array_equal(ours, theirs, equal_nan=True):
        return {"mean": mean}
    found = seeded_difference(np.where(there, ours - theirs, np.nan), np.arange(ours.shape[1]))
    return {"mean": mean, "gain": found.value, "interval": found.interval(), "percent": 100 * found.value / mean}


def write_study(out: Path, found: dict[str, Any]) -> str:
    """Writes users.json and tables.md into `out`; the tables as text."""
    out.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in found.items() if name != "values"}
    text = as_text(kept)
    for name, content in ((JSON_FILE, json.dumps(kept, indent=1)), (TEXT_FILE, text)):
        beside = out / f"{name}.new"
        beside.write_text(content + "\n", encoding="utf-8")
        beside.replace(out / name)
    return text


__all__ = ["AVERAGE", "StudyConfig", "run_study", "summary", "write_study"]
