"""A run with user vectors: built, encoded, asked who is alike, erased, exchanged for another batch."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from quick_java import QUICK_JAVA
from synthetic_listening import synthetic_listening

from api.background.spread import spread
from api.cli import main
from api.jobs import batches
from api.jobs.build import build_run
from api.run.progress import Quiet
from api.run.runs import RunPaths, open_run
from api.run.settings import Settings, load_settings
from api.run.versions import Versions
from api.service.service import HomeService, open_service
from api.upkeep.listener_admin import erase_listener
from api.users import everybody
from api.users.alike import Alike
from api.users.everybody import encode_listeners
from api.wire.examples import ANSWERS
from api.wire.problems import ProblemError
from api.wire.schemas import SessionRequest
from bart.errors import DataError, SchemaMismatch
from bart.tensors import from_bytes
from recommender.users.vectors import UserVectors

SMALL = {"listener": {"users": True, "model": "average"}, "page": {"rows": 3, "columns": 3, "per_shelf": 6}}


def asked(**more: object) -> Settings:
    return load_settings({**SMALL, **more})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("users")
    made = synthetic_listening(np.random.default_rng(0), users=30, days=16, items=120, dimension=8)
    pq.write_table(made.events, folder / "plays.parquet")
    build_run(folder / "plays.parquet", None, None, folder / "run", {}, asked(), Quiet())
    encode_listeners(folder / "run", asked(), Quiet())
    return folder / "run"


@pytest.fixture(scope="module")
def service(run: Path) -> Iterator[HomeService]:
    with open_service(run, asked()) as found:
        yield found


def test_everybodys_vectors_are_a_file_that_names_its_batch(run: Path) -> None:
    with closing(open_run(run, asked()).store) as store:
        path = run / "users" / f"{store.batch_id}.parquet"
        every = UserVectors.load(path, store.batch_id)
        assert every.user_id.tolist() == store.user_ids()
        assert every.vector.any(axis=1).all()
        assert store.get(every.user_id[0]).usage.sessions > 0  # type: ignore[union-attr]


def test_however_listeners_are_spread_their_vectors_are_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shards of seven each, at one moment; the vectors of a store that is asked for all at once."""
    monkeypatch.setattr(everybody, "SHARD", 7)
    at = datetime(2026, 3, 1, tzinfo=timezone.utc)
    monkeypatch.setattr("api.run.clock.utc_now", lambda: at)
    made, path = encode_listeners(run, asked(), Quiet())
    with closing(open_run(run, asked()).store) as store:
        every = store.user_vectors(at.timestamp())
    assert made.user_id.tolist() == every.user_id.tolist() == UserVectors.load(path).user_id.tolist()
    np.testing.assert_allclose(made.vector, every.vector, atol=1e-5)
    with pytest.raises(DataError, match="expected local or spark"):
        encode_listeners(run, asked(), Quiet(), engine="dask")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None or find_spec("pyspark") is None, reason="needs Java and PySpark")
@pytest.mark.filterwarnings("default")  # PySpark's own
def test_spark_encodes_everybody_as_this_process_does(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everybody, "SHARD", 15)
    monkeypatch.setattr("api.run.clock.utc_now", lambda: datetime(2026, 3, 1, tzinfo=timezone.utc))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    here, _ = encode_listeners(run, asked(), Quiet())
    far, _ = encode_listeners(run, asked(), Quiet(), engine="spark", master="local[1]")
    assert far.user_id.tolist() == here.user_id.tolist()
    np.testing.assert_array_equal(far.vector, here.vector)


def test_who_is_alike_is_asked_with_the_vector_of_now(service: HomeService) -> None:
    alike, user = Alike(), service.run.store.user_ids()[0]
    before = alike.of(service, user, 5)
    cosines = [one["cosine"] for one in before["similar"]]
    assert len(cosines) == 5
    told, example = before, ANSWERS["GET /v1/listeners/{user_id}/similar"]
    assert (told.keys(), told["similar"][0].keys()) == (example.keys(), example["similar"][0].keys())
    assert cosines == sorted(cosines, reverse=True)
    assert user not in [one["user_id"] for one in before["similar"]]
    at = datetime.now(timezone.utc) - timedelta(hours=1)
    plays = [{"item_id": item, "listened_s": 100} for item in service.run.items.item_id[:40].tolist()]
    told = {"user_id": user, "session_id": "s", "started_at": at, "plays": plays, "final": True}
    service.listening.report(SessionRequest.model_validate(told), datetime.now(timezone.utc))
    after = alike.of(service, user, 5)
    assert [one["cosine"] for one in after["similar"]] != cosines


