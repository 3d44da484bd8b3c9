"""Table 2 of the CoSeRNN paper, from an event table: every model under one protocol, on the same test sessions.

The test set are the sessions of the last days; the vector for session t is made from the sessions before t, those of
the test set included (section 6.2). Every metric is kept by session, so that p-values are taken by listener and the
same figures can be split by context (Figure 5).

"CoSeRNN" is the paper's model. "CoSeRNN+", the one that serves, fuses more memories and ranks the tracks of earlier
sessions (`literal_map@100`) by its vector and by repeats (recommender/study/repeats.py); its vector alone stands in
`vector_alone`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from recommender.listener.training import Progress, TrainingConfig, evaluation_training, predict_all, train
from recommender.sessions.features import PATHWAYS
from recommender.sessions.sessions import cut_sessions
from recommender.sessions.table import Sessions, TimeSplit, time_split
from recommender.study.metrics import (
    TrackCandidates,
    clustered_p_value,
    cosine,
    open_candidates,
    open_rank,
    session_rank,
    track_candidates,
    track_cosine,
    track_ranking,
)
from recommender.study.repeats import fit_repeats, repeat_features

if TYPE_CHECKING:
    import pyarrow as pa

METRICS = (
    "cosine", "mrr@20", "rank@20", "mrr@50", "rank@50", "map@25", "recall@10@25", "map@100", "recall@10@100",
    "open_mrr", "literal_map@100",
)  # fmt: skip
MODELS = (
    *HEURISTICS, "Popularity", *NETWORKS, "CoSeRNN", "CoSeRNN+", "Oracle half", "Oracle full",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate, and how the networks are trained. hidden: of every network."""

    models: tuple[str, ...] = MODELS
    hidden: int = 100
    test_d: float = 14
    validation_d: float = 5
    training: TrainingConfig = field(default_factory=evaluation_training)

    def __post_init__(self) -> None:
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

    def metrics(self, u: Floats32, repeats: Floats | None = None) -> dict[str, Floats]:
        """Each metric by test session, [m], NaN where it does not apply.

        u: [n, d] of all sessions. repeats: coefficients of `fit_repeats`, by which tracks of earlier sessions are
        ranked; by cosine without. The paper's own candidates hold the session itself, so there only the vector ranks.
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
        if repeats is not None:
            past = self.tracks["literal"]
            score = repeat_features(track_cosine(v, self.vector, past), past) @ repeats
            out["literal_map@100"] = track_ranking(score, past)[0]
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
    p_values: {model: {metric: p}}, two-sided paired t-tests by listener against "CoSeRNN". contexts: {model: {part of
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
    alone: dict[str, dict[str, Floats]] = {}
    validation: dict[str, list[float]] = {}

    def record(name: str, progress: Progress | None) -> None:
        if progress is not None and progress.validation is not None:
            validation.setdefault(name, []).append(round(progress.validation, 5))
        if on_progress is not None:
            on_progress(name, progress)

    for name, model_rng in zip(MODELS, model_rngs, strict=True):
        if name in config.models:
            u = vectors_of(name, protocol, config, model_rng, record)
            found[name] = protocol.metrics(u)
            if name == "CoSeRNN+":
                alone[name] = found[name]
                found[name] = protocol.metrics(u, protocol.fit_repeats(u, repeat_rng))
            record(name, None)
    user = sessions.user[protocol.rows]
    against = found.get("CoSeRNN")
    part = split.part(sessions.columns.started_s)
    return {
        "table2": {name: {m: mean_value(values[m]) for m in METRICS} for name, values in found.items()},
        "p_values": {
            name: {m: p_value(values[m] - against[m], user) for m in METRICS}
            for name, values in found.items()
            if against is not None and name != "CoSeRNN"
        },
        "vector_alone": {name: {m: mean_value(values[m]) for m in METRICS} for name, values in alone.items()},
        "validation": validation,
        "contexts": {name: _by_context(values, sessions, protocol.rows) for name, values in found.items()},
        "sizes": {
            "listeners": sessions.n_users,
            "test_listeners": len(np.unique(user)),
            "sessions": len(sessions),
            "training_sessions": int((part == 0).sum()),
            "validation_sessions": int((part == 1).sum()),
            "test_sessions": len(protocol.rows),
            "test_sessions_by_metric": {
                m: int((~np.isnan(next(iter(found.values()))[m])).sum()) for m in METRICS if found
            },
        },
    }


def vectors_of(
    name: str,
    protocol: Protocol,
    config: EvaluationConfig,
    rng: np.random.Generator,
    on_progress: Callable[[str, Progress | None], None] | None = None,
) -> Floats32:
    """[n, d] the vectors of one model before each session; networks are trained first."""
    sessions = protocol.sessions
    if name in HEURISTICS:
        return heuristic(sessions, name)
    if name == "Popularity":
        past = sessions.before(protocol.split.test_s)
        return popularity(sessions, np.bincount(past.track, minlength=len(protocol.vector)))
    if name == "Oracle half":
        return oracle_half(sessions, protocol.vector, rng)
    if name == "Oracle full":
        return oracle_full(sessions)

    def tell(progress: Progress) -> None:
        if on_progress is not None:
            on_progress(name, progress)

    if name in NETWORKS:
        shape = BaselineConfig(sessions.n_users, sessions.dimension, config.hidden, n_sources=len(sessions.sources))
        model = train(
            lambda: NETWORKS[name](shape), sessions, protocol.split, config.training, rng,
            pathways=PATHWAYS, memory=(), on_progress=tell,
        ).model  # fmt: skip
        return predict_all(model, SequenceData(sessions, PATHWAYS, ()))
    return cosernn_vectors(
        protocol, CoSeRNNConfig(hidden=config.hidden, memory=COSERNN_MODELS[name]),
        config.training, rng, tell,
    )  # fmt: skip


def cosernn_vectors(
    protocol: Protocol,
    config: CoSeRNNConfig,
    training: TrainingConfig,
    rng: np.random.Generator,
    on_progress: Callable[[Progress], None] | None = None,
) -> Floats32:
    """[n, d] of a CoSeRNN of the given shape, trained on the protocol's split; dimension and sources are the data's."""
    sessions = protocol.sessions
    config = replace(config, dimension=sessions.dimension, sources=sessions.sources)
    model = train(
        lambda: CoSeRNN(config), sessions, protocol.split, training, rng,
        pathways=config.pathways, memory=config.memory, on_progress=on_progress,
    ).model  # fmt: skip
    return predict_all(model, SequenceData(sessions, config.pathways, config.memory))


def mean_value(values: Floats) -> float | None:
    """Mean over the sessions to which a metric applies; None where there is none."""
    applies = values[~np.isnan(values)]
    return float(applies.mean()) if len(applies) else None


def p_value(difference: Floats, user: Ints) -> float | None:
    """Two-sided paired t-test by listener; None where it cannot be made."""
    p = clustered_p_value(difference, user)
    return None if np.isnan(p) else p


def _by_context(values: Mapping[str, Floats], sessions: Sessions, rows: Ints) -> dict[str, dict[str, float | None]]:
    """Means by part of the day and by device, for those that occur."""
    part, device = DAY_PART[sessions.columns.hour[rows]], sessions.columns.device[rows]
    groups: Sequence[tuple[str, Any]] = [
        *((name, part == i) for i, name in enumerate(DAY_PARTS)),
        *((name, device == i) for i, name in enumerate((*DEVICES, "other"))),
    ]
    return {name: {m: mean_value(values[m][inside]) for m in METRICS} for name, inside in groups if inside.any()}
