"""`bart users` and `bart evaluate-users`: one vector a listener that serves every task, and how good it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from api.options import Config, Kind, Mapping, Seed, Tz, User, parse_mapping

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Names = Annotated[str | None, typer.Option(help="Names with commas between; by default all.")]


@app.callback()
def users() -> None:
    """Vectors of the user encoder."""


@app.command()
def encode(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    engine: Annotated[str, typer.Option(help="local (processes) or spark.")] = "local",
    workers: Annotated[int | None, typer.Option(help="Processes of the local engine, by default one a core.")] = None,
    master: Annotated[str | None, typer.Option(help="Where Spark runs: local[4], spark://host:7077, ...")] = None,
    config: Config = None,
) -> None:
    """Writes the vectors of all listeners of the batch that serves: RUN/users/BATCH.parquet, for tasks of others."""
    from api.console import console, track
    from api.run.settings import load_settings
    from api.users.everybody import encode_listeners

    settings = load_settings(file=config)
    with track(console()) as stages:
        made, path = encode_listeners(run, settings, stages, engine=engine, workers=workers, master=master)
    typer.echo(f"{path}: {len(made):,} listeners, {made.vector.shape[1]} numbers each, batch {made.batch_id}")


@app.command()
def fit(
    labels: Annotated[Path, typer.Argument(help="A table of user_id, label and, for labels of pairs, item_id.")],
    run: Annotated[Path, typer.Option(help="A run directory.")],
    out: Annotated[Path, typer.Option(help="File for the head (safetensors); what was measured stands beside, .json.")],
    seed: Seed = None,
    config: Config = None,
) -> None:
    """Trains a small head on user vectors, and says what it reaches beside averages, raw features and their PCA.

    Labels are two values, or numbers. Listeners who test the head are kept from it.
    """
    from api.console import console, track
    from api.run.settings import load_settings
    from api.users.heads import fit_labels

    screen = console()
    with track(screen) as stages:
        found = fit_labels(run, labels, out, load_settings({"seed": seed}, config), stages)
    typer.echo(f"{out}: {found['labels']:,} labels of {found['listeners']:,} listeners, batch {found['batch_id']}")
    for line in found["lines"]:
        gain = ""
        if "gain" in line:
            low, high = line["interval"]
            gain = f"; the user vector is {line['gain']:+.4f} ({low:+.4f} to {high:+.4f}) to it"
        typer.echo(f"  {line['name']}, {line['size']}: {line['measure']} {line['value']:.4f}{gain}")


def evaluate_users(
    events: Annotated[Path, typer.Argument(help="Listening events: a table or an export; a file, a folder or a ZIP.")],
    out: Annotated[Path, typer.Option(help="Directory for users.json and tables.md.")],
    items: Annotated[Path | None, typer.Option(help="item_id and what is known of items: artist, genre, ...")] = None,
    playlists: Annotated[Path | None, typer.Option(help="playlist_id, position, item_id, for track vectors.")] = None,
    listeners: Annotated[
        Path | None,
        typer.Option(
            help="user_id, joined_at, country, onboarding (picked item ids); default: listeners.parquet beside."
        ),
    ] = None,
    kind: Kind = None,
    mapping: Mapping = None,
    user: User = None,
    tz: Tz = None,
    days: Annotated[float, typer.Option(min=0.5, help="Days at the end that are predicted.")] = 7.0,
    dimension: Annotated[int, typer.Option(min=2, max=1024, help="Of the vectors that are learnt.")] = 120,
    epochs: Annotated[int, typer.Option(min=1, max=500, help="Passes of the encoder over the snapshots.")] = 24,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings of each kind of vector, over which figures are means.")
    ] = 5,
    kinds: Names = None,
    negatives: Names = None,
    seed: Seed = None,
    config: Config = None,
) -> None:
    """Judges the user encoder beside averages, raw features, PCA, factorizations and networks under one task model.

    Listening of the next days, the first four hours of newcomers, neighbours by what they share, groups of features
    left out one at a time.
    """
    from api.background.memory import lean_torch
    from api.console import console, track
    from api.run.listening import Listening
    from api.run.settings import load_settings
    from api.users.study import evaluate_user_vectors

    settings = load_settings({"seed": seed, "listener": {"timezone": tz}}, config)
    lean_torch()
    from recommender.transfer.protocol import ProtocolConfig
    from recommender.transfer.whole import StudyConfig
    from recommender.users.encoder import EncoderConfig

    encoder = EncoderConfig(dimension=dimension, epochs=epochs)
    study = StudyConfig(encoder=encoder)
    if kinds:
        study = replace(study, kinds=tuple(kinds.split(",")))
    if negatives:
        study = replace(study, negatives=tuple(negatives.split(",")))
    screen = console()
    with track(screen) as stages:
        text = evaluate_user_vectors(
            Listening(events, kind, parse_mapping(mapping), user, simulated=True),
            out,
            {"items": items, "playlists": playlists, "listeners": listeners},
            ProtocolConfig(days=days, seeds=seeds),
            study,
            settings,
            stages,
        )
    screen.print(text, markup=False, soft_wrap=True)
    screen.print(f"\ntables in {out}", markup=False)
