"""`bart page`: the page that a listener gets now, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config


def page(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    user: Annotated[str, typer.Argument(help="A listener's id; an unknown one gets the page of a stranger.")],
    device: Annotated[str, typer.Option(help="mobile, desktop, speaker, web or tablet.")] = "mobile",
    surface: Annotated[str, typer.Option(help="Chooses the exploration rate.")] = "default",
    rows: Annotated[int | None, typer.Option(help="Shelves; by default as the service shows.")] = None,
    columns: Annotated[int | None, typer.Option(help="Cards a shelf; by default as the service shows.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draw; by default another one each time.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As the service answers with ?debug=true.")] = False,
    config: Config = None,
) -> None:
    """Shows the page that this listener gets now, decided as the service decides it; nothing is recorded."""
    from pydantic import ValidationError

    from api.console import console
    from api.run.settings import load_settings
    from api.service.service import open_service
    from api.wire.problems import invalid
    from api.wire.schemas import HomeRequest
    from bart.errors import DataError

    try:
        asked = HomeRequest(user_id=user, device=device, surface=surface, rows=rows, columns=columns, seed=seed)
    except ValidationError as error:
        raise DataError(invalid(error).detail) from None
    with open_service(run, load_settings(file=config)) as service:
        found = service.preview(asked)
        if json:
            typer.echo(service.writer.page(found.decision, debug=True))
            return
    screen = console()
    screen.print(found.table())
    screen.print("decided now and not recorded: no log holds it, no client was shown it", style="dim")
