"""Retraining takes in what is new once, judges on pages that no model has learnt from, and can be killed anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import page_log_world as world
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import ROOT

import api.jobs.retrain
from api.cli import main
from api.hosts.shared import listener_store
from api.jobs import gates
from api.jobs.attempt import FROZEN, LOCK, Retrained, attempt
from api.jobs.build import account_age_d
from api.jobs.evidence import new_pages
from api.jobs.ingest import export_closed, hear, merge_events
from api.jobs.rebuild import joined_table
from api.jobs.retrain import retrain_run
from api.run.listening import Listening
from api.run.progress import Quiet
from api.run.runs import RunPaths
from api.run.settings import Settings, load_settings
from api.run.versions import Versions
from api.service.control import CONTROL_FILE, ControlStore
from api.upkeep.item_updates import publish_items
from bart.bundle import open_bundle
from bart.directories import exclusive
from bart.errors import BundleError
from bart.item_store import load_items
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.reward.scorer import load_scorer
from bart.types import ItemTable, PageBatch

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
LENIENT = {"min_pages": 100, "tolerance": 1.0}


def asked(**retrain: Any) -> Settings:
    return load_settings({"seed": 1, "retrain": {**LENIENT, **retrain}})


def again(run: Path, settings: Settings | None = None, **options: Any) -> Retrained:
    return retrain_run(run, settings or asked(), Quiet(), now=lambda: NOW, **options)


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_run, tmp_path / "run", symlinks=True))


def items_of(run: Path) -> ItemTable:
    return load_items(run / "bundle" / "items")


def test_what_passes_is_activated_and_says_what_it_passed(run: Path) -> None:
    before = open_bundle((run / "bundle").resolve())
    result = again(run)
    assert result.status == "activated"
    names = [gate.name for gate in result.gates]  # "best" where a kept bundle is worth more than the serving one
    assert [name for name in names if name != "best"] == ["parity", "ece", "bias", "support", "gain"]
    after = open_bundle((run / "bundle").resolve())
    assert after.path.name == result.name
    assert after.parent == before.model_id
    assert after.batch_id == before.batch_id
    assert after.learnt_until_s is not None
    assert before.learnt_until_s is not None
    assert after.learnt_until_s > before.learnt_until_s
    told = after.metrics["retrain"]
    assert told["passed"]
    assert [(row["name"], row["passed"]) for row in told["gates"]] == [(g.name, True) for g in result.gates]
    assert json.loads((run / "retrain.json").read_text())["status"] == "activated"
    assert again(run).status == "nothing new"
    assert Versions(run).rollback().name == before.path.name
    assert again(run).status == "nothing new"
    (run / "retrain.json").unlink()
    repeated = again(run)  # from the same pages the same model
    assert repeated.status == "refused"
    assert repeated.reason == "the same model was active before and was rolled back from"
    assert Versions(run).active() == before.path.name


def test_candidate_and_serving_are_judged_on_pages_that_neither_learnt_from(run: Path) -> None:
    before = open_bundle((run / "bundle").resolve())
    again(run)
    after = open_bundle((run / "bundle").resolve())
    items = items_of(run)
    pages = PageBatch.concat(list(new_pages(run / "log", items, before.batch_id, after.learnt_until_s)))
    assert before.learnt_until_s is not None
    assert after.learnt_until_s is not None
    assert pages.at_s.min() >= after.learnt_until_s > before.learnt_until_s
    new = PageBatch.concat(list(new_pages(run / "log", items, before.batch_id, before.learnt_until_s)))
    usable = (new.displayed & new.closed & ~new.forced).sum()
    held_out = (pages.displayed & pages.closed & ~pages.forced).sum()
    assert after.metrics["retrain"]["pages"] == usable
    assert after.metrics["retrain"]["holdout_pages"] == held_out == np.ceil(usable / 2)
    assert after.metrics["reward"]["counts"]["used_pages"] == usable


def test_what_learnt_online_from_the_pages_that_judge_is_worth_what_they_earned(run: Path) -> None:
    with attempt(run, asked(), Quiet()) as before:
        since = before.serving.learnt_until_s
        pages = PageBatch.concat(list(new_pages(run / "log", before.items, before.serving.batch_id, since)))
        scorer = load_scorer(before.serving.folder("reward"), before.items)
        assert (before.serving_scores(pages) == scorer.score_batch(pages)).all()
        metrics = {**before.serving.metrics, "online": {"until_s": int(np.quantile(pages.at_s, 0.9))}}
        online = replace(before, serving=replace(before.serving, metrics=metrics))
        serving, candidate = online.serving_scores(pages), scorer.score_batch(pages)
        online.judged_on(pages, since)
    assert any("what they earned stands for it" in fact for fact in online.facts)
    found = gates.compare(pages, candidate, serving, 0.95, np.random.default_rng(0))
    usable = pages.displayed & pages.closed & ~pages.forced
    assert found.serving.value == pytest.approx(pages.reward[usable].sum() / usable.sum())
    assert found.serving.max_weight == pytest.approx(1.0)


def test_what_is_refused_is_kept_and_does_not_serve(run: Path) -> None:
    serving = Versions(run).active()
    result = again(run, asked(floor=100.0))
    assert result.status == "refused"
    assert result.reason.startswith("floor is ")
    assert "at least 100" in result.reason
    assert Versions(run).active() == serving
    kept = next(version for version in Versions(run).list() if version.name == result.name)
    assert kept.refused
    with pytest.raises(BundleError, match="was refused by its gate"):
        Versions(run).activate(kept.name)
    repeated = again(run, asked(floor=100.0))
    assert repeated.status == "nothing new"
    assert "the same pages were judged before; refused: floor" in repeated.reason
    assert again(run).status == "activated"  # other settings, another answer


@pytest.mark.parametrize(
    ("setting", "gate"), [({"max_ece": 1e-9}, "ece"), ({"max_bias": 1e-9}, "bias"), ({"tolerance": 0.0}, "gain")]
)
def test_each_gate_can_refuse(run: Path, setting: dict[str, float], gate: str) -> None:
    result = again(run, asked(**setting))
    found = next(g for g in result.gates if g.name == gate)
    assert found.value is not None
    assert found.bound is not None
    assert found.passed is (found.value >= found.bound if gate == "gain" else found.value <= found.bound)
    assert (result.status == "activated") is all(g.passed for g in result.gates)
    if gate != "gain":
        assert result.status == "refused"


def test_a_model_of_other_settings_starts_anew_with_all_pages_but_those_held_out(run: Path) -> None:
    settings = load_settings({"seed": 1, "retrain": LENIENT, "reward": {"order": 1}})
    result = again(run, settings)
    assert any("other settings: learning starts from the prior" in fact for fact in result.facts)
    made = open_bundle(Versions(run).path(result.name or ""))
    told, counts = made.metrics["retrain"], made.metrics["reward"]["counts"]
    assert made.parent is None
    assert counts["used_pages"] > told["pages"] > told["holdout_pages"]
    assert told["holdout_pages"] == np.ceil(told["pages"] / 2)


def test_too_few_pages_judge_nothing(run: Path) -> None:
    result = again(run, asked(min_pages=10_000))
    assert (result.status, result.name) == ("refused", None)
    assert "would be held out; expected 10,000" in result.reason


def test_the_command_exits_with_3_where_a_gate_refuses(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "strict.toml").write_text("[retrain]\nmin_pages = 5000\n")
    with pytest.raises(SystemExit) as stopped:
        main(["retrain", str(run), "--config", str(run / "strict.toml")])
    assert stopped.value.code == 3
    assert "would be held out; expected 5,000 there" in capsys.readouterr().out


def test_while_learning_is_frozen_nothing_is_trained_and_afterwards_it_goes_on(run: Path) -> None:
    before = Versions(run).list()
    with closing(ControlStore(run / CONTROL_FILE)) as store:
        store.switch("learning", "off", NOW, "a release")
        frozen = again(run)
        assert (frozen.status, frozen.reason, frozen.name) == ("refused", FROZEN, None)
        assert Versions(run).list() == before
        store.switch("learning", "on", NOW)
    assert again(run).status == "activated"


def test_a_candidate_is_not_activated_where_learning_was_frozen_meanwhile(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Versions(run).active()
    train = api.jobs.retrain.retrain

    def freeze_and_train(*given: Any, **options: Any) -> Any:
        with closing(ControlStore(run / CONTROL_FILE)) as store:
            store.switch("learning", "off", NOW)
        return train(*given, **options)

    monkeypatch.setattr(api.jobs.retrain, "retrain", freeze_and_train)
    frozen = again(run)
    assert (frozen.status, frozen.reason) == ("refused", FROZEN)
    assert frozen.name is not None
    assert Versions(run).active() == serving
    monkeypatch.undo()
    with closing(ControlStore(run / CONTROL_FILE)) as store:
        store.switch("learning", "on", NOW)
    assert again(run).status == "activated"  # the pages count as not judged


def test_items_published_while_a_model_was_trained_stay_with_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = api.jobs.retrain.retrain

    def publish_and_train(*given: Any, **options: Any) -> Any:
        with closing(ControlStore(run / CONTROL_FILE)) as store:
            store.put_item("brand-new", json.dumps({"title": "Brand new"}), NOW)
            publish_items(run, store, NOW.isoformat())
        return train(*given, **options)

    monkeypatch.setattr(api.jobs.retrain, "retrain", publish_and_train)
    before = open_bundle((run / "bundle").resolve())
    result = again(run)
    after = open_bundle((run / "bundle").resolve())
    assert (result.status, result.name) == ("activated", after.path.name)
    assert after.batch_id == before.batch_id
    assert after.parent == before.model_id != after.model_id
    items = items_of(run)
    assert items.item_id[-1] == "brand-new"
    assert after.metrics["retrain"]["passed"]
    assert again(run).status == "nothing new"


def test_a_candidate_is_refused_where_another_model_became_active_meanwhile(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again(run)
    versions = Versions(run)
    newer = versions.active()
    versions.rollback()
    (run / "retrain.json").unlink()
    train = api.jobs.retrain.retrain

    def activate_and_train(*given: Any, **options: Any) -> Any:
        versions.activate(str(newer))
        return train(*given, **options)

    monkeypatch.setattr(api.jobs.retrain, "retrain", activate_and_train)
    monkeypatch.setattr(Versions, "left", lambda _: set())  # else it is refused as one that was left
    result = again(run)
    assert result.status == "refused"
    assert "became active meanwhile" in result.reason
    assert versions.active() == newer


def test_two_do_not_retrain_at_once(run: Path) -> None:
    with exclusive(run / LOCK), pytest.raises(BundleError, match="is being retrained by another process"):
        again(run)


# ------------------------------------------------------------------------------------------------------ what comes in


def shifted(run: Path, file: Path, days: int = 30, users: int = 5) -> pa.Table:
    """The last two days of some listeners' plays, again some days later."""
    events = pq.read_table(run / "events.parquet")
    names = sorted(set(events["user_id"].to_pylist()))[:users]
    at = events["started_at"].to_numpy().astype("datetime64[us]")
    kept = np.isin(events["user_id"].to_numpy(zero_copy_only=False).astype(str), names)
    kept &= at > at.max() - np.timedelta64(2, "D")
    moved = pa.array(at[kept] + np.timedelta64(days, "D")).cast(pa.timestamp("us", "UTC"))
    table = events.filter(pa.array(kept))
    table = table.set_column(table.schema.get_field_index("started_at"), "started_at", moved)
    pq.write_table(table, file)
    return table


