"""Which simulated worlds have albums, playlists and shows."""

from __future__ import annotations

import pytest

from api.jobs.demo import world_config
from api.run.settings import load_settings


@pytest.mark.parametrize(("said", "demo", "simulate"), [(None, True, False), (True, True, True), (False, False, False)])
def test_a_demonstration_has_containers_and_written_listening_has_none_unless_the_settings_say(
    said: bool | None, demo: bool, simulate: bool
) -> None:
    settings = load_settings({"world": {"containers": said}})
    assert (world_config(settings, containers=True).containers is not None) is demo
    assert (world_config(settings).containers is not None) is simulate
