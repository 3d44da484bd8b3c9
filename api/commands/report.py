"""`bart report`: what the arms of an experiment earned, beside what the evaluation of the others' pages says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import moment


def report(
    run: Annotated[Path, typer.Argument(help="The run that was served with an [experiment].")],
    since: Annotated[str | None, typer.Option(help="Only pages decided from then on (UTC).")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; ./bart.toml if it is there.")] = None,
) -> None:
    """Prints the online difference by arm beside the off-policy estimate, and writes RUN/online.json."""
    import json
    from datetime import datetime, timezone

    from api.console import console, show_online, track
    from api.run.settings import load_settings
    from api.upkeep.online_report import online_report
    from bart.errors import DataError
    from bart.log.store.files import write_atomically

    settings = load_settings({}, config)
    if not settings.experiment.arms:
        raise DataError("the settings hold no [experiment] with arms; expected those that the run was served with")
    screen = console()
    with track(screen) as stages:
        found = online_report(run, settings, stages, datetime.now(timezone.utc), moment(since, "--since"))
    show_online(screen, found)
    text = json.dumps(found, indent=1) + "\n"

    def write(beside: Path) -> None:
        beside.write_text(text)

    write_atomically(run / "online.json", write)
    screen.print(f"\nreport in {run / 'online.json'}", markup=False)
