"""Table 2 of the CoSeRNN paper, from an event table: every model under one protocol, on the same test sessions.

The test set are the sessions of the last days; the vector for session t is made from the sessions before t, those of
the test set included (section 6.2). Every metric is kept by session, so that p-values are taken by listener and the
same figures can be split by context (Figure 5).

"CoSeRNN" is the paper's model; "CoSeRNN+", the one that serves, fuses more memories. Every row ranks the tracks of
earlier sessions twice: by its vector alone (`literal_map@100`), and by a regression on its vector and on repeats
(`repeats_map@100`, recommender/study/repeats.py); what that regression does without any vector stands beside the table.

Each network is trained as often as any other: once for each learning rate, of which the one with the best validation
cosine is taken, then from `seeds` seeds. Tables are means over these, and p-values and intervals count another seed as
chance (recommender/study/seeds.py). Test sessions choose nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError
from bart.types import DEVICES, Floats, Floats32, Ints
from recommender.listener.baselines import (
    HEURISTICS,
    NETWORKS,
    BaselineConfig,
    heuristic,
    oracle_full,
    oracle_half,
    popularity,
)
from recommender.listener.batches import SequenceData
from recommender.listener.cosernn import COSERNN_MODELS, CoSeRNN, CoSeRNNConfig
from recommender.listener.memories import DAY_PART, DAY_PARTS
from recommender.listener.training import (
    Progress,
    Trained,
    TrainingConfig,
    evaluation_training,
    predict_all,
    train,
)
from recommender.sessions.features import PATHWAYS
from recommender.sessions.sessions import cut_sessions
from recommender.sessions.table import Sessions, TimeSplit, time_split
from recommender.study.metrics import (
    TrackCandidates,
    cosine,
    open_candidates,
    open_rank,
    session_rank,
    track_candidates,
    track_cosine,
    track_ranking,
)
from recommender.study.repeats import fit_repeats, repeat_features
from recommender.study.seeds import seeded_difference

if TYPE_CHECKING:
    import pyarrow as pa

METRICS = (
    "cosine", "mrr@20", "rank@20", "mrr@50", "rank@50", "map@25", "recall@10@25", "map@100", "recall@10@100",
    "open_mrr", "literal_map@100", "repeats_map@100",
)  # fmt: skip
MODELS = (
    *HEURISTICS, "Popularity", *NETWORKS, "CoSeRNN", "CoSeRNN+", "Oracle half", "Oracle full",
)  # fmt: skip
TRAINED = (*NETWORKS, "CoSeRNN", "CoSeRNN+")


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate, and how the networks are trained.

    hidden: of every network. seeds: trainings of each, over which tables are means. rates: learning rates that each
    network tries; with one there is nothing to try.
    """

    models: tuple[str, ...] = MODELS
    hidden: int = 100
    test_d: float = 14
    validation_d: float = 5
    training: TrainingConfig = field(default_factory=evaluation_training)
    seeds: int = 5
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.rates or min(self.rates) <= 0:
            raise ValueError(f"seeds is {self.seeds}, rates {self.rates}; expected at least one of each, rates > 0")
        for name in self.models:
            if name not in MODELS:
                raise ValueError(f"model {name!r} is unknown; expected one of {', '.join(MODELS)}")


@dataclass(frozen=True, eq=False)
class Protocol:
    """The test sessions [m] and their candidates, the same for every model."""

    sessions: Sessions
    split: TimeSplit
    vector: Floats32
    rows: Ints
    other: Ints
    tracks: Mapping[str, Any]

    @classmethod
    def make(cls, sessions: Sessions, split: TimeSplit, vector: Floats32, rng: np.random.Generator) -> Protocol:
        """Test sessions with a played track of listeners with a history. Raises DataError where there is none."""
        part = split.part(sessions.columns.started_s)
        rows = np.flatnonzero((part == 2) & sessions.has_played & (sessions.position > 0))
        if len(np.unique(sessions.user[rows])) < 2:
            raise DataError("fewer than two listeners have a test session with a history; nothing can be evaluated")
        tracks = {
            "25": track_candidates(sessions, rows, 25),
            "100": track_candidates(sessions, rows, 100),
            "literal": track_candidates(sessions, rows, 100, literal=True),
        }
        return cls(sessions, split, vector, rows, open_candidates(sessions, rows, rng), tracks)

    def metrics(self, u: Floats32, repeats: Floats) -> dict[str, Floats]:
        """Each metric by test session, [m], NaN where it does not apply.

        u: [n, d] of all sessions. repeats: coefficients of `fit_repeats`. The paper's own candidates hold the session
        itself, so there only the vector ranks.
        """
        v, s, rows = u[self.rows], self.sessions, self.rows
        out = {"cosine": cosine(v, s, rows)}
        for k in (20, 50):
            rank = session_rank(v, s, rows, k)
            out |= {f"mrr@{k}": 1 / rank, f"rank@{k}": rank}
        for k in (25, 100):
            out[f"map@{k}"], out[f"recall@10@{k}"] = self._by_vector(v, str(k))
        out["open_mrr"] = 1 / open_rank(v, s, rows, self.other)
        out["literal_map@100"] = self._by_vector(v, "literal")[0]
        past = self.tracks["literal"]
        score = repeat_features(track_cosine(v, self.vector, past), past) @ repeats
        out["repeats_map@100"] = track_ranking(score, past)[0]
        return out

    def _by_vector(self, v: Floats32, candidates: str) -> tuple[Floats, Floats]:
        return track_ranking(track_cosine(v, self.vector, self.tracks[candidates]), self.tracks[candidates])

    def fit_repeats(self, u: Floats32, rng: np.random.Generator) -> Floats:
        """Coefficients learnt from the validation sessions, of the training ones where there are none. u: [n, d]."""
        s = self.sessions
        part = self.split.part(s.columns.started_s)
        usable = s.has_played & (s.position > 0)
        rows = np.flatnonzero(usable & (part == 1))
        if not len(rows):
            rows = np.flatnonzero(usable & (part == 0))
        past: TrackCandidates = track_candidates(s, rows, 100, literal=True)
        return fit_repeats(track_cosine(u[rows], self.vector, past), past, rng)


