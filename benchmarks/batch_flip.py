"""Batches exchanged under load, over real sockets: no request fails, no record mixes two batches, no session is lost.

A run gets a second batch by `bart batch build` (with plays of items that the first does not hold). Two workers serve;
clients ask for pages and report on them, one reports finished sessions, while the batches take turns. Afterwards every
page must bear the batch and model of the one that decided it, hold items of that batch alone, and score as that batch's
model does from the recorded vector; every acknowledged session must be in the states of the batch that serves in the
end, once. Exits with 1 where that fails.

    python -m benchmarks batch_flip              python benchmarks/batch_flip.py RUN [FLIPS]

RUN: of bart demo or bart build; a small one is made where none is given.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api.hosts.shared import listener_store
from api.jobs import batches as jobs
from api.run.progress import Quiet
from api.run.runs import RunPaths
from api.run.settings import load_settings
from api.run.versions import Versions
from bart.bundle import open_bundle
from bart.item_store import load_items
from bart.log.decision_log import DecisionLog
from bart.reward.scorer import load_scorer
from bart.types import Candidates
from benchmarks.served.judge import judged
from benchmarks.served.load import loaded
from benchmarks.served.server import ask, listeners_of, serving, small_run

FLIPS = 6
EVERY_S = 4.0
LISTENERS = 20  # whose sessions are reported


def second_batch(run: Path) -> str:
    """Builds another batch of the run, from more plays; its bundle's name."""
    old = pq.read_table(run / "events.parquet")
    n, last = 40, np.max(old["started_at"].to_numpy())
    fresh = pa.table(
        {
            "user_id": ["fresh-listener"] * n,
            "item_id": [f"fresh-{i % 4}" for i in range(n)],
            "started_at": pa.array(last + np.arange(n) * np.timedelta64(600, "s"), old["started_at"].type),
            "listened_s": np.full(n, 120.0),
        }
    )
    pq.write_table(pa.concat_tables([old, fresh], promote_options="permissive"), run / "events.parquet")
    done = jobs.build(run, load_settings({"page": {"rows": 6, "columns": 6}}), Quiet())
    assert done.name is not None
    return done.name


def counts(run: Path, name: str, users: list[str]) -> dict[str, int]:
    """Sessions in the states of a bundle's batch."""
    with closing(listener_store(RunPaths(run), open_bundle(Versions(run).path(name)))) as store:
        return {user: int(row.state[2]) for user in users if (row := store.get(user)) is not None}


def flip(run: Path, users: list[str], flips: int) -> dict[str, Any]:
    """The study on a run that may be written to."""
    versions = Versions(run)
    first = versions.settle()
    second = second_batch(run)
    settings = load_settings()
    heard = users[:LISTENERS]
    before = counts(run, first, heard)
    acknowledged = dict.fromkeys(heard, 0)
    failed = 0
    over = threading.Event()
    start = datetime.now(timezone.utc) - timedelta(days=20)
    plays = [{"item_id": item, "listened_s": 100.0} for item in _popular(run, first)]

    def listen(port: int) -> None:
        nonlocal failed
        k = 0
        while not over.is_set():
            user = heard[k % len(heard)]
            at = start + timedelta(minutes=30 * k)
            body = {"user_id": user, "session_id": f"s{k}", "final": True, "started_at": at.isoformat(), "plays": plays}
            try:
                status, answer = ask(port, "POST", "/v1/sessions", body)
            except (OSError, HTTPException, ValueError):
                status, answer = 0, {}
            if status == 202 and answer["status"] == "committed":
                acknowledged[user] += 1
            else:
                failed += 1
            k += 1
            over.wait(0.02)

    flipped_s = []
    with serving(run, 2) as (_, port), loaded(port, users) as load:
        thread = threading.Thread(target=listen, args=(port,))
        thread.start()
        for turn in range(flips):
            time.sleep(EVERY_S)
            started = time.monotonic()
            jobs.rollback(run, settings) if turn % 2 else jobs.activate(run, settings, second)
            flipped_s.append(time.monotonic() - started)
        time.sleep(EVERY_S)
        if versions.active() != second:
            jobs.activate(run, settings, second)
            time.sleep(EVERY_S)
        over.set()
        thread.join()
    after = counts(run, second, heard)
    wrong = sum(after.get(user, 0) != before.get(user, 0) + n for user, n in acknowledged.items())
    mixed, by_batch = mixed_records(run, (first, second), list(load.pages.items()))
    well = not (mixed or wrong or failed or load.refused or load.broken) and len(by_batch) == 2
    return {
        "flips": flips + 1 - flips % 2,
        "flip_s_median": round(float(np.median(flipped_s)), 2),
        "mixed_records": mixed,
        "pages_by_batch": by_batch,
        "acknowledged_sessions": sum(acknowledged.values()),
        "failed_sessions": failed,
        "listeners_with_wrong_state": wrong,
        **judged(run, load, well),
    }


def mixed_records(run: Path, names: tuple[str, str], pages: list[tuple[str, str]]) -> tuple[int, dict[str, int]]:
    """Records that are not wholly of one batch, and how many pages each batch decided."""
    bundles = [open_bundle(Versions(run).path(name)) for name in names]
    items = {one.batch_id: load_items(one.folder("items")) for one in bundles}
    scorer = {one.batch_id: load_scorer(one.folder("reward"), items[one.batch_id]) for one in bundles}
    model = {one.batch_id: one.model_id for one in bundles}
    mixed = 0
    by_batch: dict[str, int] = {}
    with DecisionLog(run / "log.sqlite", create=False) as log:
        for request_id, told in pages:
            decision = log.get(request_id)
            assert decision is not None
            batch = decision.batch_id
            by_batch[batch] = by_batch.get(batch, 0) + 1
            rows = items[batch].rows(decision.item_id)
            if batch != told or decision.model_id != model[batch] or (rows < 0).any():
                mixed += 1
                continue
            candidates = Candidates(rows, decision.shelf, decision.shelves)
            expected = scorer[batch].score(decision.context, decision.listener, candidates, user_id=decision.user_id)
            mixed += not (expected == decision.raw_score).all()
    return mixed, by_batch


def _popular(run: Path, name: str) -> list[str]:
    items = load_items(Versions(run).path(name) / "items")
    best = np.argsort(-items.popularity, kind="stable")[:5]
    return [str(item) for item in items.item_id[best]]


def main(given: str | None, flips: int = FLIPS) -> int:
    """Exit code 1 where a record is mixed, a request failed or a session is lost."""
    with tempfile.TemporaryDirectory(prefix="bart-flip-") as folder:
        run = Path(folder) / "run"
        if given is None:
            small_run(run)
        else:
            shutil.copytree(given, run, symlinks=True)
        found = flip(run, listeners_of(run), flips)
    print(json.dumps(found))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None, int(sys.argv[2]) if len(sys.argv) > 2 else FLIPS))