def test_nobody_is_alike_to_somebody_unknown_and_nothing_is_told_without_vectors(
    service: HomeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProblemError) as unknown:
        Alike().of(service, "nobody ever", 5)
    assert unknown.value.status == 404
    monkeypatch.setattr(service.run.store, "users", None)
    with pytest.raises(ProblemError) as without:
        Alike().of(service, service.run.store.user_ids()[0], 5)
    assert without.value.status == 409


def test_vectors_of_another_batch_are_refused(service: HomeService) -> None:
    path = service.run.paths.user_vectors(service.run.bundle.batch_id)
    every = UserVectors.load(path)
    with pytest.raises(SchemaMismatch):
        UserVectors("another", every.user_id, every.vector).cosine(every)
    try:
        UserVectors("another", every.user_id, every.vector).save(path)
        with pytest.raises(ProblemError) as refused:
            Alike().of(service, service.run.store.user_ids()[0], 5)
        assert refused.value.status == 409
    finally:
        every.save(path)


def test_who_is_erased_is_in_no_file_of_vectors(service: HomeService) -> None:
    user = service.run.store.user_ids()[-1]
    path = service.run.paths.user_vectors(service.run.bundle.batch_id)
    assert user in UserVectors.load(path).user_id
    erase_listener(service, user, datetime.now(timezone.utc))
    assert user not in UserVectors.load(path).user_id


