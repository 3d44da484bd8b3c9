"""`bart train-listener` and `bart evaluate-listener`: the model of what a listener will play, from an event file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.options import Config, Kind, Mapping, Seed, Tz, User, parse_mapping

if TYPE_CHECKING:
    from api.run.listening import Listening
    from api.run.settings import Settings
    from recommender.events.table import LoadedEvents

Events = Annotated[Path, typer.Argument(help="Listening events: a table or an export; a file, a folder or a ZIP.")]
Tracks = Annotated[Path | None, typer.Option(help="Track vectors: Parquet with item_id and vector.")]
Playlists = Annotated[
    Path | None,
    typer.Option(help="playlist_id, position, item_id, to train track vectors on; default: playlists.parquet beside."),
]
Hidden = Annotated[int, typer.Option(min=8, max=1024, help="LSTM cells.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1, max=500, help="Passes over the sessions at most; default: by size, 12 for 200 to 2,000 listeners."
    ),
]


def train_listener(
    events: Events,
    out: Annotated[Path, typer.Option(help="Directory for the model; run again with the same to resume.")],
    model: Annotated[str, typer.Option(help="CoSeRNN+ (what serves) or CoSeRNN (the paper's).")] = "CoSeRNN+",
    tracks: Tracks = None,
    playlists: Playlists = None,
    kind: Kind = None,
    mapping: Mapping = None,
    user: User = None,
    tz: Tz = None,
    hidden: Hidden = 100,
    epochs: Epochs = None,
    seed: Seed = None,
    config: Config = None,
) -> None:
    """Trains a listener model and the track vectors it needs; stops early, writes a checkpoint after each epoch."""
    from api.run.listening import Listening

    listening = Listening(events, kind, parse_mapping(mapping), user)
    settings, loaded, lists = _start(listening, tz, seed, config, playlists, tracks)
    from api.console import console, track
    from recommender.listener.train_job import train_listener_model

    screen = console()
    with track(screen) as stages:
        report = train_listener_model(
            loaded.events,
            out,
            model=model,
            tracks=tracks,
            playlists=lists,
            hidden=hidden,
            epochs=epochs,
            seed=settings.seed,
            stage=stages.stage,
        )
    screen.print(
        f"{model}: best validation cosine {report['best_validation']} in epoch {report['best_epoch']} of "
        f"{len(report['validation'])}, {report['vectors_from']}; model in {out}",
        markup=False,
    )


def evaluate_listener(
    events: Events,
    out: Annotated[Path, typer.Option(help="Directory for table2.json, run.json, tables.md and pictures.")],
    tracks: Tracks = None,
    seed: Seed = None,
    playlists: Playlists = None,
    kind: Kind = None,
    mapping: Mapping = None,
    user: User = None,
    tz: Tz = None,
    hidden: Hidden = 100,
    epochs: Epochs = None,
    test_days: Annotated[
        float | None,
        typer.Option(min=0.1, help="Days at the end that are tested; default: 14, of less than 33 days a fifth."),
    ] = None,
    validation_days: Annotated[
        float | None,
        typer.Option(min=0.0, help="Days before them that choose the epoch; default: 5, of less than 33 days a tenth."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each network, over which tables are means.")] = 5,
    rates: Annotated[
        str, typer.Option(help="Learning rates that each network tries on the validation sessions.")
    ] = "1e-3,2e-3,4e-3",
    ablations: Annotated[
        bool, typer.Option(help="Also Tables 3 and 4: ten more models, each trained as often.")
    ] = False,
    figures: Annotated[bool, typer.Option(help="Also Figures 1 to 3 and 5.")] = True,
    config: Config = None,
) -> None:
    """Compares all listener models on the same later sessions, as Table 2 of the CoSeRNN paper does."""
    from api.run.listening import Listening

    listening = Listening(events, kind, parse_mapping(mapping), user)
    settings, loaded, lists = _start(listening, tz, seed, config, playlists, tracks)
    from api.console import console, track
    from recommender.listener.data import evaluation_days
    from recommender.listener.training import evaluation_training
    from recommender.study.evaluation import EvaluationConfig
    from recommender.study.whole import run_evaluation

    days = evaluation_days(loaded.events)
    asked = EvaluationConfig(
        hidden=hidden,
        test_d=days[0] if test_days is None else test_days,
        validation_d=days[1] if validation_days is None else validation_days,
        training=evaluation_training(epochs),
        seeds=seeds,
        rates=_numbers(rates),
    )
    screen = console()
    with track(screen) as stages:
        text = run_evaluation(
            loaded.events,
            out,
            asked,
            tracks=tracks,
            playlists=lists,
            seed=settings.seed,
            ablate=ablations,
            explore=figures,
            stage=stages.stage,
            told=loaded.check.summary(),
        )
    screen.print(text, markup=False, soft_wrap=True)
    screen.print(f"\ntables and pictures in {out}", markup=False)


def _numbers(text: str) -> tuple[float, ...]:
    from bart.errors import DataError

    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0:
        raise DataError(f"--rates is {text!r}; expected numbers > 0 with commas between")
    return found


def _start(
    listening: Listening,
    tz: str | None,
    seed: int | None,
    config: Path | None,
    playlists: Path | None,
    tracks: Path | None,
) -> tuple[Settings, LoadedEvents, Path | None]:
    """Settings, the events, and the playlists to train vectors on: those given, or those beside the events."""
    from api.background.memory import lean_torch
    from api.console import console
    from api.run.settings import load_settings
    from recommender.listener.data import PLAYLISTS_FILE

    settings = load_settings({"seed": seed, "listener": {"timezone": tz}}, config)
    lean_torch()
    loaded = listening.load(settings)
    screen = console()
    for line in loaded.check.summary():
        screen.print(line, markup=False, soft_wrap=True)
    beside = listening.path.parent / PLAYLISTS_FILE
    lists = playlists if playlists is not None or tracks is not None or not beside.is_file() else beside
    return settings, loaded, lists