def evaluate_listener(
    events: pa.Table,
    row_of: Mapping[str, int],
    vector: Floats32,
    config: EvaluationConfig | None = None,
    *,
    rng: np.random.Generator,
    on_progress: Callable[[str, Progress | None], None] | None = None,
) -> dict[str, Any]:
    """Table 2 as a dict that JSON can hold: {"table2": {model: {metric: value}}, "p_values", "contexts", "sizes"}.

    A metric that applies to no session (rankings among 50 sessions in a short history) is None.

    row_of, vector: unit track vectors [items, d] by id, from data before the test set if they are to be comparable.
    p_values, intervals: {model: {metric: ...}}, two-sided, of the difference to "CoSeRNN" over listeners and trainings
    (`seeded_difference`). by_seed: means of each training. contexts: {model: {part of
    the day or device: {metric: value}}}. on_progress(model, progress): progress is None when the model is done.
    """
    config = config or EvaluationConfig()
    sessions = cut_sessions(events, row_of, vector)
    return evaluate_sessions(sessions, vector, config, rng=rng, on_progress=on_progress)


def evaluate_sessions(
    sessions: Sessions,
    vector: Floats32,
    config: EvaluationConfig,
    *,
    rng: np.random.Generator,
    on_progress: Callable[[str, Progress | None], None] | None = None,
) -> dict[str, Any]:
    """`evaluate_listener` from sessions already cut."""
    split = time_split(sessions, config.test_d, config.validation_d)
    protocol_rng, *model_rngs, repeat_rng = rng.spawn(2 + len(MODELS))  # each model has a stream of its own
    protocol = Protocol.make(sessions, split, vector, protocol_rng)
    found: dict[str, dict[str, Floats]] = {}
    validation: dict[str, list[list[float]]] = {}
    tuning: dict[str, dict[str, float | None]] = {}

    def record(name: str, progress: Progress | None) -> None:
        if progress is not None and progress.validation is not None:
            validation[name][-1].append(round(progress.validation, 5))
        if on_progress is not None:
            on_progress(name, progress)

    def measured(u: Floats32) -> dict[str, Floats]:
        return protocol.metrics(u, protocol.fit_repeats(u, copy.deepcopy(repeat_rng)))

    for name, model_rng in zip(MODELS, model_rngs, strict=True):
        if name not in config.models:
            continue
        if name in TRAINED:
            validation[name] = []

            def vectors(rate: float, rng: np.random.Generator, name: str = name) -> tuple[Floats32, float | None]:
                validation[name].append([])
                training = replace(config.training, learning_rate=rate)
                return network_vectors(name, protocol, config.hidden, training, rng, partial(record, name))

            trial_rng, *seed_rngs = model_rng.spawn(1 + config.seeds)
            rate, tuning[name] = best_rate(config.rates, vectors, trial_rng)
            runs = [measured(vectors(rate, seed_rng)[0]) for seed_rng in seed_rngs]
        else:
            runs = [measured(vectors_of(name, protocol, model_rng))]
        found[name] = {m: np.stack([run[m] for run in runs]) for m in METRICS}  # [seeds or 1, m]
        record(name, None)
    user = sessions.user[protocol.rows]
    against = found.get("CoSeRNN")
    differences = {
        name: {m: seeded_difference(values[m] - against[m], user) for m in METRICS}
        for name, values in found.items()
        if against is not None and name != "CoSeRNN"
    }
    part = split.part(sessions.columns.started_s)
    means = {name: {m: values[m].mean(axis=0) for m in METRICS} for name, values in found.items()}
    nothing = np.zeros((len(sessions), sessions.dimension), dtype=np.float32)
    return {
        "table2": {name: {m: mean_value(values[m]) for m in METRICS} for name, values in means.items()},
        "p_values": {name: {m: d.p_value for m, d in row.items()} for name, row in differences.items()},
        "intervals": {name: {m: d.interval() for m, d in row.items()} for name, row in differences.items()},
        "seed_deviation": {
            name: {m: _finite(d.seed_deviation) for m, d in row.items()} for name, row in differences.items()
        },
        "by_seed": {
            name: {m: [mean_value(run) for run in values[m]] for m in METRICS}
            for name, values in found.items()
            if name in TRAINED
        },
        "repeats_without_vector": mean_value(measured(nothing)["repeats_map@100"]),
        "tuning": tuning,
        "validation": validation,
        "contexts": {name: _by_context(values, sessions, protocol.rows) for name, values in means.items()},
        "sizes": {
            "listeners": sessions.n_users,
            "test_listeners": len(np.unique(user)),
            "sessions": len(sessions),
            "training_sessions": int((part == 0).sum()),
            "validation_sessions": int((part == 1).sum()),
            "test_sessions": len(protocol.rows),
            "test_sessions_by_metric": {
                m: int((~np.isnan(next(iter(means.values()))[m])).sum()) for m in METRICS if means
            },
        },
    }