def test_new_plays_are_merged_once_and_move_the_states_as_the_whole_sequence_would(run: Path, tmp_path: Path) -> None:
    from recommender.listener.model import compute_states
    from recommender.sessions.sessions import cut_sessions

    paths, items = RunPaths(run), items_of(run)
    added = shifted(run, tmp_path / "new.parquet")
    settings = asked()
    assert merge_events(paths, Listening(tmp_path / "new.parquet"), settings)[0] == len(added)
    assert merge_events(paths, Listening(tmp_path / "new.parquet"), settings)[0] == 0
    with closing(listener_store(paths, open_bundle((run / "bundle").resolve()))) as store:
        tick = Quiet().stage("")
        first = hear(paths, items, store, tick)
        assert first.sessions > 0
        assert first.listeners == len(set(added["user_id"].to_pylist()))
        assert hear(paths, items, store, tick).sessions == 0
        events = pq.read_table(paths.events)
        row_of = {item: row for row, item in enumerate(items.item_id.tolist())}
        age_d = account_age_d(events, joined_table(store, items))
        sessions = cut_sessions(events, row_of, items.vector, account_age_d=age_d)
        whole = compute_states(store.model, sessions)
        for user in sorted(set(added["user_id"].to_pylist())):
            row = store.get(user)
            number = sessions.user_id.tolist().index(user)
            assert row is not None
            np.testing.assert_array_equal(row.state[:3], whole[number, :3])  # end and number of sessions
            np.testing.assert_allclose(row.state, whole[number], atol=1e-5)
            played = [e["item_id"] for e in added.to_pylist() if e["user_id"] == user and not e["skipped"]]
            assert set(row.recent[:1]) <= {items.row_of[item] for item in played}


