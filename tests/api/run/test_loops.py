"""Work beside requests goes on whatever it raises, and says when it does not."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from api.run import loops
from api.run.loops import Heart, Loop, stale


@pytest.mark.parametrize("error", [KeyError("field"), OSError("locked"), SystemExit(3), MemoryError(), ValueError()])
def test_a_loop_survives_whatever_its_work_raises(error: BaseException) -> None:
    done, rounds = threading.Event(), []

    def work() -> None:
        rounds.append(1)
        if len(rounds) < 4:
            raise error
        done.set()

    heard: list[bool] = []
    loop = Loop("work", work, 0.001)
    loop.heart.told = lambda _, beat: heard.append(beat)
    loop.start()
    assert done.wait(30)
    loop.stop()
    assert heard[:5] == [True, False, False, False, True]
    assert loop.heart.failures == 0


def test_a_loop_survives_who_cannot_hear_of_it() -> None:
    """Metrics of several processes stand in files, which a full disk refuses."""
    rounds, done = [], threading.Event()

    def work() -> None:
        rounds.append(1)
        if len(rounds) == 4:
            done.set()
        if len(rounds) % 2:
            raise OSError("locked")

    def deaf(*_: object) -> None:
        raise OSError("no space left on device")

    loop = Loop("work", work, 0.001)
    loop.heart.told = deaf
    loop.start()
    assert done.wait(30)
    loop.stop()


def test_waits_grow_after_failures_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    loop = Loop("work", lambda: 1 / 0, 1.0)

    def wait(wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == 8:
            loop._stopped.set()

    monkeypatch.setattr(loop._awake, "wait", wait)
    loop._run()
    assert waits == [1.0, 2.0, 4.0, 8.0, *[loops.LONGEST_WAIT_S] * 4]


def test_a_heart_is_stale_after_its_time_and_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(loops.time, "monotonic", lambda: now[0])
    one, other = Heart("watch", 60), Heart("spool", 60)
    now[0] += 50
    other.beat()
    assert stale([one, other]) == ""
    now[0] += 20
    assert stale([one, other]) == "watch (for 70 s)"
    one.ended = True  # in order: the service stops
    assert stale([one, other]) == ""


def test_a_loop_that_is_woken_does_not_wait() -> None:
    done = threading.Event()
    loop = Loop("work", done.set, 3600.0)
    loop.start()
    loop.wake()
    assert done.wait(30)
    loop.stop()


def test_a_failure_is_told_with_its_reason(caplog: Any) -> None:
    heart = Heart("watch")
    try:
        raise KeyError("field")
    except KeyError:
        heart.fail()
    assert "watch failed, 1 times" in caplog.text
    assert "KeyError: 'field'" in caplog.text
