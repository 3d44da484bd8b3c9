"""Rebuilding vectors: a new batch is judged against the serving one with the vectors that each would have had."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_export import export_pages

from api.hosts.shared import listener_store
from api.jobs.build import build_run
from api.jobs.evidence import gather, new_pages
from api.jobs.rebuild import RecomputedPages, joined_table
from api.jobs.retrain import retrain_run
from api.run.listening import Listening
from api.run.progress import Quiet
from api.run.runs import RunPaths
from api.run.settings import load_settings
from api.run.versions import Versions
from bart.bundle import open_bundle
from bart.item_store import load_items
from bart.types import DEVICES, Context
from recommender.listener.model import MemoryListener
from recommender.sessions.sessions import cut_sessions
from recommender.states.past_states import vectors_at
from recommender.states.states import ListenerRow, stored_batches
from recommender.users.vectors import UserVectors

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def events(rng: np.random.Generator, users: int, plays: int) -> pa.Table:
    at = np.datetime64("2026-01-01T00:00:00", "us") + np.cumsum(rng.integers(100, 4000, (users, plays)), axis=1).astype(
        "timedelta64[s]"
    )
    return pa.table(
        {
            "user_id": np.repeat([f"u{i}" for i in range(users)], plays),
            "item_id": [f"i{k}" for k in rng.integers(0, 20, users * plays)],
            "started_at": pa.array(at.ravel(), pa.timestamp("us", "UTC")),
            "listened_s": np.full(users * plays, 90.0),
        }
    )


def test_past_vectors_are_those_of_listeners_stepped_session_by_session() -> None:
    rng = np.random.default_rng(5)
    table = events(rng, 5, 60)
    vector = rng.normal(size=(20, 6)).astype(np.float32)
    sessions = cut_sessions(table, {f"i{k}": k for k in range(20)}, vector)
    model = MemoryListener(6)
    cold = np.arange(6, dtype=np.float32)
    n = 200
    user = np.array([f"u{k}" for k in rng.integers(0, 6, n)], dtype=object)  # u5 never listened
    start = int(datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp())
    at_s = start + rng.integers(-5_000, 140_000, n)
    offset_h = rng.integers(-11, 12, n)
    local = at_s + 3600 * offset_h
    found = vectors_at(model, sessions, user, at_s, local // 3600 % 24, (local // 86400 + 3) % 7, at_s % 4, cold)
    columns, cold_seen = sessions.columns, 0
    for k in range(n):
        number = int(user[k][1:])
        state = model.initial(np.array([np.nan]))
        known = 0
        for row in range(*sessions.offset[number : number + 2]) if number < 5 else ():
            if columns.ended_s[row] + 20 * 60 < at_s[k]:
                state = model.advance_many(state, columns.take(np.array([row])))
                known += 1
        device = DEVICES[at_s[k] % 4]
        at = datetime.fromtimestamp(int(at_s[k]), tz=timezone.utc)
        expected = model.predict(state[0], Context(at, int(offset_h[k]) * 60, device)) if known else cold
        cold_seen += not known
        np.testing.assert_allclose(found[k], expected, atol=1e-6)
    assert 0 < cold_seen < n


@pytest.fixture(scope="module")
def rebuilt(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run whose vectors were rebuilt with plays of an item that was not known before, and the batch before."""
    folder = tmp_path_factory.mktemp("rebuilt")
    run = Path(shutil.copytree(demo_run, folder / "run", symlinks=True))
    bundle = open_bundle((run / "bundle").resolve())
    items = load_items(bundle.folder("items"))
    with closing(listener_store(RunPaths(run), bundle)) as store:
        context = Context(datetime(2026, 1, 1, tzinfo=timezone.utc))
        store.onboard("picked", [0, 1], items.vector[:2], context)
        state = store.model.initial(np.array([0.0]))[0]
        store.put_many([ListenerRow("posted alone", state)])
        first = store.get(store.user_ids()[-1])
        assert first is not None
    table = pq.read_table(run / "events.parquet")
    end = max(table["started_at"].to_pylist())
    new = [
        {"user_id": first.user_id, "item_id": "a new song", "started_at": end + timedelta(days=1, minutes=5 * k)}
        for k in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(new), folder / "new.parquet")
    settings = load_settings(
        {
            "seed": 9,
            "page": {"per_shelf": 12},
            "listener": {"epochs": 1, "hidden": 16, "users": True},
            "retrain": {"min_pages": 100, "tolerance": 1.0, "max_bias": 1.0},
        }
    )
    result = retrain_run(
        run,
        settings,
        Quiet(),
        events=Listening(folder / "new.parquet"),
        vectors="rebuild",
        now=lambda: NOW,
    )
    assert result.status == "activated", result.reason
    assert any("1 who are in no event begin anew" in fact for fact in result.facts)
    return run, bundle.batch_id


