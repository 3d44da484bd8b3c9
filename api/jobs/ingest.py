"""What came in since the last time: listening events into the listeners' states, closed pages into the export.

Each step can be killed and done again: files are replaced whole, a listener's sessions are committed in order and only
those that began after the last committed one, and days of the export are compared with the log before they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from api.hosts.running_sessions import SESSIONS_FILE, RunningSessions
from api.hosts.shared import left_out, listener_store, open_shared
from api.run.clock import utc_now
from api.run.events import known_items, note, replace_parts, unheard
from api.run.listening import Listening
from api.run.progress import ignore
from api.run.runs import RunPaths, proof_key_of
from api.service.listening import ListeningService
from bart.bundle import open_bundle
from bart.errors import DataError
from bart.item_store import load_items
from bart.types import ItemTable
from recommender.listener.model import last_ended_s
from recommender.states.preferences import LeftOut

if TYPE_CHECKING:
    import pyarrow as pa

    from api.run.progress import Tick
    from api.run.settings import Settings
    from bart.log.decision_log import DecisionLog
    from recommender.states.states import StoredListeners

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Heard:
    """Sessions committed, of how many listeners; plays after what was known, and of items that the batch lacks."""

    sessions: int
    listeners: int
    plays: int
    unknown_plays: int


def merge_events(paths: RunPaths, listening: Listening, settings: Settings) -> tuple[int, list[str]]:
    """Adds the plays of a file to the run's events: how many were new, and what else is to be told, a line each.

    What is of who must be left out is not taken. The same play, of equal listener, item and start, counts once; of two
    the fuller one stays. What the file says of items that the run does not know is added to its items; one that the run
    has by another id keeps that. Raises DataError where the file cannot be read.
    """
    from recommender.events.merge import merge
    from recommender.events.parts import parts_near, parts_of, read_parts

    found = listening.load(settings)
    new = left_out(paths, settings).without(found.events)
    if not len(new):
        return 0, [*found.check.summary()]
    parts = parts_of(paths.events)
    near = parts_near(parts, new)
    old = read_parts(near) if near else None
    same = _described(paths, new, found.item_text) if paths.items.is_file() else {}
    merged = merge(old, new, int(utc_now().timestamp() * 1e6), same, unfinished=near[-1:] != parts[-1:])
    if merged.changed:
        replace_parts(paths.events, near, merged.events)
    told = [f"{len(same):,} items keep the id that they have here: {_few(same)}"] if same else []
    return merged.added, [*found.check.summary(), *told, *merged.lines()]


def _few(same: Mapping[str, str]) -> str:
    shown = [f"{theirs} is {ours}" for theirs, ours in list(same.items())[:2]]
    return ", ".join([*shown, *(["..."] if len(same) > len(shown) else [])])


def _described(paths: RunPaths, new: pa.Table, item_text: pa.Table) -> dict[str, str]:
    """Adds rows for items that the file lacks, so that a rebuild has their titles; {new id: the id that it has} of
    those that it has by another."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from bart.log.store.files import write_atomically
    from recommender.events.other_ids import known_as, names_of, renamed
    from recommender.events.parts import read_parts
    from recommender.shelves.items import items_of_events

    known = pq.read_table(paths.items)
    found = items_of_events(item_text)
    if pc.all(pc.is_in(found["item_id"], known["item_id"].combine_chunks())).as_py():
        return {}
    named, theirs = names_of(known), names_of(found)
    same: dict[str, str] = {}
    if paths.events.exists() and renamed(named, theirs):
        same = known_as(read_parts(paths.events, ["user_id", "item_id", "started_at"]), new, named, theirs)
    there = pa.concat_arrays([known["item_id"].combine_chunks(), pa.array(list(same), pa.string())])
    lacking = found.filter(pc.invert(pc.is_in(found["item_id"], there)))
    if len(lacking):
        both = pa.concat_tables([known, lacking.cast(known.schema)]).sort_by("item_id")
        write_atomically(paths.items, lambda beside: pq.write_table(both, beside, compression="zstd"))
    return same


