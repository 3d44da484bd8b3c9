"""Pages for a whole table of listeners, as an export of a decision log that nobody has seen yet.

The table is cut into shards; a worker opens the bundle once and decides shard after shard. Seed and id of a page follow
from the seed of the run and its listener, so every engine and every number of workers decides the same pages, and a
shard that is decided again (a worker was killed) gives the same file. `bart log verify` replays the result.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.background.spread import check_engine, spread
from api.run.leftovers import of_living
from bart.errors import DataError

if TYPE_CHECKING:
    from api.run.runs import OpenRun
    from bart.types import Context, Decision

ARM = "rank_all"
SHARD = 1_000  # listeners of a shard, which becomes a file for each day in it
MANIFEST = "rank_all.json"
OPTIONAL = ("device", "surface", "country", "at", "utc_offset_min")
TIE = 1e-6
_SHARDS = ".listeners"

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker is told. at_us: for listeners without a time of their own, microseconds since 1970.

    settings: as JSON. bundle: ids of batch and model, for a worker that opens the run after another bundle took over.
    """

    run: str
    draft: str
    settings: str
    bundle: tuple[str, str]
    seed: int
    rows: int
    columns: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was decided. unknown: pages of listeners whom the run does not know. left_out: of who is not profiled, so
    that nothing is kept under their id."""

    listeners: int
    unknown: int
    left_out: int
    files: int
    batch_id: str
    model_id: str


def rank_all(
    root: Path,
    listeners: Path,
    out: Path,
    *,
    at: datetime,
    config: Path | None = None,
    seed: int | None = None,
    rows: int | None = None,
    columns: int | None = None,
    engine: str = "local",
    workers: int | None = None,
    master: str | None = None,
    shard: int = SHARD,
    on_progress: OnProgress | None = None,
) -> Ranked:
    """Decides a page for every row of `listeners` and writes them to `out`, which appears whole or not at all.

    listeners: CSV or Parquet with user_id and, where wanted, device, surface, country, at (UTC) and utc_offset_min. at:
    of listeners without a time. config: settings file; seed, rows, columns: instead of the settings'. engine: "local"
    (`workers` processes) or "spark" (at `master`; every worker must see the run and `out` under the same paths).
    Raises DataError for a table or a place that cannot be used, BundleError for a run that cannot be served.
    """
    from api.run.settings import load_settings
    from bart.directories import replace_directory
    from bart.log.record.record import to_us

    check_engine(engine, workers, master)
    settings = load_settings({"seed": seed}, config)
    out = Path(out).absolute()
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not of rank-all; expected a new directory, or one to replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(out)
    draft = out.with_name(f".{out.name}.draft-{os.getpid()}")
    draft.mkdir()
    try:
        told = json.dumps(settings.as_dict())
        run, _ = opened(str(Path(root).absolute()), told)  # what cannot be served is refused before a worker starts
        job = Job(
            run=str(Path(root).absolute()),
            draft=str(draft),
            settings=told,
            bundle=(run.bundle.batch_id, run.bundle.model_id),
            seed=settings.seed,
            rows=rows or settings.page.rows,
            columns=columns or settings.page.columns,
            at_us=to_us(at),
        )
        shards = list(write_shards(Path(listeners), draft / _SHARDS, shard))
        total = sum(shards)
        pages = unknown = files = gone = 0
        for found in spread(partial(_told, job), range(len(shards)), engine, workers, master):
            number, cold, written, nobody = json.loads(found)
            pages, unknown, files, gone = pages + number, unknown + cold, files + written, gone + nobody
            if on_progress is not None:
                on_progress(pages + gone, total, f"{files} files")
        shutil.rmtree(draft / _SHARDS)
        ranked = Ranked(pages, unknown, gone, files, run.bundle.batch_id, run.bundle.model_id)
        facts = {**asdict(ranked), "seed": job.seed, "rows": job.rows, "columns": job.columns, "at_us": job.at_us}
        (draft / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n")
        replace_directory(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return ranked


def rank_shard(job: Job, number: int) -> tuple[int, int, int, int]:
    """Decides one shard; pages, pages of unknown listeners, files written, listeners left out."""
    import pyarrow.parquet as pq

    from bart.log.record.batch import joined_batch
    from bart.log.record.outcomes import Outcomes
    from bart.log.record.parse import kept_block
    from bart.log.store.files import day_directory, write_batches

    run, ranker = opened(job.run, job.settings)
    if (run.bundle.batch_id, run.bundle.model_id) != job.bundle:
        raise DataError(f"{job.run}: another bundle was activated meanwhile; expected to start again")
    days: dict[Any, list[Decision]] = {}
    pages = unknown = gone = 0
    for row in pq.read_table(Path(job.draft) / _SHARDS / f"{number:06d}.parquet").to_pylist():
        context = _context(row, job.at_us)
        user = row["user_id"]
        listener = run.store.listener(user, context)
        if not listener.wishes.profiled:
            gone += 1
            continue
        named = f"{run.bundle.batch_id}\0{run.bundle.model_id}\0{job.seed}\0{user}\0{row}\0{job.at_us}".encode()
        request_id = blake2b(named, digest_size=16).hexdigest()
        decision = ranker.rank(request_id, listener, context, job.rows, job.columns, seed_of(job.seed, user), arm=ARM)
        days.setdefault(context.at.date(), []).append(decision)
        pages += 1
        unknown += not listener.known
    for day, found in days.items():
        file = day_directory(Path(job.draft), day) / f"part-{number:05d}.parquet"
        block, checksum = kept_block(found)
        nothing, open_ = (
            Outcomes.none(block.count("rows"), block.count("columns")),
            np.zeros(len(block), dtype=np.bool_),
        )
        batch = joined_batch(block, nothing, open_, checksum, "streamed_30s", run.items)
        write_batches(file, [batch], {b"bart.log.reward": b"streamed_30s"})
    return pages, unknown, len(days), gone


def seed_of(seed: int, user_id: str) -> int:
    """The seed of a listener's page, in [0, 2^62)."""
    return int.from_bytes(blake2b(f"{seed}\0{user_id}".encode(), digest_size=8).digest(), "big") >> 2