def test_a_session_that_was_posted_does_not_count_again(run: Path, tmp_path: Path) -> None:
    from bart.types import Context
    from recommender.states.states import Session

    paths, items = RunPaths(run), items_of(run)
    added = shifted(run, tmp_path / "new.parquet", users=1)
    merge_events(paths, Listening(tmp_path / "new.parquet"), asked())
    user = added["user_id"][0].as_py()
    end = max(added["started_at"].to_pylist())
    with closing(listener_store(paths, open_bundle((run / "bundle").resolve()))) as store:
        posted = Session.of(Context(end), end, items.vector[:3], np.zeros(3, dtype=bool))
        store.advance(user, posted, [0, 1, 2])
        before = store.get(user)
        assert hear(paths, items, store, Quiet().stage("")).sessions == 0
        after = store.get(user)
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(before.state, after.state)


def test_only_days_that_are_behind_are_exported_again(run: Path) -> None:
    paths, items, settings = RunPaths(run), items_of(run), asked()
    days = sorted((run / "log").glob("date=*"))
    assert export_closed(paths, items, settings, NOW) == 0
    kept = {day: next(day.glob("part-*")).stat().st_mtime_ns for day in days}
    before = pq.read_table(days[3])
    shutil.rmtree(days[3])
    assert export_closed(paths, items, settings, NOW) == len(before)
    assert pq.read_table(days[3]).equals(before)
    for day in days[:3] + days[4:]:
        assert next(day.glob("part-*")).stat().st_mtime_ns == kept[day]
    assert verify(run / "log").ok


