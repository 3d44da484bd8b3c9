"""What the decision log costs: CPU a record for appending, feedback, export, reading and verifying, and bytes a page.

    python benchmarks/decision_log.py [--pages 2000] [--candidates 300] [--directory DIR]
    python benchmarks/decision_log.py --growth 500 1000 2000 4000   # export and verification alone, and their exponents
    python benchmarks/decision_log.py --run RUN   # bytes of a record in the log of a run

CPU is that of the process, system calls included; "group" is 16 threads that append at once.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bart.log.care.export import export_log
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import read_pages
from bart.log.record.feedback import FeedbackEvent
from bart.log.record.record import decode, encode
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, Decision, ItemTable, Labels, ListenerTraits, Shelf

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
LATER = datetime(2030, 1, 1, tzinfo=timezone.utc)
N_ITEMS, ROWS, COLUMNS, DIMENSION, SHELVES = 100_000, 10, 10, 40, 12
SHELF_EPSILON, CARD_EPSILON = np.full(ROWS, 0.2), np.full(COLUMNS, 0.2)
POLICY = PagePolicy(EpsilonGreedy(SHELF_EPSILON), EpsilonGreedy(CARD_EPSILON))


def page(i: int, n: int) -> Decision:
    """A drawn 10 x 10 page from n candidates in 12 shelves, scores of full float64 precision."""
    rng = np.random.default_rng(i)
    shelves = tuple(
        Shelf(f"rule_{s}", f"Because you played Artist {s}", f"Like Artist {s}", f"because.{s}", (("artist", f"{s}"),))
        for s in range(SHELVES)
    )
    shelf, score = rng.integers(0, SHELVES, n), 1 / (1 + np.exp(-rng.normal(size=n)))
    ids = np.array([f"track-{j:06d}" for j in rng.choice(N_ITEMS, n, replace=False)], dtype=object)
    drawn = POLICY.decide(Candidates(np.arange(n), shelf, shelves), score, ROWS, COLUMNS, np.random.default_rng(i))
    return Decision(
        f"request-{i:08d}",
        f"user-{i % 1000}",
        Context(START + i * timedelta(minutes=1)),
        ListenerTraits(300.5, 0.4, None),
        rng.normal(size=DIMENSION).astype(np.float32),
        "batch",
        "epsilon_greedy",
        SHELF_EPSILON,
        CARD_EPSILON,
        "rules",
        i,
        shelves,
        ids,
        shelf,
        score,
        score,
        drawn,
    )


def catalogue() -> ItemTable:
    ids = np.array([f"track-{j:06d}" for j in range(N_ITEMS)], dtype=object)
    none = Labels.of([()] * N_ITEMS)
    return ItemTable(
        ids,
        ids,
        np.zeros(N_ITEMS, np.int8),
        none,
        none,
        np.full(N_ITEMS, "NaT", dtype="datetime64[D]"),
        none,
        np.zeros(N_ITEMS, np.bool_),
        np.zeros(N_ITEMS),
        np.full(N_ITEMS, 200.0),
        np.zeros((N_ITEMS, DIMENSION), np.float32),
    )


def report(what: str, n: int, work: Callable[[], Any]) -> Any:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{what:<42} {1e3 * cpu / n:8.3f} ms CPU   {1e3 * wall / n:8.3f} ms wall")
    return result


def together(log: DecisionLog, decisions: list[Decision], threads: int = 16) -> None:
    def work(part: list[Decision]) -> None:
        for decision in part:
            log.append(decision)

    workers = [threading.Thread(target=work, args=(decisions[k::threads],)) for k in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def one_by_one(log: DecisionLog, decisions: list[Decision]) -> None:
    for decision in decisions:
        log.append(decision)


def seen(decision: Decision) -> tuple[str, list[FeedbackEvent], datetime]:
    at = decision.decided_at
    slots = np.argwhere(decision.page.shown)[:20].tolist()
    events = [FeedbackEvent(f"e{k}", at, r, c, True, True, 40.0) for k, (r, c) in enumerate(slots)]
    return decision.request_id, events, at


def read_all(directory: Path, items: ItemTable) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in read_pages(directory, items):
        pass
    print(f"{'  peak memory while reading grew by':<42} {(resource.getrusage(0).ru_maxrss - before) / 1024:8.0f} MB")


def growth(sizes: list[int], candidates: int) -> None:
    """CPU of exporting and of verifying logs of some sizes, and the power of their size that it grows with."""
    taken: dict[str, list[float]] = {"export": [], "verify": []}
    with tempfile.TemporaryDirectory() as name:
        for n in [min(sizes), *sizes]:  # the first loads machine code
            file, out = Path(name) / f"log-{n}-{len(taken['export'])}", Path(name) / f"export-{len(taken['export'])}"
            with DecisionLog(file) as log:
                for first in range(0, n, 500):
                    decisions = [page(i, candidates) for i in range(first, min(first + 500, n))]
                    log.append_many(decisions)
                    log.feedback_many([seen(decision) for decision in decisions])
                    del decisions
                works = {"export": partial(export_log, log, out, now=LATER), "verify": partial(verify, file)}
                for what, work in works.items():
                    began = time.process_time()
                    work()
                    taken[what].append(time.process_time() - began)
    for what, seconds in taken.items():
        each = ", ".join(f"{1e3 * s / n:.3f}" for n, s in zip(sizes, seconds[1:], strict=True))
        slope = np.polyfit(np.log(sizes), np.log(seconds[1:]), 1)[0]
        asked = ", ".join(f"{n:,}" for n in sizes)
        print(f"{what} of {asked} pages: {each} ms of CPU a page, growing to the power of {slope:.2f}")


def weigh(path: Path) -> None:
    """Prints the bytes of the records of a log, with how many candidates they tell of."""
    size, candidates = [], []
    with DecisionLog(path, create=False) as log:
        for row in log.stored():
            size.append(len(row.record))
            candidates.append(len(row.decode().item_id))
    low, middle, high = np.quantile(size, [0.05, 0.5, 0.95])
    print(
        f"{len(size)} records of {np.mean(candidates):.0f} candidates: mean {np.mean(size):.0f} bytes, "
        f"median {middle:.0f}, 5 and 95 % {low:.0f} and {high:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument(
        "--directory", type=Path, default=None, help="on the disk to measure; a temporary one by default"
    )
    parser.add_argument("--run", type=Path, help="a run whose records are weighed, and nothing else")
    parser.add_argument("--growth", type=int, nargs="+", metavar="PAGES")
    chosen = parser.parse_args()
    if chosen.run:
        weigh(chosen.run / "log.sqlite")
        return
    if chosen.growth:
        growth(chosen.growth, chosen.candidates)
        return
    n = chosen.pages
    few = min(n, 2000)
    decisions = [page(i, chosen.candidates) for i in range(n)]
    print(f"{n} pages of {ROWS} x {COLUMNS} from {chosen.candidates} candidates, per page:")
    stored = [encode(decision) for decision in decisions]
    stored = report("encode", n, lambda: [encode(decision) for decision in decisions])
    report("decode", n, lambda: [decode(one.record, one.checksum) for one in stored])
    print(f"{'record':<42} {np.mean([len(one.record) for one in stored]):8.0f} bytes")
    with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
        directory = Path(name)
        for synchronous in ("NORMAL", "FULL"):
            with DecisionLog(directory / f"{synchronous} one", synchronous=synchronous) as log:
                report(f"append, {synchronous}, one thread", few, partial(one_by_one, log, decisions[:few]))
            with DecisionLog(directory / f"{synchronous} group", synchronous=synchronous) as log:
                report(f"append, {synchronous}, group", few, partial(together, log, decisions[:few]))
        with DecisionLog(directory / "log") as log:
            report("append_many", n, lambda: log.append_many(decisions))
            reports = [seen(decision) for decision in decisions]
            report("feedback_many, 20 events a page", n, lambda: log.feedback_many(reports))
            report("export", n, lambda: export_log(log, directory / "export", now=LATER))
        print(f"{'log file':<42} {(directory / 'log').stat().st_size / n:8.0f} bytes")
        exported = sum(file.stat().st_size for file in (directory / "export").rglob("*.parquet"))
        print(f"{'export':<42} {exported / n:8.0f} bytes")
        items = catalogue()
        report("read_pages", n, lambda: read_all(directory / "export", items))
        verify(directory / "log")
        found = report("verify", n, lambda: verify(directory / "log"))
        print(f"{found.verified} of {found.records} verified, ok = {found.ok}")


if __name__ == "__main__":
    main()