def test_the_new_batch_serves_with_the_new_item_and_its_listeners(rebuilt: tuple[Path, str]) -> None:
    run, old = rebuilt
    bundle = open_bundle((run / "bundle").resolve())
    items = load_items(bundle.folder("items"))
    assert bundle.batch_id != old
    assert "a new song" in items.row_of
    assert stored_batches(run / "listeners.sqlite") == {old, bundle.batch_id}  # the old ones for a rollback
    with closing(listener_store(RunPaths(run), bundle)) as store:
        picked = store.get("picked")
        assert picked is not None
        assert not picked.known
        assert store.get("posted alone") is None
        assert len(store) > 100
        everybody = UserVectors.load(RunPaths(run).user_vectors(bundle.batch_id), bundle.batch_id)
        assert set(everybody.user_id) == set(store.user_ids())
    assert not list(run.glob(".rebuild*"))


def test_the_new_vectors_lie_where_the_old_ones_lay(rebuilt: tuple[Path, str]) -> None:
    run, old = rebuilt
    before = {v.batch_id: v.name for v in Versions(run).list()}[old]
    was, now = (
        load_items(open_bundle(Versions(run).path(n)).folder("items")) for n in (before, Versions(run).active())
    )
    row = [now.row_of[item] for item in was.item_id.tolist()]
    assert (now.vector[row] * was.vector).sum(axis=1).mean() > 0.9


def test_pages_of_the_batch_before_are_left_out_afterwards_and_one_can_go_back(rebuilt: tuple[Path, str]) -> None:
    run, old = rebuilt
    bundle = open_bundle((run / "bundle").resolve())
    found = gather(run / "log", load_items(bundle.folder("items")), bundle.batch_id, bundle.learnt_until_s)
    assert found.pages == 0
    assert found.other_batch > 0
    assert bundle.metrics["retrain"]["holdout_pages"] >= 100
    versions = Versions(run)
    versions.rollback()
    assert open_bundle(versions.link.resolve()).batch_id == old


def test_pages_of_a_run_of_ratings_get_the_vectors_that_serving_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    lines = ["user_id,item_id,started_at,rating,artist"]
    for u in range(20):
        for k in range(12):
            item = 20 * (u % 2) + int(rng.integers(20))
            lines.append(
                f"listener-{u:02d},i{item},{1_767_225_600 + 100 * u + 86_400 * k},{rng.integers(1, 6)},a{item % 5}"
            )
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    settings = load_settings({})
    run = tmp_path / "run"
    build_run(tmp_path / "ratings.csv", None, None, run, {}, settings, Quiet())
    log = export_pages(run, tmp_path, pages=60)  # of 30 listeners, of whom 20 have rated
    bundle = open_bundle((run / "bundle").resolve())
    items = load_items(bundle.folder("items"))
    with closing(listener_store(RunPaths(run), bundle)) as store:
        pages = RecomputedPages(log, bundle, items, pq.read_table(run / "events.parquet"), joined_table(store, items))
        logged = [batch.listener for batch in new_pages(log, items, None, None)]
    np.testing.assert_allclose(pages.vector, np.concatenate(logged), atol=1e-5)
    assert len(np.unique(pages.vector.round(4), axis=0)) == 21  # and ten who have not rated, alike
