"""Bundles of a run by name: one is active at every moment, whatever is killed, and the way back is well defined."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT

import api.run.older_layout
from api.run.versions import NAME, Versions
from bart.bundle import open_bundle, write_bundle
from bart.errors import BundleError


def write(path: Path, reward: str, second: int = 0, gate: dict[str, object] | None = None) -> None:
    metrics = {"retrain": gate} if gate is not None else {}
    with write_bundle(path, created_at=f"2026-01-01T00:00:{second:02d}+00:00", metrics=metrics) as draft:
        for folder in ("items", "reward", "listener", "index"):
            (draft / folder).mkdir()
            (draft / folder / "data").write_text(reward if folder == "reward" else folder)


def add(versions: Versions, reward: str, second: int = 0, gate: dict[str, object] | None = None) -> str:
    write(versions.draft(), reward, second, gate)
    return versions.add(versions.draft())


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    (tmp_path / "run").mkdir()
    return Versions(tmp_path / "run", keep=3)


def test_activating_swaps_a_relative_link_and_changes_the_marker(versions: Versions) -> None:
    a, b = add(versions, "a", 1), add(versions, "b", 2)
    assert versions.active() is None
    seen = {versions.marker()}
    for name in (a, b, a):
        versions.activate(name)
        assert os.readlink(versions.link) == f"bundles/{name}"
        assert versions.active() == name
        assert open_bundle(versions.link).model_id.startswith(name[-8:])
        assert versions.marker() == versions.marker()
        seen.add(versions.marker())
    assert len(seen) == 4
    assert [line.name for line in versions.history()] == [a, b, a]
    assert [line.previous for line in versions.history()] == [None, a, b]
    assert [version.active for version in versions.list()] == [True, False]


def test_names_tell_time_and_model_and_do_not_collide(versions: Versions) -> None:
    a, again = add(versions, "a", 1), add(versions, "a", 1)
    assert again == f"{a}-2"
    assert all(NAME.fullmatch(name) for name in (a, again))
    assert a.startswith("20260101T000001Z-")


def test_rolling_back_twice_goes_further_back(versions: Versions) -> None:
    a, b, c = (add(versions, name, i) for i, name in enumerate("abc"))
    for name in (a, b, c):
        versions.activate(name)
    assert versions.before() == b
    assert versions.rollback().name == b
    assert versions.rollback().name == a
    with pytest.raises(BundleError, match="no bundle was active before"):
        versions.rollback()
    versions.activate(c)
    assert versions.rollback().name == a  # c came after a, b was left
    assert [line.kind for line in versions.history()][-1] == "rollback"


@pytest.mark.parametrize(
    "name", ["..", "../bundles", "/etc", "a", "", ".lock", "20260101T000000Z-0123abcd/..", "٢" * 8]
)
def test_only_names_are_activated(versions: Versions, name: str) -> None:
    a = add(versions, "a")
    with pytest.raises(BundleError, match=f"is not the name of a bundle; expected one such as {a}"):
        versions.activate(name)


def test_what_may_not_serve_is_refused_and_changes_nothing(versions: Versions) -> None:
    good, bad = add(versions, "a", 1), add(versions, "b", 2)
    refused = add(versions, "c", 3, {"passed": False, "reason": "gain"})
    versions.activate(good)
    (versions.path(bad) / "reward" / "data").write_text("altered")
    before = (versions.marker(), versions.history())
    with pytest.raises(BundleError, match="reward/data was altered"):
        versions.activate(bad)
    with pytest.raises(BundleError, match="was refused by its gate"):
        versions.activate(refused)
    with pytest.raises(BundleError, match=f"has no bundle 20200101T000000Z-00000000; expected one of {good}"):
        versions.activate("20200101T000000Z-00000000")
    with pytest.raises(BundleError, match=f"{good} became active meanwhile; expected {bad}"):
        versions.activate(good, expected=bad)
    assert (versions.marker(), versions.history()) == before
    assert versions.activate(refused, force=True).previous == good


def test_a_bundle_whose_listeners_are_unknown_is_refused(versions: Versions) -> None:
    from recommender.states.states import MemoryListener, SqliteListenerStore

    name = add(versions, "a")
    store = SqliteListenerStore(versions.root / "listeners.sqlite", MemoryListener(4), "another batch")
    from recommender.states.states import ListenerRow

    store.put_many([ListenerRow("u", store.model.initial([0.0])[0])])  # type: ignore[arg-type]
    store.close()
    with pytest.raises(BundleError, match=r"of which .*listeners.sqlite holds no listener"):
        versions.activate(name)


def test_pruning_leaves_the_active_one_and_the_one_before(versions: Versions) -> None:
    names = [add(versions, str(i), i) for i in range(6)]
    versions.activate(names[0])
    versions.activate(names[1])
    assert set(versions.prune()) == set(names[2:5])
    assert [version.name for version in versions.list()] == [names[0], names[1], names[5]]
    assert versions.prune() == ()
    assert versions.rollback().name == names[0]


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{}", '{"format": 2, "created_at": "never"}'])
def test_a_damaged_bundle_is_told_and_keeps_the_others_from_nothing(versions: Versions, text: str) -> None:
    versions.keep = 3
    names = [add(versions, f"model {i}", second=i) for i in range(4)]
    for name in names[1:]:
        versions.activate(name)
    (versions.path(names[0]) / "manifest.json").write_text(text)
    assert [version.name for version in versions.list()] == names[1:]
    assert list(versions.damaged()) == names[:1]
    assert versions.rollback().name == names[2]
    assert versions.prune() == (names[0],)
    assert versions.damaged() == {}


def test_a_damaged_history_is_one_line(versions: Versions) -> None:
    versions.activate(add(versions, "model"))
    for line in ("{", "[]", '{"at": 1}', "7"):
        (versions.directory / "history.jsonl").write_text(line + "\n")
        with pytest.raises(BundleError, match="history.jsonl is damaged") as told:
            versions.before()
        assert "\n" not in str(told.value)


def test_a_bundle_that_was_active_and_is_gone_is_named(versions: Versions) -> None:
    names = [add(versions, str(i), i) for i in range(3)]
    for name in names:
        versions.activate(name)
    shutil.rmtree(versions.path(names[1]))
    with pytest.raises(BundleError, match=f"has no bundle {names[1]}"):
        versions.rollback()
    assert versions.active() == names[2]


def test_a_link_made_by_hand_is_the_truth(versions: Versions) -> None:
    a, b = add(versions, "a", 1), add(versions, "b", 2)
    versions.activate(a)
    versions.link.unlink()
    versions.link.symlink_to(f"bundles/{b}")
    assert versions.active() == b
    assert versions.rollback().name == a


# --------------------------------------------------------------------------------------------------------- killed


class KilledError(BaseException):
    """Stands for SIGKILL: from then on nothing on the disk changes, clean-up included."""


OPERATIONS = [(os, n) for n in ("rename", "replace", "symlink", "link", "unlink", "mkdir", "rmdir")]


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, work: object) -> bool:
    """Whether the work was killed before its `step`-th change of a name; no later one happens."""
    count = 0

    def dying(real):  # type: ignore[no-untyped-def]
        def call(*args, **options):  # type: ignore[no-untyped-def]
            nonlocal count
            count += 1
            if count > step:
                raise KilledError
            return real(*args, **options)

        return call

    with monkeypatch.context() as patch:
        for module, name in OPERATIONS:
            patch.setattr(module, name, dying(getattr(module, name)))
        real = api.run.older_layout.exchange
        patch.setattr(api.run.older_layout, "exchange", dying(real))
        try:
            work()  # type: ignore[operator]
        except KilledError:
            return True
    return False


@pytest.mark.parametrize("exchange", [True, False])
def test_leaving_the_older_layout_can_be_killed_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:  # a system that cannot exchange two names
        monkeypatch.setattr(api.run.older_layout, "exchange", lambda *_: False)
    kills = 0
    for step in range(100):
        run = tmp_path / f"run-{step}"
        write(run / "bundle", "a", 1)
        model_id = open_bundle(run / "bundle").model_id
        killed = killed_at(step, monkeypatch, lambda run=run: Versions(run).settle())
        kills += killed
        Versions(run).repair()  # what every opening of a run does first
        assert open_bundle(run / "bundle").model_id == model_id
        versions = Versions(run)
        versions.clean()
        name = versions.settle()
        assert versions.link.is_symlink()
        assert open_bundle(versions.path(name)).model_id == model_id
        assert [version.name for version in versions.list()] == [name]
        assert sorted(p.name for p in run.iterdir()) == ["bundle", "bundles"]
        if not killed:
            break
    assert kills > 5


def test_an_activation_can_be_killed_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(100):
        (tmp_path / f"run-{step}").mkdir()
        versions = Versions(tmp_path / f"run-{step}")
        a, b, c = (add(versions, name, i) for i, name in enumerate("abc"))
        versions.activate(a)
        versions.activate(b)
        killed = killed_at(step, monkeypatch, lambda versions=versions, c=c: versions.activate(c))
        assert versions.active() in (b, c)
        open_bundle(versions.link)
        assert versions.before() == (a if versions.active() == b else b)
        assert versions.rollback().name == (a if versions.history()[-1].previous == b else b)
        if not killed:
            break
    assert step > 2


FLIP = """
import sys
from pathlib import Path
from api.run.versions import Versions
versions = Versions(Path(sys.argv[1]))
names = [version.name for version in versions.list()]
print("ready", flush=True)
while True:
    for name in names:
        versions.activate(name)
    versions.rollback()
"""


def test_sigkill_leaves_a_bundle_that_verifies(versions: Versions) -> None:
    for i, name in enumerate("abc"):
        versions.activate(add(versions, name, i))
    rng = random.Random(3)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", FLIP, str(versions.root)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        open_bundle(versions.link)
        assert versions.history()[-1].name == versions.active()
    text = (versions.directory / "history.jsonl").read_text()
    assert len([json.loads(line) for line in text.splitlines()]) >= 3