@lru_cache(maxsize=1)
def opened(root: str, told: str) -> tuple[OpenRun, Any]:
    """The run and its ranker as the run's switches have it; opened once a process."""
    from contextlib import closing

    from api.run.runs import open_run
    from api.run.settings import Settings
    from api.service.control import CONTROL_FILE, ControlStore
    from api.service.visit import under

    settings = Settings.of(json.loads(told))
    run = open_run(root, settings)
    if not (run.paths.root / CONTROL_FILE).exists():
        return run, run.ranker
    with closing(ControlStore(run.paths.root / CONTROL_FILE)) as control:
        return run, under(run.ranker, control.read())


def write_shards(table: Path, folder: Path, size: int) -> Iterator[int]:
    """Checks the listeners and writes them as files of `size` rows; yields the rows of each.

    Raises DataError that names the row (from 1) where something is missing or a listener comes twice at one time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bart.ope.inputs import files as inputs_files

    if not table.exists():
        raise DataError(f"{table} does not exist; expected a table of listeners with user_id")
    names = ["user_id", *(name for name in OPTIONAL if name in _columns(table))]
    folder.mkdir()
    seen: set[int] = set()
    waiting: list[dict[str, Any]] = []
    first = number = 0
    for batch, _ in inputs_files.record_batches(table, names):
        columns = [inputs_files.text(table, batch, "user_id", first).to_pylist()]
        columns += [batch.column(name).cast(pa.string()).fill_null("").to_pylist() for name in names[1:]]
        for i, values in enumerate(zip(*columns, strict=True)):
            row = _checked(table, first + i + 1, dict(zip(names, values, strict=True)))
            key = int.from_bytes(blake2b(repr(row).encode(), digest_size=8).digest(), "big")
            if key in seen:
                raise DataError(
                    f"{table}, row {first + i + 1}: user_id {row['user_id']!r} comes twice for the same moment; "
                    "expected each listener once"
                )
            seen.add(key)
            waiting.append(row)
            if len(waiting) == size:
                pq.write_table(pa.Table.from_pylist(waiting, _shard_schema()), folder / f"{number:06d}.parquet")
                yield size
                waiting, number = [], number + 1
        first += batch.num_rows
    if waiting:
        pq.write_table(pa.Table.from_pylist(waiting, _shard_schema()), folder / f"{number:06d}.parquet")
        yield len(waiting)
    if not first:
        raise DataError(f"{table} holds no row; expected listeners")


def _shard_schema() -> Any:
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("user_id", "device", "surface", "country")]
    return pa.schema([*texts, ("at_us", pa.int64()), ("utc_offset_min", pa.int32())])


def _checked(table: Path, number: int, row: dict[str, str]) -> dict[str, Any]:
    from bart.log.record.record import to_us

    out: dict[str, Any] = {"user_id": row["user_id"], "at_us": None, "utc_offset_min": None}
    if not row["user_id"]:
        raise DataError(f"{table}: column 'user_id', row {number} is empty; expected a value in every row")
    out.update({name: row.get(name, "") for name in ("device", "surface", "country")})
    if row.get("at"):
        try:
            at = datetime.fromisoformat(row["at"].replace("Z", "+00:00"))
        except ValueError:
            raise DataError(f"{table}: column 'at', row {number} is {row['at']!r}; expected a date or time") from None
        out["at_us"] = to_us(at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc))
    if row.get("utc_offset_min"):
        try:
            out["utc_offset_min"] = int(row["utc_offset_min"])
        except ValueError:
            out["utc_offset_min"] = 24 * 60
        if not -24 * 60 < out["utc_offset_min"] < 24 * 60:
            raise DataError(
                f"{table}: column 'utc_offset_min', row {number} is {row['utc_offset_min']!r}; expected whole minutes "
                "within a day"
            )
    return out


def _context(row: dict[str, Any], at_us: int) -> Context:
    from bart.log.record.record import from_us
    from bart.types import Context

    return Context(
        at=from_us(at_us if row["at_us"] is None else row["at_us"]),
        utc_offset_min=row["utc_offset_min"] or 0,
        device=row["device"] or "mobile",
        surface=row["surface"] or "default",
        country=row["country"],
        zone_known=row["utc_offset_min"] is not None,
    )


def _columns(table: Path) -> list[str]:
    """Names of a table's columns."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    file = next(iter(sorted(table.glob("*.parquet"))), table) if table.is_dir() else table
    try:
        if ".parquet" in file.suffixes:
            return list(pq.read_schema(file).names)
        with csv.open_csv(
            file, parse_options=csv.ParseOptions(delimiter="\t" if ".tsv" in file.suffixes else ",")
        ) as f:
            return list(f.schema.names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{table} cannot be read: {error}") from None


def _told(job: Job, number: int) -> bytes:
    return json.dumps(rank_shard(job, number)).encode()


def remove_drafts(out: Path) -> None:
    """Removes what killed runs left beside `out`; the draft of a living process stays."""
    for path in out.parent.glob(f".{out.name}.draft-*"):
        if not of_living(path):
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Compared:
    """Two outputs page by page. tied: pages that differ only where final scores lie within 1e-6; differing: others."""

    pages: int
    same: int
    tied: int
    differing: int


def compare_pages(one: Path, other: Path) -> Compared:
    """Whether two outputs of rank-all decided the same pages. Raises DataError where they are of other listeners."""
    counts = {"same": 0, "tied": 0, "differing": 0}
    pages = 0
    for mine, theirs in zip(_decisions(one), _decisions(other), strict=True):
        if mine.request_id != theirs.request_id:
            raise DataError(f"{one} and {other} are not of the same listeners, seed and bundle; expected the same")
        pages += 1
        a, b = mine.page, theirs.page
        if a.card.shape == b.card.shape and (a.shelf == b.shelf).all() and (a.card == b.card).all():
            counts["same"] += 1
        elif a.card.shape == b.card.shape and np.array_equal(mine.item_id, theirs.item_id) and _tied(mine, theirs):
            counts["tied"] += 1
        else:
            counts["differing"] += 1
    return Compared(pages, **counts)


def _tied(mine: Any, theirs: Any) -> bool:
    """Whether every slot that differs holds cards of about the same score."""
    a, b = mine.page.card, theirs.page.card
    differ = a != b
    if (a[differ] < 0).any() or (b[differ] < 0).any():
        return False
    return bool(np.abs(mine.score[a[differ]] - theirs.score[b[differ]]).max(initial=0.0) <= TIE)


def _decisions(directory: Path) -> Iterator[Any]:
    from bart.log.record.columns import decision_of
    from bart.log.store.files import export_files, open_export, upgraded

    for file in export_files(directory):
        parquet, version = open_export(file)
        with parquet:
            for batch in parquet.iter_batches(500):
                yield from (decision_of(row) for row in upgraded(batch, version).to_pylist())
