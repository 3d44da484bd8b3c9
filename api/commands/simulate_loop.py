"""`bart simulate-loop`: rounds of serving and learning in a simulated world, with the true value of every policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.options import Config, Seed

if TYPE_CHECKING:
    from rich.console import Console

    from api.run.progress import Tick
    from simulator.loop.records import LoopResult


def simulate_loop(
    out: Annotated[Path, typer.Option(help="Directory for loop.json, loop.parquet and loop.svg.")],
    world: Annotated[str, typer.Option(help="How a page is read: W1 to W6, see docs/worlds.md.")] = "W1",
    rounds: Annotated[int, typer.Option(help="Rounds of serve, log, feedback, train, publish.")] = 10,
    pages: Annotated[int, typer.Option(help="Pages a round.")] = 5_000,
    seed: Seed = None,
    listeners: Annotated[int, typer.Option(help="Simulated listeners.")] = 1_000,
    tracks: Annotated[int, typer.Option(help="Tracks in the catalogue.")] = 30_000,
    days: Annotated[int, typer.Option(help="Days of listening before the first page.")] = 60,
    rows: Annotated[int, typer.Option(help="Rows of a page.")] = 6,
    columns: Annotated[int, typer.Option(help="Columns of a page.")] = 6,
    epsilon: Annotated[float, typer.Option(help="Exploration of the learner.")] = 0.2,
    scenario: Annotated[str, typer.Option(help="steady, drift or cold_start.")] = "steady",
    hidden: Annotated[
        float, typer.Option(help="Strength of what no feature expresses; 1 is the world as it is.")
    ] = 1.0,
    shuffled: Annotated[bool, typer.Option(help="Adds a learner whose rewards are shuffled.")] = False,
    arrays: Annotated[
        bool, typer.Option(help="The same pages without HomeRanker and log: three times as fast.")
    ] = False,
    config: Config = None,
) -> None:
    """Serves, logs, learns and publishes for some rounds, and says what each policy was truly worth."""
    from api.console import console, track
    from api.run.settings import load_settings
    from bart.errors import DataError
    from simulator.loop.files import write_result
    from simulator.loop.loop import Learner, LoopConfig
    from simulator.loop.loop import simulate_loop as run
    from simulator.loop.scenarios import scenario_named
    from simulator.world.config import WorldConfig, with_hidden

    settings = load_settings({"seed": seed}, config)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; expected a directory to write to")
    learners: tuple[Learner, ...] = (Learner(epsilon=epsilon),)
    if shuffled:
        learners += (Learner("shuffled", epsilon=epsilon, start="blank", rewards="shuffled"),)
    loop = LoopConfig(
        world, rounds, pages, rows=rows, columns=columns, learners=learners, scenario=scenario_named(scenario),
        through="arrays" if arrays else "log",
    )  # fmt: skip
    loop.params  # an unknown world shows here, before anything is made  # noqa: B018
    made = with_hidden(WorldConfig(n_listeners=listeners, n_tracks=tracks, days=days), hidden)
    screen = console()
    with track(screen) as stages:
        stages.stage("Making a world and its service")
        advance: list[Tick] = []

        def tick(done: int, total: int, note: str) -> None:
            if not advance:
                advance.append(stages.stage("Serving and learning"))
            advance[0](done, total, note)

        result = run(seed=settings.seed, config=loop, world_config=made, on_progress=tick)
    paths = write_result(result, out)
    show(screen, result)
    for path in paths:
        screen.print(str(path), markup=False, soft_wrap=True)


def show(screen: Console, result: LoopResult) -> None:
    """The rounds as a table: values are expected streams a displayed page."""
    from rich.table import Table

    for name in (learner.name for learner in result.final.learners):
        table = Table(
            "rounds learnt", "random", "popular", "true score", "greedy", "exploring", "true, exploring", "way (95 %)",
            "explored", "new artists", "coverage", title=f"{name}: streams a page", title_justify="left", box=None,
        )  # fmt: skip
        for one in result.rounds:
            x = one.learner(name)
            table.add_row(
                str(one.number),
                *(f"{v.value:.3f}" for v in (one.random, one.popularity, one.true_score)),
                *(f"{v.value:.3f}" for v in (x.greedy, x.exploring, x.true_exploring)),
                f"{x.share.value:.3f} ({x.share.lower:.3f} to {x.share.upper:.3f})",
                *(f"{v:.1%}" if v == v else "" for v in (x.explore_share, x.discovery, x.coverage)),
            )
        screen.print(table)
