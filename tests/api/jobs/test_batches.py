"""A new batch is built beside the old one, catches up, serves, and can be returned from; nothing heard is lost."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.cli import main
from api.hosts.running_sessions import RunningSessions
from api.hosts.shared import listener_store
from api.jobs import batches as jobs
from api.jobs.train import same_batch, train_bundle
from api.run.progress import Quiet
from api.run.runs import RunPaths
from api.run.settings import Settings, load_settings
from api.run.versions import Versions
from api.service.listening import ListeningService
from api.service.service import open_service
from api.upkeep.watch import Watcher
from api.wire.schemas import HomeRequest, Play, SessionRequest
from bart.bundle import open_bundle
from bart.errors import BundleError, SchemaMismatch
from bart.item_store import load_items
from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.types import Context
from recommender.events.table import read_events
from recommender.listener.model import MemoryListener, compute_states
from recommender.sessions.sessions import cut_sessions
from recommender.states.states import SqliteListenerStore, StoredListeners, load_listener_model

NEW = datetime(2024, 7, 1, 9, tzinfo=timezone.utc)


def settings() -> Settings:
    return load_settings({"page": {"rows": 4, "columns": 5, "per_shelf": 12}})


def hear_new_items(run: Path) -> None:
    """Adds plays of items that the serving batch does not hold, by a listener of their own."""
    old = pq.read_table(run / "events.parquet")
    n = 60
    at = np.datetime64(NEW.replace(tzinfo=None), "us") - np.arange(n)[::-1] * np.timedelta64(1000, "s")
    fresh = pa.table(
        {
            "user_id": ["listener-new"] * n,
            "item_id": [f"fresh-{i % 3}" for i in range(n)],
            "started_at": pa.array(at, pa.timestamp("us", "UTC")),
            "listened_s": np.full(n, 100.0),
        }
    )
    pq.write_table(pa.concat_tables([old, fresh], promote_options="permissive"), run / "events.parquet")


def report(holder: Any, user: str, number: int, *items: str) -> str:
    """Reports a finished session that began `number` hours after NEW."""
    began = NEW + timedelta(hours=number)
    played = [Play(item_id=item, listened_s=120.0) for item in items]
    told = SessionRequest(user_id=user, session_id=f"s{number}", final=True, started_at=began, plays=played)
    return str(holder.service.listening.report(told, datetime.now(timezone.utc))["status"])


@contextmanager
def serving(run: Path) -> Iterator[tuple[SimpleNamespace, Watcher]]:
    """A service as a process holds it, and what looks for changes when it is told to."""
    with open_service(run, settings()) as service:
        holder = SimpleNamespace(service=service)
        watcher = Watcher(holder)
        try:
            yield holder, watcher
        finally:
            watcher.stop()


def store_of(run: Path, name: str) -> StoredListeners:
    return listener_store(RunPaths(run), open_bundle(Versions(run).path(name)))


def sessions_of(run: Path, name: str, user: str) -> int:
    """How many sessions the state of a listener holds in the batch of a bundle."""
    with closing(store_of(run, name)) as store:
        row = store.get(user)
    return 0 if row is None else int(row.state[2])


@pytest.fixture
def built(small_run: Path) -> tuple[Path, str, str]:
    """A run with a second batch that does not serve yet; both bundles."""
    versions = Versions(small_run)
    old = versions.settle()
    hear_new_items(small_run)
    done = jobs.build(small_run, settings(), Quiet())
    assert done.name is not None
    assert versions.active() == old
    return small_run, old, done.name


def test_a_batch_is_built_beside_activated_and_returned_from(
    built: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, old, new = built
    one, two = (open_bundle(Versions(run).path(name)) for name in (old, new))
    assert one.batch_id != two.batch_id
    assert load_items(two.folder("items")).rows(["fresh-0", "item-01"]).min() >= 0
    assert load_items(one.folder("items")).rows(["fresh-0"]).tolist() == [-1]
    listed = jobs.batches(run)
    assert [(b.batch_id, b.active, b.back) for b in listed] == [
        (one.batch_id, True, False),
        (two.batch_id, False, False),
    ]
    assert listed[1].listeners == listed[0].listeners + 1
    for words, active in ((["activate", two.batch_id], new), (["rollback"], old), (["activate"], new)):
        with pytest.raises(SystemExit) as ended:
            main(["batch", words[0], str(run), *words[1:]])
        assert ended.value.code == 0
        assert Versions(run).active() == active
    with pytest.raises(SystemExit):
        main(["batch", "list", str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert f"< {one.batch_id}" in "\n".join(lines)
    assert f"* {two.batch_id}" in "\n".join(lines)
    again = jobs.build(run, settings(), Quiet())
    assert again.name is None  # nothing was heard since


def test_what_cannot_be_done_is_one_line_that_says_what_was_expected(built: tuple[Path, str, str]) -> None:
    run, old, new = built
    batch = open_bundle(Versions(run).path(old)).batch_id
    with pytest.raises(BundleError, match="which serves already"):
        jobs.activate(run, settings(), batch)
    with pytest.raises(BundleError, match="has no batch 'nonsense'"):
        jobs.activate(run, settings(), "nonsense")
    with pytest.raises(BundleError, match="no other batch was active before"):
        jobs.rollback(run, settings())
    assert Versions(run).active() == old
    assert new


def test_reported_sessions_are_in_the_new_batch_as_if_it_had_served_all_the_time(small_run: Path) -> None:
    run, user = small_run, "listener-03"
    old = Versions(run).settle()
    first = sessions_of(run, old, user)
    with serving(run) as (holder, watcher):
        for number in range(3):
            assert report(holder, user, number, f"item-{number:02d}", "item-07") == "committed"
        hear_new_items(run)
        new = jobs.build(run, settings(), Quiet()).name
        assert new is not None
        report(holder, user, 3, "item-20", "item-21")
        assert report(holder, user, 3, "item-20", "item-21") == "repeated"
        assert report(holder, user, 3, "item-20") == "conflicting"
        assert jobs.activate(run, settings(), new).replayed == 1
        report(holder, user, 4, "item-22")  # the service has not looked yet: it commits to the old batch
        assert sessions_of(run, new, user) + 1 == sessions_of(run, old, user) == first + 5
        assert watcher.look()
        assert sessions_of(run, new, user) == first + 5
        report(holder, user, 5, "fresh-1", "item-23")
        with closing(store_of(run, new)) as store:
            got = store.get(user)
        assert got is not None
        np.testing.assert_allclose(got.state, stepped(run, new, user), atol=1e-6)
        done = jobs.rollback(run, settings())
        assert (done.done.name, done.replayed) == (old, 1)
        report(holder, user, 6, "item-24")
        assert watcher.look()
    assert sessions_of(run, old, user) == first + 7
    assert sessions_of(run, new, user) == first + 7


def test_a_session_that_an_old_request_commits_late_is_met_when_the_next_one_is_reported(
    built: tuple[Path, str, str],
) -> None:
    run, _, new = built
    with serving(run) as (holder, watcher):
        before = holder.service
        jobs.activate(run, settings(), new)
        assert watcher.look()
        late = SimpleNamespace(service=before)
        report(late, "listener-05", 1, "item-01")  # a request that began before the service looked
        report(holder, "listener-05", 2, "item-02")
        with closing(store_of(run, new)) as store:
            row = store.get("listener-05")
    assert row is not None
    np.testing.assert_allclose(row.state, stepped(run, new, "listener-05"), atol=1e-6)


def stepped(run: Path, name: str, user: str) -> Any:
    """The state in a batch: from the run's events, then the reported sessions, one by one."""
    bundle = open_bundle(Versions(run).path(name))
    items, model = load_items(bundle.folder("items")), load_listener_model(bundle.folder("listener"))
    events = read_events(pq.read_table(run / "events.parquet")).events
    row_of = {item: row for row, item in enumerate(items.item_id.tolist())}
    cut = cut_sessions(events, row_of, items.vector, sources=model.sources)
    state = compute_states(model, cut)[cut.user_id.tolist().index(user)]
    with closing(RunningSessions(run / "sessions.sqlite")) as kept:
        told = [SessionRequest.model_validate_json(body.partition(b"\n")[2]) for _, _, body in kept.finished(0, user)]
        service = ListeningService(items, None, kept)  # type: ignore[arg-type]
        for one in sorted(told, key=lambda report: report.started_at or NEW):
            heard = service._heard(one, one.started_at or NEW)
            assert heard is not None
            state = model.advance(state, heard.session)
    return state


