"""Sessions and track vectors of an event file: what training and evaluation of a listener model start from.

Vectors come from a file, else from playlists as in section 3.2 of the CoSeRNN paper, else from the sessions before the
validation set; never from a session that is validated on or tested. Vectors that have seen the validation sessions make
them look easier than test sessions are, and training then goes on for too long.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import Floats32, Strings
from recommender.events.importers import tabular
from recommender.sessions.plays import is_play, only_plays
from recommender.sessions.sessions import cut_sessions
from recommender.sessions.table import DAY_S, Sessions, unit
from recommender.vectors.sentences import sentences_of_events, sentences_of_playlists
from recommender.vectors.track import train_track_vectors

if TYPE_CHECKING:
    from collections.abc import Callable

PLAYLISTS_FILE = "playlists.parquet"
TEST_D, VALIDATION_D = 14.0, 5.0  # section 5.2


@dataclass(frozen=True, slots=True, eq=False)
class ListeningData:
    """sessions; item_id [items] with their unit vectors [items, d]; vectors_from: a phrase that says where from."""

    sessions: Sessions
    item_id: Strings
    vector: Floats32
    vectors_from: str


def listening_data(
    events: pa.Table,
    *,
    rng: np.random.Generator,
    tracks: Path | None = None,
    playlists: Path | None = None,
    hidden_d: float = TEST_D + VALIDATION_D,
    on_stage: Callable[[str], object] | None = None,
) -> ListeningData:
    """The sessions of an event table with vectors for their tracks.

    tracks: file of `read_vectors`. playlists: playlist_id, position, item_id, read where there is no `tracks`.
    hidden_d: days at the end whose events train no vector. on_stage: told what is being done.
    """

    def tell(what: str) -> None:
        if on_stage is not None:
            on_stage(what)

    if not is_play(events).any():
        raise DataError("no event is a play; a listener model learns from sessions, which are made of plays")
    if tracks is not None:
        tell("Reading track vectors")
        item_id, vector = read_vectors(tracks)
        said = f"vectors of {tracks.name}"
    else:
        tell("Training track vectors")
        lists = tabular.read_table(playlists) if playlists is not None else None
        item_id = _items(events, lists)
        row_of = {item: row for row, item in enumerate(item_id)}
        if lists is not None:
            sentences = sentences_of_playlists(lists, row_of)
            said = f"co-occurrence in {len(sentences):,} playlists"
        else:
            sentences = sentences_of_events(sessions_before(events, hidden_d), row_of)
            before = " before the validation set" if hidden_d > 0 else ""
            said = f"co-occurrence in {len(sentences):,} sessions{before}"
        vector = train_track_vectors(sentences, len(item_id), seed=int(rng.integers(2**31 - 1)))
    tell("Cutting sessions")
    sessions = cut_sessions(events, {item: row for row, item in enumerate(item_id)}, vector)
    if not sessions.has_played.any():
        raise DataError(f"no played track of the events has a vector ({said}); expected vectors of their items")
    return ListeningData(sessions, item_id, vector, said)


def read_vectors(path: Path) -> tuple[Strings, Floats32]:
    """Item ids [items] and unit vectors [items, d] of a Parquet file with the columns item_id and vector (a list).

    Raises DataError for a missing file or column, a repeated id, or vectors of different lengths.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a file of track vectors")
    table = tabular.read_table(path)
    for name in ("item_id", "vector"):
        if name not in table.column_names:
            raise DataError(f"{path} lacks {name}; columns: {', '.join(table.column_names)}")
    column = table["vector"].combine_chunks()
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"{path}: vector is {kind}; expected a list of numbers")
    size = np.unique(pc.list_value_length(column).to_numpy(zero_copy_only=False))
    if len(size) != 1 or not size[0] > 0 or column.null_count:
        raise DataError(f"{path}: vectors have lengths {size.tolist()}; expected one length for all")
    flat = pc.list_flatten(column).cast(pa.float32()).to_numpy(zero_copy_only=False)
    vector = flat.reshape(len(table), int(size[0]))
    if not np.isfinite(vector).all():
        row = int(np.flatnonzero(~np.isfinite(vector).all(axis=1))[0])
        raise DataError(f"{path}: vector[{row}] is not finite; expected numbers")
    item_id = np.array(table["item_id"].cast(pa.string()).to_pylist(), dtype=object)
    if len(set(item_id.tolist())) != len(item_id):
        raise DataError(f"{path}: an item_id stands twice; expected each once")
    return item_id, unit(vector)


def write_vectors(path: Path, item_id: Strings, vector: Floats32) -> None:
    """Writes what `read_vectors` reads."""
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(vector.reshape(-1)), vector.shape[1])
    pq.write_table(pa.table({"item_id": pa.array(item_id.tolist(), pa.string()), "vector": column}), path)


def _items(events: pa.Table, playlists: pa.Table | None) -> Strings:
    names = set(pc.unique(events["item_id"].cast(pa.string())).to_pylist())
    if playlists is not None and "item_id" in playlists.column_names:
        names |= set(pc.unique(playlists["item_id"].cast(pa.string())).to_pylist())
    return np.array(sorted(name for name in names if name is not None), dtype=object)


def evaluation_days(events: pa.Table) -> tuple[float, float]:
    """Days to test on and days before them to validate on: those of section 5.2, 14 and 5, where at least as many days
    are left to train on as are tested; of a shorter span a fifth and a tenth.
    """
    at_us = only_plays(events)["started_at"].cast(pa.int64())
    if not len(at_us):
        raise DataError("there are no plays; nothing can be evaluated")
    span_d = (pc.max(at_us).as_py() - pc.min(at_us).as_py()) / (DAY_S * 1_000_000)
    return (TEST_D, VALIDATION_D) if span_d >= 2 * TEST_D + VALIDATION_D else (span_d / 5, span_d / 10)


def sessions_before(events: pa.Table, hidden_d: float) -> pa.Table:
    """Events before the last days, and a tenth more left out, a day at most: the days are counted from the last
    session's start.
    """
    events = only_plays(events)
    if not hidden_d > 0:
        return events
    at_us = events["started_at"].cast(pa.int64())
    hidden_d += min(1.0, hidden_d / 10)
    kept = events.filter(pc.less(at_us, pc.max(at_us).as_py() - int(hidden_d * DAY_S * 1_000_000)))
    if not len(kept):
        raise DataError(f"no event is older than {hidden_d:.3g} days; nothing to train track vectors on")
    return kept
