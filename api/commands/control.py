"""`bart control`: the switches of a run that serves; they hold within two seconds on every worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config

# what can be said on the command line: the switch it throws, and which way "on" and "off" go
_ACTIONS = {"explore": "explore", "freeze-learning": "learning", "fallback": "fallback"}
_TURNED = {"freeze-learning": {"on": "off", "off": "on"}}  # to freeze is to switch learning off


def control(
    action: Annotated[str | None, typer.Argument(help="explore, freeze-learning or fallback.")] = None,
    state: Annotated[str | None, typer.Argument(help="on or off; on where it is not given.")] = None,
    run: Annotated[Path, typer.Option(help="The run that is served.")] = Path("runs/demo"),
    why: Annotated[str, typer.Option(help="Kept in the history.")] = "",
    config: Config = None,
) -> None:
    """Switches exploration, learning or the popularity fallback; without an action prints the switches.

    explore off: pages are greedy, whatever the configured rates and bounds. freeze-learning: the model that serves
    stays. fallback: popularity scores instead of the model.
    """
    from contextlib import closing
    from datetime import datetime, timezone

    from api.run.settings import load_settings
    from api.service.control import CONTROL_FILE, STATES, ControlStore
    from bart.errors import BundleError, DataError

    load_settings(file=config)  # switches need nothing of it, but a mistake in it is told
    if not (run / "bundle").is_dir():
        raise BundleError(f"{run} does not exist or holds no bundle; expected a run made by bart demo or bart build")
    if action is not None and action not in _ACTIONS:
        raise DataError(f"action is {action!r}; expected one of {', '.join(_ACTIONS)}")
    if state is not None and state not in STATES:
        raise DataError(f"{action} is {state!r}; expected on or off")
    with closing(ControlStore(run / CONTROL_FILE)) as store:
        if action is not None:
            if state is None and action == "explore":
                raise DataError("explore: expected on or off")
            asked = state or "on"
            store.switch(_ACTIONS[action], _TURNED.get(action, {}).get(asked, asked), datetime.now(timezone.utc), why)
        now = store.read()
        typer.echo(f"explore {_word(now.explore)}, learning {_word(now.learning)}, fallback {_word(now.fallback)}")
        typer.echo(f"{len(now.taken_down):,} items taken down")
        for event in store.history(10):
            typer.echo(
                f"  {event.happened_at:%Y-%m-%d %H:%M:%S} {event.what}" + (f": {event.why}" if event.why else "")
            )


def _word(on: bool) -> str:
    return "on" if on else "off"