def hear(paths: RunPaths, items: ItemTable, store: StoredListeners, tick: Tick) -> Heard:
    """Commits the sessions that are in the run's events and not yet in the listeners' states.

    A listener's plays up to the end of the last committed session are taken as known, so that sessions that were also
    posted to the service do not count twice; plays that come late wait for vectors to be rebuilt. Plays after it are
    cut into sessions by themselves.
    """
    from recommender.sessions.sessions import cut_sessions

    new, notes, unknown = new_plays(paths, items, store)
    if not len(new):
        store.note_parts_heard(notes)
        return Heard(0, 0, 0, 0)
    sessions = cut_sessions(new, items.row_of, items.vector, sources=store.model.sources)
    played = ~sessions.track_skipped
    done = listeners = 0
    for number, user in enumerate(sessions.user_id.tolist()):
        rows = np.arange(sessions.offset[number], sessions.offset[number + 1])
        tracks, passed = [], []
        for row in rows:
            span = slice(sessions.track_offset[row], sessions.track_offset[row + 1])
            tracks.append(sessions.track[span][played[span]])
            passed.append(sessions.track[span][~played[span]])
        with_items = np.flatnonzero(np.diff(sessions.track_offset)[rows])  # of unknown items alone: no session
        heard, skipped = ([kept[i] for i in with_items] for kept in (tracks, passed))
        committed = store.catch_up(user, sessions.columns.take(rows[with_items]), heard, skipped)
        done += committed
        listeners += committed > 0
        tick(number + 1, sessions.n_users, f"{done:,} sessions")
    store.note_parts_heard(notes)
    return Heard(done, listeners, len(new), unknown)


