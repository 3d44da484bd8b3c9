"""What an operator is answered holds: bundles are tried before they serve, changes are counted by worker, and a loop
that stopped makes the service not ready."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from api.http import admin
from api.run.settings import load_settings
from api.run.versions import Versions
from api.service.service import HomeService, open_service
from api.upkeep.presence import Held, Presence, serving
from api.upkeep.watch import Watcher
from bart.bundle import open_bundle, write_bundle

ClientOf = Callable[..., Any]


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, load_settings({"page": {"rows": 3, "columns": 4}})) as found:
        yield found


def lacking(run: Path) -> str:
    """The name of a bundle that verifies, and whose shelves lack a field."""
    versions = Versions(run)
    versions.settle()
    bundle = open_bundle(run / "bundle")
    with write_bundle(versions.draft(), created_at="2026-02-01T00:00:00+00:00", extends=bundle.batch_id) as folder:
        for name in ("items", "listener", "index", "reward"):
            shutil.copytree(bundle.folder(name), folder / name)
        for path in (folder / "index").rglob("*.json"):
            path.write_text("{}")
    return versions.add(versions.draft())


def test_a_bundle_that_cannot_serve_is_refused_before_anybody_takes_it_up(
    service: HomeService, client_of: ClientOf
) -> None:
    root = service.run.paths.root
    before, name = Versions(root).active(), lacking(root)
    with client_of(service) as client:
        answer = client.post("/v1/models", json={"activate": name})
        assert answer.status_code == 409
        assert answer.json()["title"] == "The bundle cannot be activated"
    assert Versions(root).active() in (before, open_bundle(root / "bundle").path.resolve().name)
    assert Versions(root).active() != name


def test_a_bundle_that_a_worker_cannot_open_leaves_it_watching(service: HomeService, client_of: ClientOf) -> None:
    root = service.run.paths.root
    name = lacking(root)
    first = Versions(root).active()
    with client_of(service) as client:
        Versions(root).activate(name)  # past the service, as the command line does
        client.app.state.watcher.loop.wake()
        item = str(service.run.items.item_id[0])
        for _ in range(2):
            told = client.delete(f"/v1/items/{item}")
            assert told.status_code == 200
            assert told.json()["workers"] == {"serving": 1, "took_up": 1}
        assert item in client.app.state.service.controls.taken_down
        assert client.app.state.service.run.bundle.path.name == first
        assert client.get("/ready").status_code == 200


def test_a_damaged_bundle_of_the_run_is_told_and_a_damaged_history_is_a_503(
    service: HomeService, client_of: ClientOf
) -> None:
    root = service.run.paths.root
    name = lacking(root)
    (Versions(root).path(name) / "manifest.json").write_text("[" * 100_000)
    with client_of(service) as client:
        page = client.post("/v1/home", json={"user_id": "listener-01"}).json()
        told = client.get("/v1/models")
        assert told.status_code == 200
        assert list(told.json()["damaged"]) == [name]
        assert client.get(f"/v1/decisions/{page['request_id']}").status_code == 200
        assert client.post("/v1/models", json={"activate": name}).status_code == 409
        (root / "bundles" / "history.jsonl").write_text("{")
        answer = client.get("/v1/models")
        assert answer.status_code == 503
        assert "history.jsonl" in answer.json()["detail"]
        assert client.post("/v1/home", json={"user_id": "listener-01"}).status_code == 200


def test_a_switch_that_a_worker_does_not_take_up_is_a_504(
    service: HomeService, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "SWITCH_WITHIN_S", 0.2)
    other = Presence(service.run.paths.root)  # a worker that hangs
    other.tell(Held(0, "x"))
    with client_of(service) as client:
        answer = client.post("/v1/control", json={"switch": "explore", "state": "off"})
        assert answer.status_code == 504
        assert "1 of 2 workers" in answer.json()["detail"]
        assert not service.control.read().explore  # it is stored
        other.close()
        answer = client.post("/v1/control", json={"switch": "explore", "state": "on"})
        assert answer.json()["workers"] == {"serving": 1, "took_up": 1}


def test_who_serves_is_told_until_the_end_and_the_killed_are_not_counted(tmp_path: Path) -> None:
    one, two = Presence(tmp_path), Presence(tmp_path)
    one.tell(Held(3, "a"))
    assert sorted(serving(tmp_path)) == [(0, ""), (3, "a")]
    two._file.close()  # as a kill does
    assert serving(tmp_path) == [(3, "a")]
    Presence(tmp_path).close()
    assert len(list((tmp_path / ".workers").iterdir())) == 1
    one.close()
    assert serving(tmp_path) == []


def test_who_serves_from_a_disk_that_became_read_only_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Presence(tmp_path)
    one.tell(Held(1, "a"))

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        one.close()
    assert serving(tmp_path) == []


def test_a_switch_is_taken_up_where_the_files_of_who_serves_were_removed(
    service: HomeService, client_of: ClientOf
) -> None:
    with client_of(service) as client:
        shutil.rmtree(service.run.paths.root / ".workers")
        answer = client.post("/v1/control", json={"switch": "explore", "state": "off"})
        assert answer.status_code == 200
        assert answer.json()["workers"] == {"serving": 1, "took_up": 1}


def test_a_loop_that_stopped_makes_the_service_not_ready_and_its_beat_is_a_metric(
    service: HomeService, client_of: ClientOf
) -> None:
    with client_of(service) as client:
        assert client.get("/ready").status_code == 200
        assert 'bart_loop_last_beat_timestamp_seconds{loop="watch"}' in client.get("/metrics").text
        client.app.state.watcher.loop.heart._beat_at -= 1000
        client.app.state.watcher.loop.stop()
        client.app.state.watcher.loop.heart.ended = False
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "watch (for " in answer.json()["detail"]
        assert client.post("/v1/home", json={"user_id": "u"}).status_code == 200


def test_switches_that_cannot_be_read_are_read_again(service: HomeService, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    holder = SimpleNamespace(service=service)
    watcher = Watcher(holder)
    service.control.take_down(["item-00"], datetime.now(timezone.utc))
    with monkeypatch.context() as patch:
        patch.setattr(type(service), "with_controls", lambda *_: json.loads("{"))
        with pytest.raises(ValueError, match="Expecting"):
            watcher.look()
    assert watcher.look()
    assert "item-00" in holder.service.controls.taken_down