def test_who_is_erased_while_everybody_is_encoded_is_not_in_the_file(
    run: Path, service: HomeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = service.run.store.user_ids()[3]

    def then_erased(*given: object) -> Iterator[bytes]:
        yield from spread(*given)  # type: ignore[arg-type]
        erase_listener(service, user, datetime.now(timezone.utc))

    monkeypatch.setattr(everybody, "spread", then_erased)
    made, path = encode_listeners(run, asked(), Quiet())
    assert user not in made.user_id
    assert UserVectors.load(path).user_id.tolist() == made.user_id.tolist() == service.run.store.user_ids()


def test_a_run_without_an_encoder_says_what_to_ask_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["users", "encode", str(tmp_path / "no run")])
    assert stopped.value.code == 2
    assert "expected a run" in capsys.readouterr().err
    plays = pq.read_table(run.parent / "plays.parquet").slice(0, 600)
    pq.write_table(plays, tmp_path / "plays.parquet")
    build_run(tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    with pytest.raises(SystemExit):
        main(["users", "encode", str(tmp_path / "run")])
    assert "listener.users" in capsys.readouterr().err


def test_the_study_is_a_command_that_leaves_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = synthetic_listening(np.random.default_rng(1), users=44, days=16, items=100, dimension=8)
    pq.write_table(made.events, tmp_path / "plays.parquet")
    users = sorted(set(made.events["user_id"].to_pylist()))
    first = made.events["started_at"][0].as_py() - timedelta(days=9)
    accounts = {"user_id": users, "country": ["SE", "BR"] * 22, "joined_at": pa.array([first] * 44)}
    pq.write_table(pa.table(accounts), tmp_path / "listeners.parquet")
    items = {"item_id": list(made.item_id), "artist": [f"a{k % 12}" for k in range(100)]}
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    told = ["--kinds", "average,ALS", "--negatives", "uniform", "--seeds", "1", "--epochs", "1", "--dimension", "6"]
    with pytest.raises(SystemExit) as done:
        main(["evaluate-users", str(tmp_path / "plays.parquet"), "--out", str(tmp_path / "out"), *told])
    assert done.value.code == 0, capsys.readouterr().err
    text = (tmp_path / "out" / "tables.md").read_text()
    for line in ("| encoder |", "| average |", "| ALS |", "country of most listened artists", "| onboarding |"):
        assert line in text
    with pytest.raises(SystemExit) as wrong:
        main(["evaluate-users", str(tmp_path / "plays.parquet"), "--out", str(tmp_path / "out"), "--kinds", "no"])
    assert wrong.value.code == 2
    assert "'no' is unknown" in capsys.readouterr().err


def test_a_new_batch_has_vectors_of_its_own_that_meet_no_others(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    encode_listeners(copy, asked(), Quiet())  # as of now: other tests leave the vectors of another day
    with closing(open_run(copy, asked()).store) as store:
        old, before = store.batch_id, store.user_vectors(0.0)
    built = batches.build(copy, asked(seed=5), Quiet())
    assert built.batch_id != old
    path = copy / "users" / f"{built.batch_id}.parquet"
    assert UserVectors.load(path, built.batch_id).user_id.tolist() == before.user_id.tolist()  # before it serves
    with closing(open_run(copy, asked()).store) as store:
        assert store.batch_id == old  # what serves goes on serving
    batches.activate(copy, asked())
    with closing(open_run(copy, asked()).store) as store:
        after = store.user_vectors(0.0)
        assert after.batch_id == built.batch_id
        kept = {user: store.get(user).usage.sessions for user in store.user_ids()}  # type: ignore[union-attr]
    assert min(kept.values()) > 0
    with pytest.raises(SchemaMismatch, match="different batches"):
        after.cosine(before)
    names = {path.stem for path in (copy / "users").iterdir()}
    assert names == {old, built.batch_id}
    assert_answers_are_of_one_batch(copy, (old, built.batch_id))


def assert_answers_are_of_one_batch(root: Path, batch_ids: tuple[str, str]) -> None:
    """Two threads ask who is alike while the run under them is exchanged 200 times."""
    folders = {version.batch_id: Versions(root).path(version.name) for version in Versions(root).list()}
    runs = [open_run(root, asked(), folder=folders[batch_id]) for batch_id in batch_ids]
    paths = RunPaths(root)
    cosines = {one: (every := UserVectors.load(paths.user_vectors(one))).cosine(every) for one in batch_ids}
    place = {user: row for row, user in enumerate(every.user_id.tolist())}
    service, alike, over, told = SimpleNamespace(run=runs[0]), Alike(), threading.Event(), []

    def ask(users: list[str]) -> None:
        for k in count():
            if over.is_set():
                return
            told.append(alike.of(service, users[k % len(users)], 3))  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, every.user_id[start::2].tolist()) for start in (0, 1)]
        for turn in range(200):
            seen = len(told)
            service.run = runs[turn % 2]
            while len(told) == seen and not any(one.done() for one in asking):
                time.sleep(0)
        over.set()
        for one in asking:
            one.result()  # no request was refused
    for run in runs:
        run.store.close()
    assert {answer["batch_id"] for answer in told} == set(batch_ids)
    for answer in told:
        own = cosines[answer["batch_id"]][place[answer["user_id"]]]
        for near in answer["similar"]:
            assert near["cosine"] == pytest.approx(own[place[near["user_id"]]], abs=0.02)


def test_a_head_is_fitted_on_labels_of_listeners_and_of_pairs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events = pq.read_table(run.parent / "plays.parquet")
    users = sorted(set(events["user_id"].to_pylist()))
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"user_id": users, "label": ["yes", "no"] * 15}), tmp_path / "people.parquet")
    who, item = rng.choice(users, 900), rng.choice(sorted(set(events["item_id"].to_pylist())), 900)
    heard = set(zip(events["user_id"].to_pylist(), events["item_id"].to_pylist(), strict=True))
    label = [float(pair in heard) for pair in zip(who.tolist(), item.tolist(), strict=True)]
    pairs = pa.table({"user_id": who.tolist(), "item_id": item.tolist(), "label": label})
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    for name in ("people", "pairs"):
        with pytest.raises(SystemExit) as done:
            main(["users", "fit", f"{name}.parquet", "--run", str(run), "--out", f"{name}.safetensors"])
        assert done.value.code == 0, capsys.readouterr().err
        told = json.loads((tmp_path / f"{name}.json").read_text())
        assert told["lines"][0]["name"] == "user vector"
        assert from_bytes((tmp_path / f"{name}.safetensors").read_bytes())["weight"].any()
    assert told["lines"][0]["value"] > 0.55  # who heard what is no riddle
    pq.write_table(pa.table({"user_id": users}), tmp_path / "none.parquet")
    with pytest.raises(SystemExit) as wrong:
        main(["users", "fit", "none.parquet", "--run", str(run), "--out", "x.safetensors"])
    assert wrong.value.code == 2
    assert "lacks label" in capsys.readouterr().err
