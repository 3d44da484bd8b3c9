"""A clock that goes a day ahead and a day back while a run serves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from api.service.control import CONTROL_FILE, ControlStore
from benchmarks.served.judge import judged
from benchmarks.served.load import Load, loaded
from benchmarks.served.server import ask, bart, serving

SHIFTS = ("+0", "+2d", "+0", "-1d", "+0")
PUBLISHED_S = 90.0  # within which an item that came while the clock was ahead must be published


def clocks(run: Path, users: list[str]) -> dict[str, Any]:
    """Pages, reports, sessions, an item and an export while the clock is ahead; all of that again when it is back.

    The clock is that of libfaketime, read anew every second by the server and its workers. At the end a log whose
    windows are over is exported: every acknowledged page must be in that export once.
    """
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        return {"skipped": "libfaketime is not installed (apt-get install faketime)", "passed": True}
    shift = run.parent / f"{run.name}.clock"
    shift.write_text(SHIFTS[0])
    moved = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(shift), "DONT_FAKE_MONOTONIC": "1"}
    moved |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_CACHE_DURATION": "1"}
    pages: dict[str, int] = {}
    exports = []
    with serving(run, 2, environment=moved) as (_, port):
        with loaded(port, users, clients=3, pause_s=0.05, listening=True) as load:
            before = 0
            for number, told in enumerate(SHIFTS):
                shift.write_text(told)
                time.sleep(4)
                with load.lock:
                    pages[f"{number}: {told}"], before = len(load.pages) - before, len(load.pages)
                if told == "+2d":
                    exports.append(export(run, moved))
                    ask(port, "PUT", "/v1/items/of-another-day", {"title": "Later", "genres": ["soul"]}, run=run)
        published = wait_for_items(run)
        ready = ask(port, "GET", "/ready")[0]
    shift.write_text("+4d")  # every window is over
    exports.append(export(run, moved))
    found = judged(run, load, not any(exports) and published and ready == 200 and all(pages.values()))
    missing = unexported(run, load)
    return {
        "pages": pages,
        "exports": exports,
        "item_published": published,
        **found,
        "lost_in_export": missing,
        "passed": found["passed"] and not missing,
    }


def export(run: Path, environment: dict[str, str]) -> int:
    """Exit code of an export by the moved clock."""
    done = bart("log", "export", run / "log.sqlite", "--out", run / "log", environment=environment)
    return done.returncode


def wait_for_items(run: Path) -> bool:
    """Whether all items are published in time."""
    store = ControlStore(run / CONTROL_FILE)
    until = time.monotonic() + PUBLISHED_S
    while (waiting := bool(store.items())) and time.monotonic() < until:
        time.sleep(0.5)
    store.close()
    return not waiting


def unexported(run: Path, load: Load) -> int:
    """Acknowledged pages that are not in the export once."""
    files = (run / "log").glob("date=*/part-*.parquet")
    names = [name for file in files for name in pq.read_table(file, columns=["request_id"])["request_id"].to_pylist()]
    return len(set(load.pages) - set(names)) + len(names) - len(set(names))
