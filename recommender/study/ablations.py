"""Tables 3 and 4 of the CoSeRNN paper: the paper's model without some of its inputs, under the protocol of Table 2."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bart.types import Floats, Floats32
from recommender.listener.cosernn import CoSeRNNConfig
from recommender.listener.memories import LONG_TERM
from recommender.listener.training import Progress
from recommender.sessions.table import Sessions, time_split
from recommender.study.evaluation import METRICS, EvaluationConfig, Protocol, cosernn_vectors, mean_value
from recommender.study.seeds import seeded_difference

# Table 3: input features, each added to those before; Table 4: what a session is to the network.
TABLE_3: Mapping[str, tuple[str, ...]] = {
    "Last sess. embeddings": ("last",),
    "+ curr. context": ("last", "context"),
    "+ # tracks in last": ("last", "context", "tracks"),
    "+ time since last": ("last", "context", "tracks", "gap"),
    "+ last stream source": ("last", "context", "tracks", "gap", "source"),
    "+ curr. stream source": ("last", "context", "tracks", "gap", "source", "current_source"),
}
TABLE_4: Mapping[str, tuple[str, ...]] = {
    "All": ("all",),
    "Plays": ("played",),
    "Plays + skips": ("played", "skipped"),
    "Plays + skips + all": ("played", "skipped", "all"),
}
WHOLE_MODEL = {"table3": "+ last stream source", "table4": "Plays + skips"}  # the same model in both tables


def ablations(
    sessions: Sessions,
    vector: Floats32,
    config: EvaluationConfig,
    *,
    rng: np.random.Generator,
    on_progress: Callable[[str, Progress | None], None] | None = None,
) -> dict[str, Any]:
    """Tables 3 and 4: {"table3": {features: {metric: value}}, "table4": {session encoding: {metric: value}}}, and
    "ablation_p_values" of the same shape: two-sided, over listeners and trainings, against the whole model.
    """
    split = time_split(sessions, config.test_d, config.validation_d)
    protocol_rng, model_rng = rng.spawn(2)
    protocol = Protocol.make(sessions, split, vector, protocol_rng)
    variants = [("table3", name, {"features": value}) for name, value in TABLE_3.items()]
    variants += [("table4", name, {"pathways": value}) for name, value in TABLE_4.items()]
    known: dict[CoSeRNNConfig, dict[str, Floats]] = {}  # the two tables share the whole model
    shapes: dict[str, dict[str, CoSeRNNConfig]] = {"table3": {}, "table4": {}}
    for table, name, change in variants:
        shape = CoSeRNNConfig(hidden=config.hidden, memory=LONG_TERM, **change)  # type: ignore[arg-type]
        if shape not in known:
            same = copy.deepcopy(model_rng)  # the same start for every variant

            def tell(progress: Progress, name: str = name) -> None:
                if on_progress is not None:
                    on_progress(name, progress)

            runs = []
            for seed_rng in same.spawn(config.seeds):
                u, _ = cosernn_vectors(protocol, shape, config.training, seed_rng, tell)
                runs.append(protocol.metrics(u, protocol.fit_repeats(u, copy.deepcopy(protocol_rng))))
            known[shape] = {m: np.stack([run[m] for run in runs]) for m in METRICS}
        shapes[table][name] = shape
        if on_progress is not None:
            on_progress(name, None)
    user = sessions.user[protocol.rows]
    tests: dict[str, dict[str, dict[str, float | None]]] = {}
    for table, by_name in shapes.items():
        whole = known[by_name[WHOLE_MODEL[table]]]
        tests[table] = {
            name: {m: seeded_difference(known[shape][m] - whole[m], user).p_value for m in METRICS}
            for name, shape in by_name.items()
            if name != WHOLE_MODEL[table]
        }
    means = {
        table: {name: {m: mean_value(known[shape][m].mean(axis=0)) for m in METRICS} for name, shape in by_name.items()}
        for table, by_name in shapes.items()
    }
    return {**means, "ablation_p_values": tests}
