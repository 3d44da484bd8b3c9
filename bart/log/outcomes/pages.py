"""Logged pages as flat arrays: from the Parquet export, batch after batch, or from decisions in memory.

Both go through the same Arrow columns, so that what is learnt from an export is what would be learnt in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bart.errors import LogError
from bart.log.outcomes.merge import check_on_page, merge
from bart.log.record.batch import JoinedPage, record_batch
from bart.log.record.columns import REWARD_KEY, VERSION, rows_of_ids
from bart.log.record.feedback import FeedbackEvent
from bart.log.record.levels import unpack_levels
from bart.log.store.files import export_files, open_export, upgraded
from bart.reward.rewards import DEFAULT_REWARD, reward_of
from bart.types import DEVICES, OTHER_DEVICE, Bools, CardFeatures, Decision, Floats, Ints, ItemTable, PageBatch

READ_COLUMNS = [
    "request_id", "decided_at", "user_id", "utc_offset_min", "device", "surface", "country", "listener", "forced",
    "rows", "columns", "shelf_epsilon", "card_epsilon", "shelves", "item_id", "shelf", "raw_score", "score",
    "row_shelf", "shelf_propensity", "card", "card_propensity", "pinned", "closed", "displayed", "seen",
    "listened_s", "skipped", "saved", "reward", "account_age_d", "boost_factor", "boost_add", "relevance",
    "features",
]  # fmt: skip


def read_pages(
    directory: str | Path,
    items: ItemTable,
    *,
    batch_size: int = 2000,
    reward: str | None = DEFAULT_REWARD,
    rows: int | None = None,
    columns: int | None = None,
    since: date | None = None,
    until: date | None = None,
    on_repeat: Callable[[int], None] | None = None,
) -> Iterator[PageBatch]:
    """The pages of an export in the order of its dates, at most `batch_size` a batch; memory stays flat.

    items: gives each id its row (-1 where it is not in the table) and its duration. reward: recomputed under this name;
    None takes the one recorded at the export. rows, columns: of the arrays, by default the largest asked for in the
    export; smaller pages are padded with -1, NaN and False. since, until: first day, and the day after the last.
    All pages come: open, forced and undisplayed ones too if they were exported; the batch says which they are. A page
    comes once, however often an export holds it; on_repeat is told how many were left out.
    Raises LogError for files that are damaged or of a newer version, and where there are none.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    directory = Path(directory)
    files = export_files(directory, since, until)
    if not files:
        raise LogError(f"{directory} holds no exported pages; expected date=YYYY-MM-DD/part-*.parquet")
    most_rows, most_columns = largest_page(files)
    shape = (most_rows if rows is None else rows, most_columns if columns is None else columns)
    if shape[0] < most_rows or shape[1] < most_columns:
        raise ValueError(f"rows, columns are {shape}; expected at least {(most_rows, most_columns)}, the largest page")
    known, day = set[str](), None
    for file in files:
        if file.parent != day:  # a page lies in the day of its decision
            known, day = set[str](), file.parent
        yield from read_file(file, items, shape, reward, known, batch_size=batch_size, on_repeat=on_repeat)


def read_file(
    file: Path,
    items: ItemTable,
    shape: tuple[int, int],
    reward: str | None,
    known: set[str],
    groups: Sequence[int] | None = None,
    *,
    batch_size: int = 2000,
    on_repeat: Callable[[int], None] | None = None,
) -> Iterator[PageBatch]:
    """The pages of one file of an export, or of some of its row groups; arguments as of `read_pages`.

    known: request ids that came before on this day, grows by those that come.
    """
    item_id = pa.array(items.item_id, pa.string())
    parquet, version = open_export(file)
    wanted = READ_COLUMNS if version == VERSION else None
    with parquet:
        try:
            for batch in parquet.iter_batches(batch_size, row_groups=groups, columns=wanted):
                fresh = _first_time(batch, known)
                if on_repeat is not None and fresh.num_rows < batch.num_rows:
                    on_repeat(batch.num_rows - fresh.num_rows)
                if fresh.num_rows:
                    yield page_batch(upgraded(fresh, version), items, item_id, shape, reward)
        except (OSError, pa.ArrowException) as error:
            raise LogError(f"{file} cannot be read: {error}") from None


def known_before(file: Path, group: int) -> set[str]:
    """Request ids of a file's day that stand before one of its row groups, in it or in earlier files."""
    out = set[str]()
    for one in [each for each in export_files(file.parent.parent) if each.parent == file.parent and each <= file]:
        parquet, _ = open_export(one)
        with parquet:
            groups = list(range(group if one == file else parquet.metadata.num_row_groups))
            if groups:
                out.update(parquet.read_row_groups(groups, columns=["request_id"]).column(0).to_pylist())
    return out


def _first_time(batch: Any, known: set[str]) -> Any:
    """The rows of a record batch whose request id was not known before; `known` grows by them."""
    keep = []
    for request_id in batch.column("request_id").to_pylist():
        keep.append(request_id not in known)
        known.add(request_id)
    return batch if all(keep) else batch.filter(pa.array(keep))


