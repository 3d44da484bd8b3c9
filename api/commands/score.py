"""`bart score`: a run's shelves on its own later listening, against what is obvious."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.options import Config, Seed

if TYPE_CHECKING:
    from rich.console import Console


def score(
    run: Annotated[Path, typer.Argument(help="Run directory, made by bart build or bart demo.")],
    cuts: Annotated[int, typer.Option(min=1, help="Cut dates that are judged; one more tunes the baselines.")] = 4,
    days: Annotated[float, typer.Option(min=0.01, help="Days after a cut that count.")] = 30.0,
    cards: Annotated[int, typer.Option(min=1, help="Cards of a row that are judged.")] = 10,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a page.")] = 6,
    listeners: Annotated[int, typer.Option(min=1, help="Listeners at most, drawn anew at each cut.")] = 500,
    seed: Seed = None,
    config: Config = None,
) -> None:
    """How well each shelf, and the page, finds what listeners played next; repeats and first plays apart.

    Everything is made anew from what was known at each cut date. Writes RUN/score.json.
    """
    import json

    from api.console import console, track
    from api.jobs.score import score_directory
    from api.run.settings import load_settings
    from recommender.study.score import ScoreConfig

    asked = ScoreConfig(cuts, days, cards, rows, listeners)
    screen = console()
    with track(screen) as stages:
        found = score_directory(run, asked, load_settings({"seed": seed}, config), stages)
    path = run / "score.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _show(screen, found)
    screen.print(f"\n{found['says']}\n{path}", markup=False, soft_wrap=True)


def _show(screen: Console, found: dict[str, Any]) -> None:
    from rich.table import Table

    for kind in dict.fromkeys(line["kind"] for line in found["lists"]):
        table = Table(title=kind, title_justify="left", box=None)
        measures = ("played", "recall", "ndcg", "novelty")
        for column in ("", "listeners", *measures):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        lines = [line for line in found["lists"] if line["kind"] == kind]
        for line in sorted(lines, key=lambda line: -line["ndcg"][0]):
            told = [f"{v:.3f}" + ("" if h is None else f" ± {h:.3f}") for v, h in (line[m] for m in measures)]
            table.add_row(line["list"], f"{line['listeners']:,}", *told)
        screen.print(table)
    cut = f"{len(found['cuts'])} cut dates, {found['horizon_d']:.3g} days after each, {found['visits']:,} visits"
    half, same = (
        f"half after {found['half_life_d']:g} days",
        f"the same time of day counts {found['same_part_of_day']:g}",
    )
    screen.print(
        f"{cut}; decayed counts as tuned before: {half}, {same}. ±: 95 %, listeners the unit.",
        markup=False,
        soft_wrap=True,
    )
