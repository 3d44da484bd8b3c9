"""Page logs in blocks on the engine, against the whole log at once and against the estimates of `bart evaluate`."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.console import Quiet
from api.evaluate_engine_pages import PageKernel, evaluate_pages_on_engine
from api.evaluation import evaluate_log
from api.settings import load_settings
from bart.decision_log import DecisionLog
from bart.errors import DataError
from bart.feedback import FeedbackEvent
from bart.ope.engine import Statistics, run_kernel
from bart.ope.engine_pages import page_replicates, page_value, put_pages
from bart.ope.page_estimators import PAGE_ESTIMATORS, estimate_pages
from bart.ope.pages import LoggedPages, logged_pages
from bart.ope.poisson_hash import hash_text
from bart.types import Context

_spec = importlib.util.spec_from_file_location("page_log_world", Path(__file__).with_name("page_log_world.py"))
assert _spec is not None
assert _spec.loader is not None
world = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("page_log_world", world)
_spec.loader.exec_module(world)

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
EXACT = ("independent_ips", "sn_independent_ips", "page_ncis", "cascade_ips", "sn_cascade_ips", "slate_ips")
BLOCKS = 3


@pytest.fixture(scope="module")
def blocks() -> tuple[LoggedPages, Statistics, Statistics]:
    """A log, its statistics in three blocks, and in one."""
    rng = np.random.default_rng(0)
    batch = world.batch(rng, pages=1_200)
    score = batch.score + rng.normal(0, 0.5, len(batch.score))
    users = {user: i for i, user in enumerate(dict.fromkeys(batch.user_id))}
    hashed = hash_text([str(user) for user in users])
    kinds: dict[str, dict[str, Any]] = {name: {} for name in (*EXACT, "exposure_dr", "dm")}
    sums = []
    for count in (BLOCKS, 1):
        total = Statistics()
        for pages in np.array_split(np.arange(len(batch)), count):
            flat = np.concatenate([np.arange(batch.offset[i], batch.offset[i + 1]) for i in pages])
            data = logged_pages(batch.take(pages), score[flat], 0.1, 0.1, users=users)
            put_pages(total, "new", data, kinds, hashed[data.user], 400, 1)
        sums.append(total)
    return logged_pages(batch, score, 0.1, 0.1, users=users), sums[0], sums[1]


@pytest.mark.parametrize("name", EXACT)
def test_a_value_by_weights_is_that_of_the_whole_log_however_it_is_cut(name: str, blocks: Any) -> None:
    whole, cut, _ = blocks
    assert page_value(cut, "new", name) == pytest.approx(PAGE_ESTIMATORS[name](whole).value, rel=1e-12)


@pytest.mark.parametrize("name", ["exposure_dr", "dm"])
def test_a_value_by_exposures_is_the_whole_logs_in_one_block_and_near_it_in_several(name: str, blocks: Any) -> None:
    whole, cut, one = blocks
    expected = estimate_pages(name, whole)
    assert page_value(one, "new", name) == pytest.approx(expected.value, rel=1e-12)
    assert abs(page_value(cut, "new", name) - expected.value) < (expected.upper - expected.lower) / 4


def test_replicates_of_self_normalised_values_do_not_depend_on_the_blocks(blocks: Any) -> None:
    _, cut, one = blocks
    assert page_replicates(cut, "new", "page_ncis") == pytest.approx(
        page_replicates(one, "new", "page_ncis"), rel=1e-11
    )


@pytest.mark.parametrize("name", ["independent_ips", "sn_independent_ips", "exposure_dr"])
def test_the_bootstrap_of_listeners_has_the_spread_of_the_clustered_interval(name: str, blocks: Any) -> None:
    whole, _, one = blocks
    expected = estimate_pages(name, whole)
    half = 1.96 * page_replicates(one, "new", name).std()
    # 400 replicates know their spread to 4 %, and Student's quantile is a little wider.
    assert half == pytest.approx((expected.upper - expected.lower) / 2, rel=0.2)


@pytest.fixture(scope="module")
def log(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pages of a small run with feedback, exported beside a link to its bundle."""
    from api.runs import exploration_of, open_run, rules_of

    settings = load_settings({})
    run = open_run(built_run, exploration_of(settings), rules_of(settings))
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(3)
    with DecisionLog(folder / "log.sqlite") as found:
        for i in range(120):
            context = Context(AT + timedelta(hours=i))
            listener = run.store.listener(f"listener-{i % 30:02d}", context)
            decision = run.ranker.rank(f"r{i}", listener, context, 2, 3, i)
            found.append(decision)
            events = [FeedbackEvent("page", context.at, displayed=True)]
            for slot in range(int(rng.integers(1, 6))):
                heard = 60.0 if rng.random() < 0.3 else 3.0
                events.append(FeedbackEvent(str(slot), context.at, slot // 3, slot % 3, True, True, heard))
            page = [e for e in events if e.event_id == "page" or decision.page.card[e.row, e.column] >= 0]
            found.feedback_many([(f"r{i}", page, context.at + timedelta(minutes=5))])
        found.export(folder / "log", now=AT + timedelta(days=60), duration_s=run.items)
    (folder / "bundle").symlink_to((built_run / "bundle").resolve())
    return folder / "log"


def test_an_exported_log_gives_the_values_of_bart_evaluate(log: Path) -> None:
    settings = load_settings({})
    asked = ["independent_ips", "sn_independent_ips", "page_ncis"]
    here = evaluate_pages_on_engine(
        log, ["popularity"], settings, None, Quiet(), engine="local", workers=1, estimators=asked
    )
    whole = evaluate_log(log, ["popularity"], settings, None, Quiet(), estimators=asked)
    assert here["log"] == pytest.approx(whole["log"])
    assert here["left_out"] == {k: v for k, v in whole["left_out"].items() if k in here["left_out"]}
    for mine, theirs in zip(here["policies"], whole["policies"], strict=True):
        assert mine["name"] == theirs["name"]
        assert mine["weights"]["share"] == pytest.approx(theirs["weights"]["share"])
        for name in asked:
            for key in ("value", "n", "effective_sample_size"):
                assert mine["estimates"][name][key] == pytest.approx(theirs["estimates"][name][key], rel=1e-9)


def test_a_pickled_kernel_gives_the_same_sums(log: Path) -> None:
    kernel = PageKernel(str(log), (("popularity", 0.0),), (("page_ncis", ()),), (2, 3), None, 10, 1)
    one, two = run_kernel(kernel, log, workers=1), run_kernel(pickle.loads(pickle.dumps(kernel)), log, workers=1)
    assert one.names() == two.names()
    for name in one.names():
        assert one.values(name).tobytes() == two.values(name).tobytes(), name


def test_what_the_engine_cannot_do_is_refused(log: Path) -> None:
    with pytest.raises(DataError, match="expected percentile for pages"):
        evaluate_pages_on_engine(log, [], load_settings({}), None, Quiet(), engine="local", interval="student")