def best_rate(
    rates: Sequence[float],
    vectors: Callable[[float, np.random.Generator], tuple[Floats32, float | None]],
    rng: np.random.Generator,
) -> tuple[float, dict[str, float | None]]:
    """The learning rate with the best validation cosine, from the same start each, and what each of them reached.

    The one in the middle where there is nothing to validate on, or one alone.
    """
    middle = rates[len(rates) // 2]
    if len(rates) == 1:
        return middle, {}
    reached = {rate: vectors(rate, copy.deepcopy(rng))[1] for rate in rates}
    known = {rate: value for rate, value in reached.items() if value is not None}
    best = max(known, key=lambda rate: known[rate]) if known else middle
    return best, {f"{rate:g}": value for rate, value in reached.items()}


def vectors_of(name: str, protocol: Protocol, rng: np.random.Generator) -> Floats32:
    """[n, d] the vectors before each session of a model that needs no training."""
    sessions = protocol.sessions
    if name in HEURISTICS:
        return heuristic(sessions, name)
    if name == "Popularity":
        past = sessions.before(protocol.split.test_s)
        return popularity(sessions, np.bincount(past.track, minlength=len(protocol.vector)))
    return oracle_half(sessions, protocol.vector, rng) if name == "Oracle half" else oracle_full(sessions)


def network_vectors(
    name: str,
    protocol: Protocol,
    hidden: int,
    training: TrainingConfig,
    rng: np.random.Generator,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Floats32, float | None]:
    """[n, d] the vectors before each session of a network that is trained first, and its best validation cosine."""
    sessions = protocol.sessions
    if name not in NETWORKS:
        shape = CoSeRNNConfig(hidden=hidden, memory=COSERNN_MODELS[name])
        return cosernn_vectors(protocol, shape, training, rng, on_progress)
    config = BaselineConfig(sessions.n_users, sessions.dimension, hidden, n_sources=len(sessions.sources))
    found = train(
        lambda: NETWORKS[name](config), sessions, protocol.split, training, rng,
        pathways=PATHWAYS, memory=(), on_progress=on_progress,
    )  # fmt: skip
    return predict_all(found.model, SequenceData(sessions, PATHWAYS, ())), _best(found)


def cosernn_vectors(
    protocol: Protocol,
    config: CoSeRNNConfig,
    training: TrainingConfig,
    rng: np.random.Generator,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Floats32, float | None]:
    """The same of a CoSeRNN of the given shape, trained on the protocol's split; dimension and sources: the data's."""
    sessions = protocol.sessions
    config = replace(config, dimension=sessions.dimension, sources=sessions.sources)
    found = train(
        lambda: CoSeRNN(config), sessions, protocol.split, training, rng,
        pathways=config.pathways, memory=config.memory, on_progress=on_progress,
    )  # fmt: skip
    return predict_all(found.model, SequenceData(sessions, config.pathways, config.memory)), _best(found)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _best(found: Trained) -> float | None:
    return max(found.validation) if found.validation else None


def mean_value(values: Floats) -> float | None:
    """Mean over the sessions to which a metric applies; None where there is none."""
    applies = values[~np.isnan(values)]
    return float(applies.mean()) if len(applies) else None


def _by_context(values: Mapping[str, Floats], sessions: Sessions, rows: Ints) -> dict[str, dict[str, float | None]]:
    """Means by part of the day and by device, for those that occur."""
    part, device = DAY_PART[sessions.columns.hour[rows]], sessions.columns.device[rows]
    groups: Sequence[tuple[str, Any]] = [
        *((name, part == i) for i, name in enumerate(DAY_PARTS)),
        *((name, device == i) for i, name in enumerate((*DEVICES, "other"))),
    ]
    return {name: {m: mean_value(values[m][inside]) for m in METRICS} for name, inside in groups if inside.any()}