def new_plays(paths: RunPaths, items: ItemTable, store: StoredListeners) -> tuple[pa.Table, dict[str, str], int]:
    """The plays that began after the last committed session of their listener, by listener and time; what is to be
    noted of the events' parts once they are committed; and how many of them are of items that the batch lacks.

    Read are the parts of which not all is known to be in the states: those that changed since.
    """
    import pyarrow as pa

    from recommender.events.parts import by_listener, parts_of, read_parts
    from recommender.sessions.plays import only_plays

    left = LeftOut() if store.preferences is None else store.preferences.left_out()
    parts, noted, marked = parts_of(paths.events), store.parts_heard(), known_items(items.item_id)
    open_parts = unheard(parts, noted, left.not_profiled, marked)
    notes = {part.path.name: noted[part.path.name] for part in parts if part not in open_parts}
    found, unknown = [], 0
    for part in open_parts:
        every = only_plays(read_parts([part]))
        events = left.without(every)
        users = events["user_id"].combine_chunks().dictionary_encode()
        names = users.dictionary.to_pylist()
        heads = store.heads(names)
        known = np.array([_or_never(last_ended_s(heads[name]) if name in heads else None) for name in names] or [-1])
        started_s = events["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
        later = started_s > known[users.indices.to_numpy()]
        item = events["item_id"].combine_chunks().dictionary_encode()
        lacking = (items.rows(item.dictionary.to_pylist()) < 0)[item.indices.to_numpy()]
        unknown += int((lacking & later).sum())
        passed_over = left.not_profiled & set(every["user_id"].unique().to_pylist()) if left.not_profiled else ()
        notes[part.path.name] = note(part, passed_over, bool(lacking.any()), marked)
        found.append(events.filter(pa.array(later)))
    new = pa.concat_tables(found, promote_options="permissive") if found else pa.table({})
    return by_listener(new) if len(new) else new, notes, unknown


def catch_up(paths: RunPaths, bundle_path: Path, settings: Settings) -> int:
    """Replays into a batch's states the sessions of the run's events and the reported ones that it has not met.

    Events first; a session that began before the last one in a listener's state is taken as known. How many.
    """
    bundle = open_bundle(bundle_path)
    items = load_items(bundle.folder("items"))
    shared = open_shared(settings)
    sessions = RunningSessions(paths.root / SESSIONS_FILE) if shared is None else shared.sessions()
    with closing(sessions), closing(listener_store(paths, bundle, settings)) as store:
        heard = hear(paths, items, store, ignore).sessions
        return heard + ListeningService(items, store, sessions).replay(0)


def export_closed(paths: RunPaths, items: ItemTable, settings: Settings, now: datetime) -> int:
    """Closes the windows that are due and brings RUN/log up to date; how many pages were written anew.

    Only days from the first whose export is not what the log holds are written. Raises LogError for a damaged log.
    """
    from bart.log.care.export import export_log
    from bart.log.decision_log import DecisionLog

    if not paths.log.is_file():
        return 0
    window, key = timedelta(hours=settings.reward.window_h), proof_key_of(settings, paths.root)
    with closing(DecisionLog(paths.log, feedback_window=window, proof_key=key)) as log:
        log.close_windows(now)
        behind = _days_behind(log, paths.log_export, settings.reward.name)
        if not behind:
            return 0
        return export_log(
            log,
            paths.log_export,
            duration_s=items,
            reward=settings.reward.name,
            since=behind[0],
            until=behind[-1] + timedelta(days=1),
        ).pages


def exported_log(root: Path, settings: Settings) -> Path:
    """RUN/log, brought up to date with the log of the run. Raises DataError where no page is closed yet."""
    from bart.log.store.files import export_files

    paths = RunPaths(root)
    if paths.log.is_file():
        bundle = open_bundle(paths.bundle.resolve())
        export_closed(paths, load_items(bundle.folder("items")), settings, utc_now())
    if not export_files(paths.log_export):
        hours = settings.reward.window_h
        raise DataError(
            f"{root} holds no closed page; expected pages shown more than {hours:g} hours ago (reward.window_h)"
        )
    return paths.log_export


def _days_behind(log: DecisionLog, directory: Path, reward: str) -> list[date]:
    """Days of which the export does not hold what the log holds of closed pages, or with another reward; ascending."""
    from bart.log.proof.ledger import closed_days
    from bart.log.proof.manifest import read_manifest

    with log.reading() as connection:
        query = (
            f"SELECT decided_us / {_DAY_US} - (decided_us % {_DAY_US} < 0), count(*), coalesce(sum(events), 0)"
            " FROM decision LEFT JOIN (SELECT seq AS page, count(*) AS events FROM event GROUP BY seq) ON page = seq"
            " WHERE decided_us <= ? GROUP BY 1 ORDER BY 1"
        )
        closed = connection.execute(query, (log.closed_us(),)).fetchall()
    entries = closed_days(log.chain())
    manifest = read_manifest(directory)
    exported = {} if manifest is None else manifest.days
    out = []
    for number, pages, events in closed:
        day = (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(days=number)).date()
        entry, told = entries.get(day.isoformat()), exported.get(day.isoformat())
        if entry is not None and (told is None or told.entry != entry.number):
            out.append(day)  # closed since, or amended
        elif _exported(directory, day, reward) != (entry.count if entry is not None else pages, events):
            out.append(day)
    return out


def _exported(directory: Path, day: date, reward: str) -> tuple[int, int]:
    """Pages and events that an export holds of a day; none where they were exported with another reward."""
    from bart.log.record.columns import REWARD_KEY
    from bart.log.store.files import export_files, open_export

    pages = events = 0
    for file in export_files(directory, day, day + timedelta(days=1)):
        parquet, _ = open_export(file)
        with parquet:
            if (parquet.schema_arrow.metadata or {}).get(REWARD_KEY) != reward.encode():
                return 0, 0
            table = parquet.read(["events", "late_events"])
            pages += len(table)
            events += int(np.asarray(table["events"]).sum()) + int(np.asarray(table["late_events"]).sum())
    return pages, events


def _or_never(at_s: int | None) -> int:
    return -1 if at_s is None else at_s
