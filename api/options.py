"""Options that several commands take, and how their text is read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

Mapping = Annotated[
    list[str] | None,
    typer.Option("--map", help="ours=theirs, a column of the file under another name; may be repeated."),
]
Config = Annotated[Path | None, typer.Option(help="Settings file; ./bart.toml is read when it is there.")]
Kind = Annotated[
    str | None,
    typer.Option(
        help="How events are read: table, spotify, spotify-account, lastfm, listenbrainz, kuairand, station-plays or "
        "youtube-music; by default told by what is in them."
    ),
]
User = Annotated[
    str | None, typer.Option(help='Name of the listener of an export of one; by default as the export says, else "me".')
]
Tz = Annotated[str | None, typer.Option(help="Zone of times that carry none, such as Europe/Stockholm; else UTC.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random.")]


def parse_mapping(pairs: list[str] | None) -> dict[str, str]:
    """{ours: theirs} of the --map options. Raises DataError for anything but ours=theirs."""
    from bart.errors import DataError

    out: dict[str, str] = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise DataError(f"--map {pair!r} is not of the form ours=theirs, such as user_id=uid")
        if ours in out:
            raise DataError(f"--map names {ours!r} twice; expected each of our columns once")
        out[ours.strip()] = theirs.strip()
    return out


def number_range(text: str, name: str) -> tuple[float, float]:
    """LOW,HIGH as given to an option; DataError for anything else."""
    from bart.errors import DataError

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise DataError(f"{name} is {text!r}; expected two numbers, such as 0,1") from None
    if not low < high:
        raise DataError(f"{name} is {text!r}; expected the lower number first")
    return low, high


def moment(text: str | None, name: str) -> datetime | None:
    """A date or time in UTC as given to an option; DataError for anything else."""
    from bart.errors import DataError
    from bart.ope.inputs.files import instant

    if text is None:
        return None
    at = instant(text)
    if at is None:
        raise DataError(
            f"{name} is {text!r}; expected a date or time such as 2026-03-01 or 2026-03-01T12:00, or unix seconds"
        )
    return at
