"""KuaiRand: short videos watched, with the time played and the video's length.

Columns: user_id, video_id, time_ms (unix milliseconds, when the video came up), play_time_ms, duration_ms (0: not
known). A play that was not clicked may still have been watched. Shown in China: the clock is Asia/Shanghai. The
k-core-15 cut holds only rows with a like or a hate (Gao and others 2022, CC BY-SA 4.0).

A play counts as skipped when it ended before `SKIP_SHARE` of the video and before 30 seconds; without a length or a
played time it is not known. What else the listener did (is_like, is_follow, is_forward, is_hate) is counted with the
play by the weight of that type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from bart.errors import DataError
from recommender.events.blocks import Block
from recommender.events.columns import numbers
from recommender.events.importers.contract import Asked, Importer, Rows
from recommender.events.importers.files import SourceFile
from recommender.events.importers.tabular import table_blocks
from recommender.events.table import Said

SKIP_SHARE = 0.5
SKIP_S = 30.0
TIME_ZONE = "Asia/Shanghai"
DID = {"is_like": "like", "is_follow": "follow", "is_forward": "share", "is_hate": "dislike"}
NEEDED = ("user_id", "video_id", "time_ms", "play_time_ms", "duration_ms")
_MAPPING = {
    "item_id": "video_id",
    "started_at": "time_ms",
    "listened_ms": "play_time_ms",
    "duration_ms": "duration_known_ms",
}


def read(files: Sequence[SourceFile], said: Said, _: Asked) -> Rows:
    """The plays, with `skipped` derived and the zone set."""
    missing = 0

    def plays() -> Iterator[Block]:
        nonlocal missing
        for block in table_blocks(files, said, (*NEEDED, *DID)):
            for name in NEEDED:
                if name not in block.table.column_names:
                    raise DataError(f"{block.file or files[0].name} has no column {name}; expected {', '.join(NEEDED)}")
            table, unknown = _derived(block.table)
            missing += unknown
            yield Block(table, block.file, block.first_row, block.row)
        if missing:
            said.notes.append(f"{missing:,} plays without a video length: skipped is not known")

    return Rows(plays(), _MAPPING)


def _derived(table: pa.Table) -> tuple[pa.Table, int]:
    played_ms, _ = numbers(table["play_time_ms"])
    duration_ms, _ = numbers(table["duration_ms"])
    duration_ms = np.where(duration_ms > 0, duration_ms, np.nan)
    known = ~np.isnan(played_ms) & ~np.isnan(duration_ms)
    skipped = (np.nan_to_num(played_ms) < SKIP_SHARE * np.nan_to_num(duration_ms)) & (played_ms < 1000 * SKIP_S)
    out = table.select(["user_id", "video_id", "time_ms", "play_time_ms"])
    out = out.append_column("duration_known_ms", pa.array(duration_ms, mask=np.isnan(duration_ms)))
    out = out.append_column("skipped", pa.array(skipped, mask=~known))
    types = _types(table)
    if types is not None:
        out = out.append_column("type", types)
    out = out.append_column("tz", pa.array([TIME_ZONE] * len(out), pa.string()))
    return out, int((~known).sum())


def _types(table: pa.Table) -> pa.Array | None:
    """What each row is beside a play, None where no column says it."""
    columns = [name for name in DID if name in table.column_names]
    if not columns:
        return None
    code = np.zeros(len(table), dtype=np.int64)
    for bit, name in enumerate(columns):
        code |= (np.nan_to_num(numbers(table[name])[0]) > 0).astype(np.int64) << bit
    words = [
        "+".join(["play", *(DID[name] for bit, name in enumerate(columns) if one >> bit & 1)])
        for one in range(1 << len(columns))
    ]
    return pa.array(words, pa.string()).take(pa.array(code))


KIND = Importer("kuairand", "a log of KuaiRand", read, "text", NEEDED, close=3)