def test_sessions_out_of_order_are_not_replayed_into_the_batch_that_met_them(small_run: Path) -> None:
    user, old = "listener-04", Versions(small_run).settle()
    before = sessions_of(small_run, old, user)
    with serving(small_run) as (holder, _):
        for number, status in ((5, "committed"), (9, "committed"), (3, "late"), (10, "committed")):
            assert report(holder, user, number, "item-01", "item-02") == status
        assert holder.service.listening.replay(0) == 0
    assert sessions_of(small_run, old, user) == before + 3


def test_states_and_pages_of_different_batches_are_refused(built: tuple[Path, str, str], tmp_path: Path) -> None:
    run, old, new = built
    with open_service(run, settings()) as service:
        service.home(HomeRequest(user_id="listener-01"))
    with DecisionLog(run / "log.sqlite") as log:
        export_log(log, tmp_path / "export", now=datetime.now(timezone.utc), include_open=True)
    other = Versions(run).path(new)
    with pytest.raises(BundleError, match="vectors of different batches cannot be compared"):
        same_batch(tmp_path / "export", open_bundle(other))
    with pytest.raises(BundleError, match="vectors of different batches cannot be compared"):
        train_bundle(tmp_path / "export", other, tmp_path / "out", settings(), Quiet())
    batch = open_bundle(Versions(run).path(old)).batch_id
    wider = SqliteListenerStore(run / "listeners.sqlite", MemoryListener(77), batch)
    with closing(wider), pytest.raises(SchemaMismatch, match="different batches cannot be compared"):
        wider.listener("listener-01", Context(NEW))


