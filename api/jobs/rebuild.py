"""`bart retrain --vectors rebuild`: new vectors, listener model, index and reward model from all events of a run.

Vectors of two batches cannot be compared, so the logged pages get the listener vectors that the new batch would have
had at their time; logged candidates and their outcomes stay what they were. The new reward model starts from the prior
and learns from all pages before the ones held out. It is judged against the serving bundle on the same pages, each with
the vectors of its own batch. What cannot be judged from the log are the candidates that only the new index would bring.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.hosts.shared import left_out, listener_store, preferences_of
from api.jobs import gates
from api.jobs.attempt import DRAFTS, Attempt, Retrained
from api.jobs.build import account_age_d, build_batch
from api.jobs.evidence import Evidence, gather, holdout_share, new_pages, too_few
from api.jobs.ingest import catch_up
from api.jobs.run_directory import carry_rows
from api.jobs.train import retrain
from api.run.events import notes_of
from api.run.runs import RunPaths
from api.users.everybody import encode_batch
from bart.errors import DataError
from bart.types import Floats32, ItemTable, PageBatch
from bart.types.wishes import UNNAMED

if TYPE_CHECKING:
    import pyarrow as pa

    from bart.bundle import Bundle
    from bart.reward.model import RewardModel
    from recommender.states.states import StoredListeners


@dataclass(frozen=True, eq=False)
class Beside:
    """A batch that was built beside the one that serves, in a run of its own: its bundle, items and logged pages."""

    run: RunPaths
    bundle: Bundle
    items: ItemTable
    pages: RecomputedPages


def rebuild(run: Attempt) -> Retrained:
    """A candidate of a new batch, judged and activated or refused; refused where too few pages can judge it."""
    from recommender.states.states import carry_batches

    serving, settings = run.serving, run.settings
    evidence = gather(run.paths.log_export, run.items, serving.batch_id, serving.learnt_until_s)
    run.facts.append(f"{evidence.pages:,} pages that the serving model has not learnt from")
    refused = too_few(evidence, settings)
    if refused:
        return run.conclude(None, evidence, refused=refused)
    with built_beside(run) as beside:
        if beside is None:
            return run.nothing("the run's events give the vectors that serve already")
        written = run.versions.draft()
        found = learn_beside(run, beside, written, evidence)
        carry_batches(beside.run.listeners, run.paths.listeners)
        run.facts.append(f"{catch_up(run.paths, written, settings):,} reported sessions replayed into the new states")
        run.facts.extend(encode_batch(run.paths.root, run.settings, run.stages, written))
        return run.conclude(written, evidence, found)


@contextmanager
def built_beside(run: Attempt) -> Iterator[Beside | None]:
    """Builds vectors, listener model, index and states anew from the run's events, in a place that is removed at the
    end; None where they come out as those that serve."""
    from bart.bundle import open_bundle
    from bart.item_store import load_items

    draft = run.paths.root / DRAFTS.replace("*", str(os.getpid()))
    draft.mkdir()
    try:
        with closing(listener_store(run.paths, run.serving, run.settings)) as old_store:
            listeners = joined_table(old_store, run.items)
            events = _build(run, draft, listeners)
            made = open_bundle(RunPaths(draft).bundle.resolve())
            if made.batch_id == run.serving.batch_id:
                yield None
                return
            new_items = load_items(made.folder("items"))
            tick = run.stages.stage("Recomputing listener vectors")
            pages = RecomputedPages(run.paths.log_export, made, new_items, events, listeners)
            tick(1, 1, f"{len(pages.vector):,} pages")
            with closing(listener_store(RunPaths(draft), made)) as new_store:
                not_profiled = left_out(run.paths, run.settings).not_profiled
                new_store.note_parts_heard(notes_of(run.paths.events, not_profiled, new_items))
                run.facts.append(carry_rows(old_store, run.items, new_store, new_items))
        yield Beside(RunPaths(draft), made, new_items, pages)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def learn_beside(run: Attempt, beside: Beside, out: Path, evidence: Evidence) -> list[gates.Gate]:
    """Writes the bundle of the new batch to `out` with a reward model learnt from the logged pages; its gates."""
    found: list[gates.Gate] = []

    def judge(model: RewardModel, folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
        compared, held_out = _judge(run, beside, metrics["holdout_from_s"], folder)
        found.extend([gates.parity(model, folder, beside.items), *gates.calibration(metrics["holdout"], run.settings)])
        found.extend(gates.value(compared, run.settings))
        return run.told(found, compared, evidence, held_out)

    retrain(
        beside.bundle,
        beside.items,
        beside.pages,
        out,
        run.settings,
        run.stages,
        holdout=holdout_share(beside.pages.usable, evidence, run.settings),
        judge=judge,
    )
    return found


class RecomputedPages:
    """The logged pages with the listener vectors of a new batch; calling it gives them anew, batch by batch.

    vector: [n, d]. usable: how many are data.
    """

    def __init__(self, log: Path, made: Bundle, items: ItemTable, events: pa.Table, listeners: pa.Table) -> None:
        from bart.learning.training import usable_pages
        from recommender.sessions.sessions import cut_sessions
        from recommender.states.past_states import liked_at, vectors_at
        from recommender.states.states import load_listener_model

        self._log, self._items = log, items
        model = load_listener_model(made.folder("listener"))
        cold = np.load(made.folder("listener") / "cold_vector.npy", allow_pickle=False)
        row_of = {item: row for row, item in enumerate(items.item_id.tolist())}
        age_d = account_age_d(events, listeners)
        sessions = cut_sessions(events, row_of, items.vector, sources=model.sources, account_age_d=age_d)
        columns: list[tuple[Any, ...]] = []
        empty = np.empty(0, dtype=np.int64)
        self.usable = 0
        for batch in self._logged():
            columns.append((batch.user_id, batch.at_s, batch.hour, batch.weekday, batch.device))
            self.usable += int(usable_pages(batch).sum())
        columns = columns or [(np.empty(0, dtype=object), empty, empty, empty, empty)]
        user_id, at_s, hour, weekday, device = (np.concatenate(part) for part in zip(*columns, strict=True))
        unheard = liked_at(events, row_of, items.vector, user_id, at_s, cold)
        self.vector: Floats32 = vectors_at(model, sessions, user_id, at_s, hour, weekday, device, unheard)

    def __call__(self) -> Iterator[PageBatch]:
        start = 0
        for batch in self._logged():
            yield replace(batch, listener=self.vector[start : start + len(batch)])
            start += len(batch)

    def _logged(self) -> Iterator[PageBatch]:
        return new_pages(self._log, self._items, None, None)


def _judge(run: Attempt, beside: Beside, since_s: int, folder: Path) -> tuple[gates.Comparison, int]:
    """Both bundles on the pages held out that were decided with the serving vectors; how many are data."""
    from bart.learning.training import usable_pages
    from bart.reward.scorer import load_scorer

    tick = run.stages.stage("Evaluating on the pages held out")
    theirs = PageBatch.concat(list(new_pages(run.paths.log_export, run.items, run.serving.batch_id, since_s)))
    known = set(theirs.request_id.tolist())
    parts = [batch.take(np.flatnonzero([r in known for r in batch.request_id.tolist()])) for batch in beside.pages()]
    ours = PageBatch.concat([batch for batch in parts if len(batch)])
    tick(1, 2, f"{len(ours):,} pages")
    run.judged_on(theirs, since_s)
    compared = gates.compare(
        ours,
        load_scorer(folder, beside.items).score_batch(ours),
        run.serving_scores(theirs),
        run.settings.evaluation.level,
        np.random.default_rng(run.settings.seed),
        serving_pages=theirs,
        kept=run.kept_scores(theirs),
    )
    tick(2, 2, f"gain {compared.gain:+.4f} ({compared.lower:+.4f} to {compared.upper:+.4f})")
    return compared, int(usable_pages(theirs).sum())


def _build(run: Attempt, draft: Path, listeners: pa.Table) -> pa.Table:
    """Builds a run of the same events, items and playlists in `draft`; the events."""
    import pyarrow.parquet as pq

    from recommender.events.parts import read_parts
    from recommender.events.table import item_lengths
    from recommender.shelves import items as item_files

    paths = run.paths
    for file in (paths.events, paths.items):
        if not file.exists():
            raise DataError(f"{file} is missing; expected the files that bart build leaves in a run")
    events = left_out(paths, run.settings).without(read_parts(paths.events))
    events = _with_signals(run, events)
    lists = pq.read_table(paths.playlists) if paths.playlists.is_file() else None
    table = item_files.complete(pq.read_table(paths.items), events, item_lengths(events), lists)
    build_batch(draft, paths.root, events, table, lists, listeners, run.settings, run.stages, run.items)
    return events


def _with_signals(run: Attempt, events: pa.Table) -> pa.Table:
    """The events with what listeners saved on pages, and whom they follow as of the last event."""
    from recommender.events.signals import stands_for, with_signals
    from recommender.events.worth import Worth

    item_id, saved = run.items.item_id, []
    for batch in new_pages(run.paths.log_export, run.items, None, None):
        page, row, column = np.nonzero(np.zeros(batch.card.shape, np.bool_) if batch.saved is None else batch.saved)
        card = batch.item[batch.offset[page] + batch.card[page, row, column]]
        told = zip(batch.user_id[page].tolist(), card.tolist(), batch.at_s[page].tolist(), strict=True)
        saved += [(u, item_id[c], at * 1_000_000) for u, c, at in told if c >= 0 and not u.startswith(UNNAMED)]
    last_us = int(np.asarray(events["started_at"].cast("int64")).max(initial=0))
    with preferences_of(run.paths, run.settings) as preferences:
        followers = preferences.followers()
    cards = {artist: stands_for(run.items, artist) for artists in followers.values() for artist in artists}
    follow = [(u, item, last_us) for u, artists in followers.items() for a in sorted(artists) if (item := cards[a])]
    rule = Worth(run.settings.events.weights)
    run.facts.append(f"{len(saved):,} saves and {len(follow):,} follows counted")
    return with_signals(events, {"save": saved, "follow": follow}, {k: rule.weight(k) for k in ("save", "follow")})


def joined_table(store: StoredListeners, items: ItemTable) -> pa.Table:
    """user_id, joined_at, country and onboarding (ids of picks) of the listeners whose account's beginning is known."""
    import pyarrow as pa

    rows = [(user, row) for user in store.user_ids() if (row := store.get(user)) is not None]
    known = [(user, row) for user, row in rows if row.made_at_s is not None]
    made = [datetime.fromtimestamp(row.made_at_s or 0, tz=timezone.utc) for _, row in known]
    picks = [items.item_id[row.usage.picked[row.usage.picked < len(items)]].tolist() for _, row in known]
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in known], pa.string()),
            "joined_at": pa.array(made, pa.timestamp("s", "UTC")),
            "country": pa.array([row.usage.country or None for _, row in known], pa.string()),
            "onboarding": pa.array(picks, pa.list_(pa.string())),
        }
    )
