"""The settings that a run was made with, for who works on its log without a settings file at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from api.run.settings import Settings, load_settings

MARKER = "run.json"
_OF_REWARDS = ("name", "window_h")


def settings_of_run(root: Path, config: Path | None, flags: dict[str, Any] | None = None) -> Settings:
    """As `load_settings`; where there is no settings file, reward and feedback window are those of RUN/run.json."""
    recorded = read_marker(root).get("settings")
    reward = recorded.get("reward") if isinstance(recorded, dict) else None
    kept = {name: reward[name] for name in _OF_REWARDS if name in reward} if isinstance(reward, dict) else {}
    return load_settings(flags, config, otherwise={"reward": kept} if kept else None)


def is_run(path: Path) -> bool:
    """Whether a directory is a run: it has a bundle, or says what made it."""
    return path.is_dir() and ((path / MARKER).is_file() or (path / "bundle").exists())


def read_marker(run: Path) -> dict[str, Any]:
    """run.json: what made a run, with the effective settings; {} where there is none."""
    try:
        marker = json.loads((run / MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}