def test_a_day_with_other_events_is_exported_again_and_not_only_one_with_other_pages(run: Path) -> None:
    """Reports that were on their way when the day was closed, and pages that were closed by a clock that was ahead."""
    paths, items, settings = RunPaths(run), items_of(run), asked()
    assert export_closed(paths, items, settings, NOW) == 0
    with closing(DecisionLog(paths.log)) as log:
        *_, page = log.decisions()
        at = page.decided_at + timedelta(hours=1)
        log.feedback(page.request_id, [FeedbackEvent("on its way", at, 0, 0, seen=True, listened_s=99.0)], at)
    day = f"date={page.decided_at:%Y-%m-%d}"
    assert export_closed(paths, items, settings, NOW) == len(pq.read_table(run / "log" / day))
    rows = pq.read_table(run / "log" / day, columns=["request_id", "listened_s"], partitioning=None).to_pylist()
    assert max(row["listened_s"][0][0] or 0 for row in rows if row["request_id"] == page.request_id) == 99.0
    assert export_closed(paths, items, settings, NOW) == 0
    assert verify(run / "log").ok
    assert verify(paths.log).ok


# ----------------------------------------------------------------------------------------------------------- comparing


@pytest.fixture(scope="module")
def held_out(demo_run: Path) -> tuple[PageBatch, np.ndarray[Any, Any]]:
    """Pages and the serving model's scores."""
    bundle = open_bundle((demo_run / "bundle").resolve())
    items = load_items(bundle.folder("items"))
    pages = PageBatch.concat(list(new_pages(demo_run / "log", items, bundle.batch_id, bundle.learnt_until_s)))
    return pages, load_scorer(bundle.folder("reward"), items).score_batch(pages)


def test_a_model_gains_nothing_over_itself(held_out: tuple[PageBatch, Any]) -> None:
    pages, score = held_out
    found = gates.compare(pages, score, score, 0.95, np.random.default_rng(1))
    assert (found.gain, found.lower, found.upper) == (0.0, 0.0, 0.0)


