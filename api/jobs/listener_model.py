"""Which listener model a run serves: measured on the last sessions of its own data, or as the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from api.background.memory import lean_torch
from bart.errors import DataError
from bart.types import Floats32, Ints

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from recommender.listener.model import ListenerModel
    from recommender.sessions.sessions import Sessions
    from recommender.sessions.table import TimeSplit
    from recommender.study.choice import Ranked

NAMES = {"popularity": "popularity", "average": "decayed average", "cosernn": "CoSeRNN"}  # the simplest first
ALIKE = 0.95  # mean cosine of two listeners above which their pages hardly differ


def serving_model(
    sessions: Sessions,
    vector: Floats32,
    popular: Floats32,
    settings: Settings,
    rng: np.random.Generator,
    stages: Stages,
) -> tuple[ListenerModel, dict[str, Any], tuple[str, ...]]:
    """The listener model that serves, facts of it by name, and what could not be built.

    vector: [items, d]; popular: [d], what is taken for everyone where nothing personal ranks better. A CoSeRNN is
    trained where there are data for it, or where the settings ask for it. Raises DataError where they do and it cannot
    be trained.
    """
    from recommender.listener.model import MemoryListener
    from recommender.listener.popular import PopularListener
    from recommender.study.choice import FEWEST, choice_split, chosen, judged_sessions, ranked

    asked: str = settings.listener.model
    train_rng, choice_rng = rng.spawn(2)
    models: dict[str, ListenerModel] = {
        "popularity": PopularListener(popular),
        "average": MemoryListener(len(popular)),
    }
    facts: dict[str, Any] = {}
    gaps: tuple[str, ...] = ()
    rows, split = np.empty(0, dtype=np.int64), None
    trains = asked == "cosernn" or (asked == "auto" and _large(sessions))
    if sessions.has_played.any():
        split = choice_split(sessions)
        rows = judged_sessions(sessions, split.test_s if trains else split.validation_s, choice_rng)
    listeners = len(np.unique(sessions.user[rows]))
    measured = listeners >= FEWEST
    if trains and (measured or asked == "cosernn"):
        try:
            models["cosernn"], facts["validation cosine"] = _cosernn(sessions, split, settings, train_rng, stages)
        except DataError as error:
            if asked == "cosernn":
                raise
            gaps = (f"a CoSeRNN: {error}; a simpler vector of the listener serves",)
    if not measured:
        name = "average" if asked == "auto" else asked
        why = f"not measured: {listeners} listeners have a later session to be ranked; {FEWEST} are needed"
        return models[name], {"listener model": NAMES[name], "next session": why, **facts}, gaps
    tick = stages.stage("Choosing the listener model")
    u = {name: _before(model, sessions, rows, popular) for name, model in models.items()}
    table = ranked(sessions, rows, vector, u, choice_rng)
    name = chosen(table) if asked == "auto" else asked
    tick(1, 1, NAMES[name])
    why = f"best for the next sessions of {listeners:,} listeners" if asked == "auto" else "by listener.model"
    told = {f"next session by {NAMES[other]}": _line(found) for other, found in table.items()}
    if table[name].likeness > ALIKE:
        gaps += (
            f"listeners who differ: by {NAMES[name]} two listeners at random have a cosine of "
            f"{table[name].likeness:.3f}; shelves by what is near are nearly the same for all",
        )
    return models[name], {"listener model": NAMES[name], "chosen": why, **told, **facts}, gaps


def _line(found: Ranked) -> str:
    ranks = f"NDCG@10 {found.mean:.3f} +- {found.error:.3f}, MRR {found.mrr:.3f}, recall@10 {found.recall:.3f}"
    return f"{ranks}; cosine of two listeners {found.likeness:.3f}"


def _large(sessions: Sessions) -> bool:
    """Whether a CoSeRNN is worth trying."""
    from recommender.events.check import Volume

    enough = Volume()
    return sessions.n_users >= enough.listeners and len(sessions) >= enough.sessions


def _before(model: ListenerModel, sessions: Sessions, rows: Ints, popular: Floats32) -> Floats32:
    """[m, d] the vector of each of `rows`' listeners before that session, as serving computes it."""
    from recommender.states.past_states import vectors_at

    c = sessions.columns
    user_id = sessions.user_id[sessions.user[rows]]
    return vectors_at(
        model, sessions, user_id, c.started_s[rows], c.hour[rows], c.weekday[rows], c.device[rows], popular
    )


def _cosernn(
    sessions: Sessions, split: TimeSplit | None, settings: Settings, rng: np.random.Generator, stages: Stages
) -> tuple[ListenerModel, float | None]:
    """A CoSeRNN trained on what is before the split, and its cosine on the validation sessions; of a sample of the
    listeners, where there are more than `listener.learn_from`.
    """
    if split is None:
        raise DataError("no session has a played track with a vector; a CoSeRNN cannot be trained")
    lean_torch()
    from recommender.listener.cosernn import CoSeRNN, CoSeRNNConfig
    from recommender.listener.cosernn_serving import CoSeRNNListener
    from recommender.listener.training import Progress, TrainingConfig, train

    tick = stages.stage("Training CoSeRNN")
    shape = CoSeRNNConfig(dimension=sessions.dimension, hidden=settings.listener.hidden, sources=sessions.sources)

    def show(progress: Progress) -> None:
        before = progress.epoch - (progress.validation is None)  # epochs that are finished
        done = before * progress.batches + (progress.batch if progress.validation is None else 0)
        note = f"loss {progress.loss:.3f}, {progress.sessions_per_s:,.0f} sessions/s"
        tick(done, progress.epochs * progress.batches, note)

    train_rng, draw = rng, settings.listener.learn_from
    if sessions.n_users > draw:  # steps teach: beyond some listeners more of them make it longer and no better
        train_rng, draw_rng = rng.spawn(2)
        sessions = sessions.take_users(np.sort(draw_rng.permutation(sessions.n_users)[:draw]))

    trained = train(
        lambda: CoSeRNN(shape),
        sessions,
        split,
        TrainingConfig(epochs=settings.listener.epochs),
        train_rng,
        pathways=shape.pathways,
        memory=shape.memory,
        on_progress=show,
    )
    cosine = round(max(trained.validation), 4) if trained.validation else None
    return CoSeRNNListener.of(trained.model), cosine
