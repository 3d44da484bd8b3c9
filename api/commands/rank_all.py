"""`bart rank-all`: a page for every listener of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import moment

Text = str | None
Number = int | None


def rank_all(
    run: Annotated[Path, typer.Argument(help="Run directory whose bundle decides.")],
    listeners: Annotated[
        Path,
        typer.Option(help="CSV or Parquet: user_id and, where wanted, device, surface, country, at, utc_offset_min."),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write; bart log verify checks it.")],
    at: Annotated[Text, typer.Option(help="Time of pages whose listener has none (UTC); now.")] = None,
    rows: Annotated[Number, typer.Option(help="Rows of a page.")] = None,
    columns: Annotated[Number, typer.Option(help="Cards of a row.")] = None,
    engine: Annotated[str, typer.Option(help="local (processes) or spark.")] = "local",
    workers: Annotated[Number, typer.Option(help="Processes of the local engine, by default one a core.")] = None,
    master: Annotated[Text, typer.Option(help="Where Spark runs: local[4], spark://host:7077, ...")] = None,
    against: Annotated[
        Path | None, typer.Option(help="An earlier output of the same listeners and seed, to compare with.")
    ] = None,
    seed: Annotated[Number, typer.Option(help="Of all pages; each listener's follows from it.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; ./bart.toml if it is there.")] = None,
) -> int:
    """Decides a page for every listener of a table, with propensities, as Parquet."""
    from api.console import console, track
    from api.jobs.rank_all import compare_pages
    from api.jobs.rank_all import rank_all as decide
    from api.run.clock import utc_now

    screen = console()
    with track(screen) as stages:
        found = decide(
            run,
            listeners,
            out,
            at=moment(at, "--at") or utc_now(),
            config=config,
            seed=seed,
            rows=rows,
            columns=columns,
            engine=engine,
            workers=workers,
            master=master,
            on_progress=stages.stage("Deciding pages"),
        )
    screen.print(
        f"{out}: {found.listeners:,} pages, {found.unknown:,} of listeners whom the run does not know, "
        f"in {found.files:,} files" + (f"; {found.left_out:,} listeners are not profiled" if found.left_out else ""),
        markup=False,
    )
    if against is None:
        return 0
    compared = compare_pages(against, out)
    screen.print(
        f"{compared.same:,} of {compared.pages:,} pages as in {against}, {compared.tied:,} differ in score ties, "
        f"{compared.differing:,} otherwise",
        markup=False,
    )
    return 1 if compared.differing else 0