def recorded_reward(directory: str | Path) -> str:
    """Name of the reward that the newest file of an export was made with; the default where there is none.

    Rewards are computed anew from what was heard, so days exported under an older name follow the newest.
    """
    files = export_files(Path(directory))
    if not files:
        return DEFAULT_REWARD
    parquet, _ = open_export(files[-1])
    with parquet:
        name = (parquet.schema_arrow.metadata or {}).get(REWARD_KEY)
    return DEFAULT_REWARD if name is None else str(name.decode())


def pages_of(
    decisions: Iterable[Decision],
    feedback: Mapping[str, Sequence[FeedbackEvent]] | None,
    items: ItemTable,
    *,
    closed: bool = True,
    reward: str = DEFAULT_REWARD,
    rows: int | None = None,
    columns: int | None = None,
) -> PageBatch:
    """The same for decisions in memory; feedback: events by request id.

    Raises FeedbackError for an event that fits no card.
    """
    pages = []
    for decision in decisions:
        events = () if feedback is None else feedback.get(decision.request_id, ())
        for event in events:
            check_on_page(event, decision.page.shown)
        row, column = decision.page.card.shape
        pages.append(JoinedPage(decision, merge((row, column), events), closed, b""))
    if not pages:
        raise ValueError("decisions is empty; expected at least one page")
    most_rows = max(page.decision.rows for page in pages)
    most_columns = max(page.decision.columns for page in pages)
    shape = (most_rows if rows is None else rows, most_columns if columns is None else columns)
    if shape[0] < most_rows or shape[1] < most_columns:
        raise ValueError(f"rows, columns are {shape}; expected at least {(most_rows, most_columns)}, the largest page")
    return page_batch(record_batch(pages, reward, items), items, pa.array(items.item_id, pa.string()), shape, None)