def test_a_flip_under_load_fails_no_request_and_mixes_no_record(built: tuple[Path, str, str]) -> None:
    run, old, new = built
    over = threading.Event()
    answers: list[tuple[str, str]] = []
    failed: list[Exception] = []
    with serving(run) as (holder, watcher):

        def ask(number: int) -> None:
            k = 0
            while not over.is_set():
                k += 1
                try:
                    page = json.loads(holder.service.home(HomeRequest(user_id=f"listener-{(number + k) % 30:02d}")))
                    answers.append((page["request_id"], page["batch_id"]))
                except Exception as error:
                    failed.append(error)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(4):
            jobs.rollback(run, settings()) if turn % 2 else jobs.activate(run, settings(), new)
            assert watcher.look()
            seen = len(answers)
            while len(answers) < seen + 6 and not failed:
                over.wait(0.01)
        over.set()
        for thread in threads:
            thread.join()
        assert failed == []
        bundles = {bundle.batch_id: bundle for bundle in (open_bundle(Versions(run).path(n)) for n in (old, new))}
        items = {batch: set(load_items(one.folder("items")).item_id.tolist()) for batch, one in bundles.items()}
        model = {batch: load_listener_model(one.folder("listener")) for batch, one in bundles.items()}
        for request_id, batch in answers:
            decision = holder.service.log.get(request_id)
            assert (decision.batch_id, decision.model_id) == (batch, bundles[batch].model_id)
            assert set(decision.item_id.tolist()) <= items[batch]
        for batch in bundles:  # and the listener's vector is that of the record's own batch
            decision = next(
                holder.service.log.get(request_id)
                for request_id, of in answers
                if of == batch and holder.service.log.get(request_id).user_id == "listener-07"
            )
            with closing(SqliteListenerStore(run / "listeners.sqlite", model[batch], batch)) as store:
                expected = store.listener("listener-07", decision.context).vector
            np.testing.assert_array_equal(decision.listener, expected)
    assert {batch for _, batch in answers} == set(bundles)


def test_a_batch_that_is_built_twice_is_there_once(built: tuple[Path, str, str]) -> None:
    run, old, new = built
    again = jobs.build(run, settings(), Quiet())
    assert again.name == new
    assert [version.name for version in Versions(run).list()] == [old, new]
    assert any(new in fact and "kept" in fact for fact in again.facts)


def test_where_a_gate_refused_all_that_is_said_and_not_that_there_is_none(built: tuple[Path, str, str]) -> None:
    run, old, new = built
    manifest = Versions(run).path(new) / "manifest.json"
    told = json.loads(manifest.read_text())
    told["metrics"]["retrain"] = {"passed": False}
    manifest.write_text(json.dumps(told))
    with pytest.raises(BundleError, match=f"{new} was refused by its gate.*--force"):
        jobs.activate(run, settings())
    assert Versions(run).active() == old


def test_the_batch_to_return_to_is_kept_however_often_the_new_one_learnt_since(built: tuple[Path, str, str]) -> None:
    run, old, new = built
    versions = Versions(run, keep=3)
    jobs.activate(run, settings(), new)
    for _ in range(4):
        again = versions.draft()
        shutil.copytree(versions.path(new), again)
        versions.activate(versions.add(again))
    assert new in versions.prune()
    assert jobs.rollback(run, settings()).done.name == old


def test_rolling_back_over_bundles_of_one_batch_returns_to_the_other(built: tuple[Path, str, str]) -> None:
    run, old, new = built
    versions = Versions(run)
    jobs.activate(run, settings(), new)
    again = versions.draft()
    shutil.copytree(versions.path(new), again)
    twin = versions.add(again)
    versions.activate(twin)
    assert versions.before() == new
    assert jobs.rollback(run, settings()).done.name == old
    assert versions.before() is None
    assert [line.kind for line in versions.history()][-1] == "rollback"
