"""`bart explain`: what a report's verdicts rest on, and what would change them, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config


def explain(
    report: Annotated[Path, typer.Argument(help="report.json of bart evaluate --out, or the directory it stands in.")],
    config: Config = None,
) -> None:
    """Says of each policy what its verdict rests on and what would change it."""
    import json

    from api.run.settings import load_settings
    from bart.errors import DataError
    from bart.ope.report.explain import explained

    load_settings(file=config)  # a report needs nothing of it, but a mistake in it is told
    file = report / "report.json" if report.is_dir() else report
    if not file.is_file():
        raise DataError(f"{file} does not exist; expected the report.json that bart evaluate --out writes")
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise DataError(
            f"{file} is not JSON ({error}); expected the report.json that bart evaluate --out writes"
        ) from None
    if not isinstance(found, dict) or not isinstance(found.get("policies"), list) or not found["policies"]:
        raise DataError(f"{file} has no policies; expected the report.json that bart evaluate --out writes")
    for line in explained(found):
        typer.echo(line)
