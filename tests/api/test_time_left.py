"""A long stage says how long it will go on, as soon as its pace shows, and no longer than it goes on."""

from __future__ import annotations

from rich.progress import Progress

from api.console import Bars, TimeLeft


def test_a_stage_tells_the_time_that_is_left_at_its_pace_until_it_is_over() -> None:
    now = 0.0
    progress = Progress(TimeLeft(), get_time=lambda: now, speed_estimate_period=600)
    tick = Bars(progress).stage("Training")
    task, shown = progress.tasks[0], TimeLeft()
    assert shown.render(task).plain == ""
    for done in range(1, 5):
        now = 60.0 * done
        tick(done, 10)
    assert shown.render(task).plain == "0:06:00 left"
    now = 600.0
    tick(10, 10)
    assert shown.render(task).plain == ""
