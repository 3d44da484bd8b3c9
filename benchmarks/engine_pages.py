"""Local against Spark on a log of pages: every sum and estimate, time, and what the engine adds to both.

Small pages (4 x 4 from 60 candidates on 6 shelves) of a small run's items, drawn epsilon-greedily with the project's
own walk and read from the top left, written straight to the columns of an export (some thousands a second).

    python benchmarks/engine.py pages --pages 200000
    python benchmarks/engine.py blocks --pages 20000
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from api.evaluate.pages_log import evaluate_log
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.bundle import open_bundle
from bart.item_store import load_items
from bart.log.record.columns import SCHEMA, SHELF
from bart.log.store.files import write_batches
from bart.ope.engine.run import Engine, kept
from bart.page.batch import batch_decide, batch_propensity
from bart.types import Bools, Floats, ItemTable, PageBatch

ROWS = COLUMNS = 4
SHELVES, CARDS = 6, 10
EPSILON = 0.2
VISITS = 20  # pages a listener
PAGES_A_DAY, PAGES_A_GROUP = 20_000, 1_000
GOING_ON = 0.9, 0.8  # to the next card, to the next row
DAY_US = 86_400_000_000
START_US = 1_772_323_200_000_000  # 2026-03-01


def small_run(folder: Path) -> Path:
    """A run of `bart demo` whose items and bundle the log is made for."""
    run = folder / "run"
    if not run.exists():
        size = ["--listeners", "60", "--days", "25", "--tracks", "800", "--visits", "300", "--seed", "5"]
        command = [sys.executable, "-m", "api.cli", "demo", "--out", str(run), *size]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def generate(run: Path, pages: int, seed: int = 1) -> Path:
    """RUN/pages-N, an export of so many pages, a file of 20,000 for each day."""
    log = run / f"pages-{pages}"
    if log.exists():
        return log
    bundle = open_bundle(run / "bundle")
    items = load_items(bundle.folder("items"))
    metadata = {b"bart.log.reward": b"streamed_30s", b"bart.log.durations": b"known"}
    for day in range(-(-pages // PAGES_A_DAY)):
        held = min(PAGES_A_DAY, pages - day * PAGES_A_DAY)
        name = str(np.datetime64(START_US + day * DAY_US, "us"))[:10]

        def groups(day: int = day, held: int = held) -> Iterator[Any]:
            for first in range(0, held, PAGES_A_GROUP):
                rng = np.random.default_rng([seed, day, first])
                size = min(PAGES_A_GROUP, held - first)
                yield _group(items, bundle.batch_id, day, first, size, pages, rng)

        write_batches(log / f"date={name}" / "part-00000.parquet", groups(), metadata)
    return log


def compare(folder: Path, pages: int, cluster: str) -> None:
    """Prints the comparison; raises RuntimeError where the engines differ by more than 1e-12."""
    run = small_run(folder)
    log = generate(run, pages)
    size = sum(file.stat().st_size for file in log.rglob("*.parquet"))
    print(f"{pages:,} pages, {size / 1e6:.0f} MB in {len(list(log.rglob('*.parquet')))} files", flush=True)
    policies = ["popularity:0.1", f"{run / 'bundle'}:0.1"]
    found = {}
    for name, engine in (("local", Engine("local", 2)), ("spark", Engine("spark", master=cluster))):
        wall, cpu = time.perf_counter(), _cpu()
        with kept(engine):
            begun = time.perf_counter() - wall
            found[name] = evaluate_log(log, policies, load_settings({}), None, Quiet(), everything=True, engine=engine)
            wall, cpu = time.perf_counter() - wall, _cpu() - cpu
        start = f" ({begun:.1f} s of it until Spark stood)" if name == "spark" else ""
        print(
            f"{name}: {wall:.1f} s{start}, {cpu:.1f} s of CPU of all processes, {pages / cpu:,.0f} pages a CPU second",
            flush=True,
        )
    numbers, worst = _difference(found["local"], found["spark"])
    print(f"{numbers:,} numbers of the report compared; largest relative difference {worst:.1e}", flush=True)
    if not worst <= 1e-12:
        raise RuntimeError(f"local and Spark differ by {worst:.1e}; expected at most 1e-12")


def blocks(folder: Path, pages: int, a_block: int = 2_000) -> None:
    """One fit to a log in blocks beside the log at once: differences in half widths."""
    run = small_run(folder)
    log, settings = generate(run, pages), load_settings({})
    policies, asked = ["popularity:0.1", f"{run / 'bundle'}:0.1"], ["dr", "exposure_ips", "dm", "cascade_dr"]
    size = a_block * SHELVES * CARDS
    given: Any = {"policies": policies, "settings": settings, "out": None, "stages": Quiet(), "estimators": asked}
    whole = evaluate_log(log, **given, block_candidates=pages * SHELVES * CARDS)["policies"]
    cut = evaluate_log(log, **given, block_candidates=size)["policies"]
    for one, other in zip(whole, cut, strict=True):
        print(
            f"{one['name'].rsplit('/', 1)[-1]}, {pages:,} pages in blocks of {a_block:,}: difference to the log at once"
        )
        for name in asked:
            at_once, here = (row["estimates"][name] for row in (one, other))
            half, width = (at_once["upper"] - at_once["lower"]) / 2, here["upper"] - here["lower"]
            gap = abs(here["value"] - at_once["value"]) / half
            print(
                f"  {name:<14}{at_once['value']:.4f} +- {half:.4f}; {gap:.5f} half widths, "
                f"as wide x {width / half / 2:.4f}",
                flush=True,
            )


def _group(items: ItemTable, batch_id: str, day: int, first: int, b: int, pages: int, rng: np.random.Generator) -> Any:
    """`b` pages as a record batch of the export."""
    n = SHELVES * CARDS
    # Distinct items a page: a stride that shares no factor with a prime modulus at most the number of items.
    prime = next(p for p in range(len(items.item_id), 1, -1) if all(p % d for d in range(2, int(p**0.5) + 1)))
    item = (rng.integers(0, prime, (b, 1)) + np.arange(n) * rng.integers(1, prime, (b, 1))) % prime
    taste = rng.normal(0, 0.8, item.shape) + rng.normal(0, 0.5, (b, SHELVES)).repeat(CARDS, axis=1)
    appeal = 1 / (1 + np.exp(2.2 - taste))
    score = 1 / (1 + np.exp(2.0 - 0.5 * taste - rng.normal(0, 0.6, item.shape)))
    offset, shelf = np.arange(b + 1) * n, np.tile(np.repeat(np.arange(SHELVES), CARDS), b)
    row_shelf, card = batch_decide(offset, shelf, score.ravel(), ROWS, COLUMNS, EPSILON, EPSILON, rng)
    seen, streamed = _read(np.take_along_axis(appeal, card.reshape(b, -1), axis=1).reshape(card.shape), rng)
    number = day * PAGES_A_DAY + first + np.arange(b)
    user = number % max(pages // VISITS, 1)
    batch = PageBatch(
        request_id=np.array([f"r{i}" for i in number], dtype=object),
        user_id=np.array([f"u{i}" for i in user], dtype=object),
        at_s=(START_US + day * DAY_US) // 1_000_000 + first + np.arange(b),
        hour=np.zeros(b, dtype=np.int64),
        weekday=np.zeros(b, dtype=np.int64),
        device=np.zeros(b, dtype=np.int64),
        surface=np.full(b, "home", dtype=object),
        country=np.full(b, "", dtype=object),
        listener=rng.normal(0, 0.3, (b, items.dimension)).astype(np.float32),
        forced=np.zeros(b, dtype=np.bool_),
        displayed=np.ones(b, dtype=np.bool_),
        closed=np.ones(b, dtype=np.bool_),
        offset=offset,
        item=item.ravel(),
        shelf=shelf,
        raw_score=score.ravel(),
        score=score.ravel(),
        shelf_offset=np.arange(b + 1) * SHELVES,
        rule=np.full(b * SHELVES, "rule", dtype=object),
        row_shelf=row_shelf,
        card=card,
        shelf_propensity=np.full(row_shelf.shape, np.nan),
        card_propensity=np.full(card.shape, np.nan),
        pinned=np.zeros(card.shape, dtype=np.bool_),
        shelf_epsilon=np.full((b, ROWS), EPSILON),
        card_epsilon=np.full((b, COLUMNS), EPSILON),
        seen=seen,
        listened_s=np.where(streamed, 60.0, np.where(seen, 3.0, 0.0)),
        reward=streamed.astype(np.float64),
        saved=np.zeros(card.shape, dtype=np.bool_),
        skipped=np.full(card.shape, -1, dtype=np.int8),
        account_age_d=np.full(b, 100.0),
    )
    return _columns(batch, items, batch_id, batch_propensity(batch, batch.score, EPSILON, EPSILON))


def _read(appeal: Floats, rng: np.random.Generator) -> tuple[Bools, Bools]:
    """Which cards of [b, rows, columns] were seen and streamed, read from the top left."""
    b = len(appeal)
    on_card = rng.random(appeal.shape) < GOING_ON[0]
    on_card[:, :, 0] = True
    on_row = rng.random((b, ROWS)) < GOING_ON[1]
    on_row[:, 0] = True
    seen = np.cumprod(on_card, axis=2).astype(bool) & np.cumprod(on_row, axis=1).astype(bool)[:, :, None]
    return seen, seen & (rng.random(appeal.shape) < appeal)


def _columns(batch: PageBatch, items: ItemTable, batch_id: str, propensity: tuple[Floats, Floats]) -> Any:
    b, slots = len(batch), ROWS * COLUMNS
    shelf = pa.array([asdict_shelf(s) for s in range(SHELVES)] * b, SHELF)
    said = {
        "shelf_propensity": _lists(propensity[0]),
        "card_propensity": _grids(propensity[1]),
        "decided_at": pa.array(batch.at_s * 1_000_000).cast(SCHEMA.field("decided_at").type),
        "joined_at": pa.array(batch.at_s * 1_000_000).cast(SCHEMA.field("joined_at").type),
        "device": np.full(b, "phone", dtype=object),
        "batch_id": np.full(b, batch_id, dtype=object),
        "shelves": pa.ListArray.from_arrays(pa.array(np.arange(b + 1) * SHELVES, pa.int32()), shelf),
        "item_id": _lists(items.item_id[batch.item].reshape(b, -1), pa.string()),
        "score": pa.nulls(b, SCHEMA.field("score").type),
        "rows": np.full(b, ROWS),
        "columns": np.full(b, COLUMNS),
        "seed": np.full(b, "0", dtype=object),
        "skipped": _grids(np.zeros((b, ROWS, COLUMNS), dtype=bool)),
        "events": np.full(b, slots),
        "late_events": np.zeros(b, dtype=np.int64),
        "diversity": np.full(b, 0.5),
        "exploration_success": np.full(b, 0.5),
        "utc_offset_min": np.zeros(b, dtype=np.int64),
        "explicit_allowed": np.ones(b, dtype=bool),
        "checksum": pa.array([b""] * b, pa.binary()),
    }
    for name in ("model_id", "policy", "rules_version", "arm"):
        said[name] = np.full(b, "", dtype=object)
    arrays = []
    for field in SCHEMA:
        values = said[field.name] if field.name in said else getattr(batch, field.name)
        if values is None:  # what these pages do not say
            values = pa.nulls(b, field.type)
        if isinstance(values, np.ndarray):
            if pa.types.is_list(field.type):
                wide = values.reshape(b, *(values.shape[1:] if values.ndim > 1 else (-1,)))
                values = _grids(wide) if wide.ndim == 3 else _lists(wide)
            else:
                values = pa.array(values, field.type)
        arrays.append(values.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def asdict_shelf(number: int) -> dict[str, Any]:
    """A shelf as the export has it."""
    from bart.types import Shelf

    return {**asdict(Shelf(f"rule {number}", f"Shelf {number}")), "parameters": []}


def _lists(values: Any, kind: Any = None) -> Any:
    b, n = values.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(b + 1) * n, pa.int32()), pa.array(values.ravel(), kind))


def _grids(values: Any) -> Any:
    b, rows, columns = values.shape
    inner = _lists(values.reshape(b * rows, columns))
    return pa.ListArray.from_arrays(pa.array(np.arange(b + 1) * rows, pa.int32()), inner)


def _difference(one: Any, other: Any) -> tuple[int, float]:
    """Numbers compared in two parts of a report, and the largest relative difference; infinite where shapes differ."""
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        pairs = [(one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = list(zip(one, other, strict=True))
    elif isinstance(one, float) and isinstance(other, float):
        return 1, 0.0 if one == other or (one != one and other != other) else abs(one - other) / max(abs(one), 1e-300)
    else:
        return 0, 0.0 if one == other else float("inf")
    found = [_difference(a, b) for a, b in pairs]
    return sum(n for n, _ in found), max((worst for _, worst in found), default=0.0)


def _cpu() -> float:
    """CPU seconds of this process, of those that ended, and of all that run below it (Spark's and their workers)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    parent, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parent[int(stat.parent.name)] = int(fields[1])
        seconds[int(stat.parent.name)] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    below = {os.getpid()}
    while more := {child for child, above in parent.items() if above in below} - below:
        below |= more
    return ended.ru_utime + ended.ru_stime + sum(seconds.get(process, 0.0) for process in below)
