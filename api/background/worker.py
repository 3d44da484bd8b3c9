"""The process of one job: `python -m api.background.worker KIND DIRECTORY PARENT`, started by `api.background.jobs`.

To add a kind, write a function and a line in `KINDS`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LOOK_S = 0.1
TELL_S = 0.2  # progress is told that often at most

Tell = Callable[[Mapping[str, Any]], None]


def simulate(asked: Mapping[str, Any], result: Path, tell: Tell) -> None:
    """A loop in a small simulated world; tells of every round."""
    from api.background.simulation import loop_config, round_event, world_config
    from simulator.loop.files import write_result
    from simulator.loop.loop import simulate_loop

    last_s = [0.0]

    def progress(done: int, total: int, note: str) -> None:
        if time.monotonic() - last_s[0] >= TELL_S or done == total:
            last_s[0] = time.monotonic()
            tell({"kind": "progress", "done": done, "total": total, "note": note})

    tell({"kind": "progress", "done": 0, "total": 0, "note": "making a world and its service"})
    found = simulate_loop(
        seed=int(asked["seed"]),
        config=loop_config(asked),
        world_config=world_config(),
        on_round=lambda one: tell(round_event(one)),
        on_progress=progress,
    )
    draft = result.with_name("result.draft")
    shutil.rmtree(draft, ignore_errors=True)
    files = [file.name for file in write_result(found, draft)]
    draft.rename(result)
    tell({"kind": "done", "files": files})


def verify(asked: Mapping[str, Any], result: Path, tell: Tell) -> None:  # noqa: ARG001
    """`bart log verify` of the live log."""
    from bart.log.care.verify import verify as verify_log

    found = verify_log(Path(asked["log"]))
    tell(
        {
            "kind": "done",
            "ok": found.ok,
            "records": found.records,
            "verified": found.verified,
            "forced": found.forced,
            "problem_count": found.problem_count,
            "problems": [f"{one.request_id}: {one.text}" for one in found.problems[:20]],
            "means": sum(1 for mean in found.means),
            "means_passed": sum(1 for mean in found.means if mean.passed),
        }
    )


KINDS: dict[str, Callable[[Mapping[str, Any], Path, Tell], None]] = {"simulation": simulate, "verify": verify}


def main(kind: str, directory: Path, parent: int) -> None:
    """Works until done, cancelled, or left alone by the process that asked."""
    os.nice(5)  # pages come first
    threading.Thread(target=_watch, args=(directory, parent), daemon=True).start()
    lock = threading.Lock()
    file = (directory / "events.jsonl").open("a")

    def tell(event: Mapping[str, Any]) -> None:
        with lock:
            file.write(json.dumps(event) + "\n")
            file.flush()

    with (directory / "events.jsonl").open() as events:
        asked = json.loads(events.readline())
    try:
        KINDS[kind](asked, directory / "result", tell)
    except Exception as error:
        tell({"kind": "failed", "reason": f"{error}"})
        raise


def _watch(directory: Path, parent: int) -> None:
    while os.getppid() == parent and not (directory / "cancel").exists():
        time.sleep(LOOK_S)
    shutil.rmtree(directory / "scratch", ignore_errors=True)
    os._exit(1)  # at once: nothing that is half done is worth its end


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