def test_a_model_turned_upside_down_loses_beyond_doubt(held_out: tuple[PageBatch, Any]) -> None:
    pages, score = held_out
    found = gates.compare(pages, 0.5 - score / 2, score, 0.95, np.random.default_rng(1))
    assert found.upper < 0
    assert found.gain == pytest.approx(found.candidate.value - found.serving.value)
    settings = load_settings({"retrain": {"tolerance": 0.05}})
    assert not next(g for g in gates.value(found, settings) if g.name == "gain").passed


def test_the_interval_of_a_gain_is_narrower_than_that_of_unpaired_estimates(held_out: tuple[PageBatch, Any]) -> None:
    pages, score = held_out
    shifted = np.clip(score + np.random.default_rng(2).normal(0, 0.01, len(score)), 0.001, 0.999)
    found = gates.compare(pages, shifted, score, 0.95, np.random.default_rng(1))
    assert found.upper - found.lower < np.hypot(found.candidate.width, found.serving.width)


# -------------------------------------------------------------------------------------------------------------- killed


def test_a_killed_retraining_leaves_a_run_that_verifies_and_can_be_repeated(run: Path, tmp_path: Path) -> None:
    shifted(run, tmp_path / "new.parquet")
    (tmp_path / "bart.toml").write_text("[retrain]\nmin_pages = 100\ntolerance = 1.0\n")
    options = ["--events", str(tmp_path / "new.parquet"), "--config", str(tmp_path / "bart.toml")]
    command = [sys.executable, "-c", "import sys; from api.cli import main; main(sys.argv[1:])", "retrain", str(run)]
    serving = open_bundle((run / "bundle").resolve())
    child = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    drafts: Callable[[], list[Path]] = lambda: list((run / "bundles").glob(".*draft*"))  # noqa: E731
    while child.poll() is None and not drafts():  # until the candidate is being written
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert drafts()
    assert open_bundle((run / "bundle").resolve()).model_id == serving.model_id
    assert verify(run / "log.sqlite").ok
    settings = load_settings(None, tmp_path / "bart.toml")
    result = again(run, settings, events=Listening(tmp_path / "new.parquet"))
    assert result.status == "activated"
    assert not drafts()
    assert os.readlink(run / "bundle") == f"bundles/{result.name}"


def test_a_candidate_must_keep_up_with_the_best_that_is_kept(run: Path) -> None:
    before = open_bundle((run / "bundle").resolve())
    first = again(run)
    assert first.status == "activated"
    versions = Versions(run)
    told = json.loads((run / "retrain.json").read_text())
    assert told["best"] in {version.name for version in versions.list()} - {first.name}
    since = datetime(2020, 1, 1, tzinfo=timezone.utc)
    assert {before.path.name, first.name} <= versions.served(before.batch_id, since)
    assert versions.served("another batch", since) == set()
    assert versions.served(before.batch_id, datetime.now(timezone.utc) + timedelta(days=1)) == set()
    versions.rollback()
    assert first.name not in versions.served(before.batch_id, since)


def test_the_best_is_spared_as_long_as_it_is_judged_against(run: Path) -> None:
    again(run)
    name = json.loads((run / "retrain.json").read_text())["best"]
    assert name in Versions.of(run, asked()).spared
    assert name not in Versions.of(run, asked(weeks=0)).spared


def test_small_losses_do_not_add_up() -> None:
    """Each model is a little worse than the one before; the last is told apart only from the first."""
    rng = np.random.default_rng(3)
    truth = rng.normal(-1.0, 1.0, 3_000 * 35)
    noise = rng.normal(0, 1.0, len(truth))
    score = [1 / (1 + np.exp(-(truth + scale * noise))) for scale in (0.2, 1.2, 1.6)]
    pages = world.batch(rng, pages=3_000, score=score[1], appeal=1 / (1 + np.exp(-truth)), epsilon=0.4)
    alone = gates.compare(pages, score[2], score[1], 0.95, np.random.default_rng(1))
    assert alone.best is None
    found = gates.compare(
        pages, score[2], score[1], 0.95, np.random.default_rng(1), kept={"best": score[0], "same": score[1]}
    )
    assert found.best is not None
    assert found.best.name == "best"
    assert (found.gain, found.lower) == (alone.gain, alone.lower)
    assert found.best.lower < alone.lower
    names = {gate.name: gate.passed for gate in gates.value(found, asked(tolerance=0.1))}
    assert not names["best"]