def page_batch(batch: Any, items: ItemTable, item_id: Any, shape: tuple[int, int], reward: str | None) -> PageBatch:
    """One Arrow record batch as arrays of `shape` (rows, columns). item_id: `items.item_id` as an Arrow array."""
    column = {name: batch.column(name) for name in batch.schema.names}
    at_us = np.asarray(column["decided_at"].cast(pa.int64()))
    at_s = at_us // 1_000_000
    local_s = at_s + 60 * np.asarray(column["utc_offset_min"], dtype=np.int64)
    offset, ids = _flat(column["item_id"])
    item = rows_of_ids(ids, item_id)
    raw_score = np.asarray(_flat(column["raw_score"])[1], dtype=np.float64)
    shelf_offset, shelves = _flat(column["shelves"])
    card = _grid(column["card"], shape, -1, np.int64)
    seen = _grid(column["seen"], shape, False, np.bool_)
    listened_s = _grid(column["listened_s"], shape, np.nan, np.float64)
    saved = _grid(column["saved"], shape, False, np.bool_)
    if reward is None:
        earned = _grid(column["reward"], shape, 0.0, np.float64)
    else:
        at = np.where(card >= 0, offset[:-1, None, None] + card, 0)
        row = np.where(card >= 0, item[at] if len(item) else -1, -1)
        duration_s = np.append(items.duration_s, np.nan)[row]  # -1: the last, unknown
        earned = reward_of(reward, listened_s, duration_s, saved, seen)
    return PageBatch(
        request_id=_objects(column["request_id"]),
        user_id=_objects(column["user_id"]),
        at_s=at_s,
        hour=local_s // 3600 % 24,
        weekday=(local_s // 86400 + 3) % 7,  # 1970 began on a Thursday
        device=_device(column["device"]),
        surface=_objects(column["surface"]),
        country=_objects(column["country"]),
        listener=_listener(column["listener"]),
        forced=np.asarray(column["forced"], dtype=np.bool_),
        displayed=np.asarray(column["displayed"], dtype=np.bool_),
        closed=np.asarray(column["closed"], dtype=np.bool_),
        offset=offset,
        item=item,
        shelf=np.asarray(_flat(column["shelf"])[1], dtype=np.int64),
        raw_score=raw_score,
        score=_scores(column["score"], raw_score, offset),
        shelf_offset=shelf_offset,
        rule=_objects(shelves.field("rule")),
        row_shelf=_row(column["row_shelf"], shape[0], -1, np.int64),
        card=card,
        shelf_propensity=_row(column["shelf_propensity"], shape[0], np.nan, np.float64),
        card_propensity=_grid(column["card_propensity"], shape, np.nan, np.float64),
        pinned=_grid(column["pinned"], shape, False, np.bool_),
        shelf_epsilon=_row(column["shelf_epsilon"], shape[0], np.nan, np.float64),
        card_epsilon=_row(column["card_epsilon"], shape[1], np.nan, np.float64),
        seen=seen,
        listened_s=np.where(seen & ~np.isnan(listened_s), listened_s, 0.0),
        reward=earned,
        saved=saved & seen,
        skipped=_said(column["skipped"], shape, seen),
        account_age_d=np.asarray(column["account_age_d"], dtype=np.float64),
        boost_factor=_moved(column["boost_factor"], 1.0, offset),
        boost_add=_moved(column["boost_add"], 0.0, offset),
        relevance=_relevance(column["relevance"]),
        vector=items.vector,
        features=_features(column["features"], offset),
    )


def largest_page(files: Sequence[Path]) -> tuple[int, int]:
    """Most rows and columns asked for, from the statistics in the files' footers."""
    most = [1, 1]
    for file in files:
        parquet, version = open_export(file)
        with parquet:
            if version < 2:  # that version kept no such columns
                for batch in parquet.iter_batches(columns=["shelf_epsilon", "card_epsilon"]):
                    for i, name in enumerate(("shelf_epsilon", "card_epsilon")):
                        most[i] = max(most[i], int(np.diff(_flat(batch.column(name))[0]).max(initial=0)))
                continue
            place = {parquet.schema.column(i).path: i for i in range(len(parquet.schema))}
            for group in range(parquet.metadata.num_row_groups):
                for i, name in enumerate(("rows", "columns")):
                    most[i] = max(most[i], parquet.metadata.row_group(group).column(place[name]).statistics.max)
    return most[0], most[1]


def _flat(lists: Any) -> tuple[Ints, Any]:
    """Offsets from 0 and the values of a list array, which may be a slice of a larger one."""
    offset = np.asarray(lists.offsets, dtype=np.int64)
    return offset - offset[0], lists.values.slice(offset[0], offset[-1] - offset[0])


def _within(offset: Ints) -> tuple[Ints, Ints]:
    """Of each value: its list, and its place in that list."""
    size = np.diff(offset)
    which = np.repeat(np.arange(len(size)), size)
    return which, np.arange(offset[-1]) - offset[which]


def _row(lists: Any, width: int, empty: Any, dtype: Any) -> NDArray[Any]:
    """Lists as [b, width], padded."""
    offset, values = _flat(lists)
    out = np.full((len(lists), width), empty, dtype=dtype)
    out[_within(offset)] = values.to_numpy(zero_copy_only=False)
    return out


def _grid(lists: Any, shape: tuple[int, int], empty: Any, dtype: Any) -> NDArray[Any]:
    """Lists of lists as [b, rows, columns], padded."""
    outer, rows = _flat(lists)
    inner, values = _flat(rows)
    page, row = _within(outer)
    line, place = _within(inner)
    out = np.full((len(lists), *shape), empty, dtype=dtype)
    out[page[line], row[line], place] = values.to_numpy(zero_copy_only=False)
    return out


def _said(lists: Any, shape: tuple[int, int], seen: Bools) -> NDArray[np.int8]:
    """Lists of lists of flags as 1, 0, and -1 where nothing was said or the card was not seen."""
    flag = _grid(lists.cast(pa.list_(pa.list_(pa.float64()))), shape, np.nan, np.float64)
    return np.where(seen & ~np.isnan(flag), flag, -1).astype(np.int8)


def _scores(lists: Any, raw_score: Floats, offset: Ints) -> Floats:
    """Final scores; where the list is null they are the raw ones."""
    if lists.null_count == len(lists):
        return raw_score
    own = np.repeat(np.asarray(lists.is_valid()), np.diff(offset))
    out = raw_score.copy()
    out[own] = lists.flatten().to_numpy(zero_copy_only=False)  # flatten leaves null lists out
    return out


def _moved(lists: Any, neutral: float, offset: Ints) -> Floats | None:
    """Factors or addends, neutral where the list is null; None where all are."""
    if lists.null_count == len(lists):
        return None
    return _scores(lists, np.full(int(offset[-1]), neutral), offset)


def _relevance(values: Any) -> Floats | None:
    if values.null_count == len(values):
        return None
    return np.asarray(pc.fill_null(values, float("nan")), dtype=np.float64)


def _features(values: Any, offset: Ints) -> CardFeatures | None:
    if values.null_count == len(values):
        return None
    packed = zip(values.to_pylist(), np.diff(offset).tolist(), strict=True)
    parts = [CardFeatures.unknown(n) if data is None else unpack_levels(data, n) for data, n in packed]
    return CardFeatures.concat(parts)


def _objects(values: Any) -> Any:
    return values.to_numpy(zero_copy_only=False).astype(object)


def _device(values: Any) -> Ints:
    code = rows_of_ids(values, pa.array(DEVICES, pa.string()))
    return np.where(code < 0, OTHER_DEVICE, code)


def _listener(lists: Any) -> NDArray[np.float32]:
    offset, values = _flat(lists)
    size = np.diff(offset)
    if len(size) and (size != size[0]).any():
        raise LogError(f"listener vectors have {size.min()} to {size.max()} numbers; expected one size in a batch")
    return np.asarray(values, dtype=np.float32).reshape(len(lists), int(size[0]) if len(size) else 0)
