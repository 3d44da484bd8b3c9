"""Batches exchanged under load, over real sockets: no request fails, no record mixes two batches, no session is lost.

A run gets a second batch by `bart batch build` (with plays of items that the first does not hold). Two workers serve;
clients ask for pages and report on them, one reports finished sessions, while the batches take turns. Afterwards every
page must bear the batch and model of the one that decided it, hold items of that batch alone, and score as that batch's
model does from the recorded vector; every acknowledged session must be in the states of the batch that serves in the
end, once. Both batches have user vectors; clients ask who is alike all the while, and each cosine that they are told
must be that of two vectors of the batch that the answer names. Exits with 1 where that fails.

    python -m benchmarks batch_flip              python benchmarks/batch_flip.py [--run RUN] [--flips N] [--every S]
    python benchmarks/batch_flip.py --swaps 10000      in this process alone: the same question beside swaps of the run

RUN: of bart demo or bart build with listener.users; a small one is made where none is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api.hosts.shared import listener_store
from api.jobs import batches as jobs
from api.run.progress import Quiet
from api.run.runs import RunPaths, open_run
from api.run.settings import load_settings
from api.run.versions import Versions
from api.users.alike import Alike
from api.users.everybody import encode_listeners
from api.wire.problems import ProblemError
from bart.bundle import open_bundle
from bart.errors import SchemaMismatch
from bart.item_store import load_items
from bart.log.decision_log import DecisionLog
from bart.reward.scorer import load_scorer
from bart.types import Candidates
from benchmarks.served.judge import judged
from benchmarks.served.load import loaded
from benchmarks.served.server import ask, listeners_of, serving, small_run
from recommender.users.vectors import UserVectors

FLIPS = 6
EVERY_S = 4.0
LISTENERS = 20  # whose sessions are reported
ASKERS = 2  # threads that ask who is alike
APART = 0.02  # by which a cosine may differ: vectors of the files are some minutes older
PAGE = {"page": {"rows": 6, "columns": 6}, "listener": {"users": True}}
USERS = "BART_LISTENER__USERS"  # a setting of every process of the study


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
    done = jobs.build(run, load_settings(PAGE), Quiet())
    assert done.name is not None
    return done.name


def counts(run: Path, name: str, users: list[str]) -> dict[str, int]:
    """Sessions in the states of a bundle's batch."""
    with closing(listener_store(RunPaths(run), open_bundle(Versions(run).path(name)))) as store:
        return {user: int(row.state[2]) for user in users if (row := store.get(user)) is not None}


class Told:
    """What was told of who is alike: (batch id, listener, alike, cosine). cosines: of each batch, [n, n] by its id."""

    def __init__(self, run: Path, names: tuple[str, str]) -> None:
        self.answers: list[tuple[str, str, str, float]] = []
        self.failed = 0
        self.every: dict[str, UserVectors] = {}
        for name in names:
            batch_id = open_bundle(Versions(run).path(name)).batch_id
            self.every[batch_id] = UserVectors.load(RunPaths(run).user_vectors(batch_id), batch_id)

    def add(self, answer: dict[str, Any]) -> None:
        told = answer["batch_id"], answer["user_id"]
        self.answers += [(*told, one["user_id"], one["cosine"]) for one in answer["similar"]]

    def mixed(self) -> int:
        """Cosines that are not those of two vectors of the batch that was named."""
        wrong = 0
        for batch_id, every in self.every.items():
            place = {user: row for row, user in enumerate(every.user_id.tolist())}
            cosine = every.cosine(every)
            for _, user, other, told in (one for one in self.answers if one[0] == batch_id):
                wrong += abs(float(cosine[place[user], place[other]]) - told) > APART
        return wrong + sum(one[0] not in self.every for one in self.answers)

    def facts(self) -> dict[str, int]:
        by_batch = [sum(one[0] == batch_id for one in self.answers) for batch_id in self.every]
        return {"cosines": len(self.answers), "cosines_of_fewer_batch": min(by_batch),
                "cosines_across_batches": self.mixed(), "failed_alike": self.failed}  # fmt: skip


def swaps(run: Path, count: int) -> dict[str, Any]:
    """Who is alike, asked by threads of this process while another one exchanges the run under them `count` times."""
    names = (Versions(run).settle(), second_batch(run))
    encode_listeners(run, load_settings(PAGE), Quiet())
    runs = [open_run(run, load_settings(PAGE), folder=Versions(run).path(name)) for name in names]
    told, over, asked = Told(run, names), threading.Event(), threading.Semaphore(0)
    service, alike, users = SimpleNamespace(run=runs[0]), Alike(), runs[0].store.user_ids()[:LISTENERS]
    refused = 0

    def ask_on(number: int) -> None:
        k = number
        while not over.is_set():
            try:
                told.add(alike.of(service, users[k % len(users)], 5))  # type: ignore[arg-type]
            except ProblemError:
                told.failed += 1
            k += 1
            asked.release()

    threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(ASKERS)]
    for thread in threads:
        thread.start()
    one, other = told.every.values()
    for turn in range(count):
        service.run = runs[(turn + 1) % 2]
        asked.acquire()
        try:
            one.cosine(other)
        except SchemaMismatch:
            refused += 1
    over.set()
    for thread in threads:
        thread.join()
    for opened in runs:
        opened.store.close()
    facts = told.facts()
    well = refused == count and not (facts["cosines_across_batches"] or told.failed) and facts["cosines_of_fewer_batch"]
    return {"swaps": count, "refused_comparisons": refused, **facts, "passed": bool(well)}


def flip(run: Path, users: list[str], flips: int, every_s: float) -> dict[str, Any]:
    """The study on a run that may be written to."""
    versions = Versions(run)
    first = versions.settle()
    second = second_batch(run)
    encode_listeners(run, load_settings(PAGE), Quiet())
    told, quiet = Told(run, (first, second)), [user for user in users if user not in users[:LISTENERS]][:LISTENERS]
    settings = load_settings(PAGE)
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

    def who(port: int, number: int) -> None:
        k = number
        while not over.is_set():
            path = f"/v1/listeners/{quiet[k % len(quiet)]}/similar?limit=5"
            try:
                status, answer = ask(port, "GET", path, run=run)
            except (OSError, HTTPException, ValueError):
                status, answer = 0, {}
            if status == 200:
                told.add(answer)
            else:
                told.failed += 1
            k += 1
            over.wait(0.02)

    flipped_s = []
    with serving(run, 2) as (_, port), loaded(port, users) as load:
        threads = [threading.Thread(target=listen, args=(port,))]
        threads += [threading.Thread(target=who, args=(port, number)) for number in range(ASKERS)]
        for thread in threads:
            thread.start()
        for turn in range(flips):
            time.sleep(every_s)
            started = time.monotonic()
            jobs.rollback(run, settings) if turn % 2 else jobs.activate(run, settings, second)
            flipped_s.append(time.monotonic() - started)
        time.sleep(EVERY_S)
        if versions.active() != second:
            jobs.activate(run, settings, second)
            time.sleep(EVERY_S)
        over.set()
        for thread in threads:
            thread.join()
    after = counts(run, second, heard)
    wrong = sum(after.get(user, 0) != before.get(user, 0) + n for user, n in acknowledged.items())
    mixed, by_batch = mixed_records(run, (first, second), list(load.pages.items()))
    facts = told.facts()
    vectors_well = facts["cosines_of_fewer_batch"] and not (facts["cosines_across_batches"] or told.failed)
    well = bool(vectors_well) and not (mixed or wrong or failed or load.refused or load.broken) and len(by_batch) == 2
    return {
        "flips": flips + 1 - flips % 2,
        "flip_s_median": round(float(np.median(flipped_s)), 2),
        "mixed_records": mixed,
        **facts,
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


def main(arguments: list[str]) -> int:
    """Exit code 1 where a record or a cosine is mixed, a request failed or a session is lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--flips", type=int, default=FLIPS)
    parser.add_argument("--every", type=float, default=EVERY_S)
    parser.add_argument("--swaps", type=int, default=0)
    asked = parser.parse_args(arguments)
    os.environ[USERS] = "true"
    with tempfile.TemporaryDirectory(prefix="bart-flip-") as folder:
        run = Path(folder) / "run"
        if asked.run is None:
            small_run(run)
        else:
            shutil.copytree(asked.run, run, symlinks=True)
        found = swaps(run, asked.swaps) if asked.swaps else flip(run, listeners_of(run), asked.flips, asked.every)
    print(json.dumps(found))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
