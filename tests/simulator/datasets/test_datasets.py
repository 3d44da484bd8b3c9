"""Worlds and logs from a user's files: KuaiRand's fits recover what made the data; any log can be replayed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import places
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from bart.errors import DataError, SupportError
from bart.ope import estimate
from bart.types import Floats
from simulator.datasets import generic_logs, kuairand
from simulator.datasets.kuairand import check as kuairand_check
from simulator.datasets.kuairand import fit as kuairand_fit
from simulator.reading.browsing import page_value

DATA = places.DATA / "kuairand_k15" / "processed_standard_kcore_15.tsv"
REAL = pytest.mark.skipif(not DATA.is_file(), reason=f"KuaiRand's file is not at {os.path.relpath(DATA)}")


def write_kuairand(file: Path, *, step: float = -0.3, seed: int = 0) -> dict[str, Floats]:
    """Made by a known truth: 150 users, 80 videos, patience .8, going on with .6/.4 and .5/.3, decay by column."""
    rng = np.random.default_rng(seed)
    n_users, n_videos = 150, 80
    b_user, b_video = rng.normal(0, 0.7, n_users), rng.normal(0, 0.7, n_videos)
    lines = ["user_id\tvideo_id\ttime_ms\tlong_view\tduration_ms"]
    for user in range(n_users):
        patience, at = 0.8 * rng.normal(), 1_650_000_000.0 + 3_600 * rng.random()
        for _ in range(25):  # pages
            at += 13 * 3_600
            while True:  # rows
                any_long, column = 0, 0
                while True:
                    video = int(rng.integers(n_videos))
                    long = int(rng.random() < expit(b_user[user] + b_video[video] + step * min(column, 9)))
                    any_long |= long
                    lines.append(f"{10 * user + 7}\t{100 + video}\t{int(1000 * at)}\t{long}\t{9000 + 500 * video}")
                    if rng.random() > expit(patience + (-0.4 if long else 0.4)):
                        break
                    at += 60.0
                    column += 1
                if rng.random() > expit(patience + (-0.85 if any_long else 0.0)):
                    break
                at += 3_600.0
    file.write_text("\n".join(lines) + "\n")
    return {"user": b_user, "video": b_video}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Floats]]:
    file = tmp_path_factory.mktemp("kuairand") / "rated.tsv"
    return file, write_kuairand(file)


def test_time_is_cut_into_pages_rows_and_columns(tmp_path: Path) -> None:
    file = tmp_path / "rated.tsv"
    minutes = [0, 10, 45, 46, 47, 500, 0, 1]
    user = [1] * 6 + [2] * 2
    rows = [f"{u}\t5\t{m * 60_000 + 1_650_000_000_000}\t1\t0" for u, m in zip(user, minutes, strict=True)]
    many = [f"3\t6\t{1_650_000_000_000 + 86_400_000 * i}\t0\t1000" for i in range(100)]
    file.write_text("\n".join(["user_id\tvideo_id\ttime_ms\tlong_view\tduration_ms", *rows[::-1], *many]) + "\n")
    log = kuairand.read_kuairand(file)
    assert log.page[:8].tolist() == [0, 0, 0, 0, 0, 1, 2, 2]
    assert log.row[:8].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert log.column[:8].tolist() == [0, 1, 0, 1, 2, 0, 0, 1]
    assert log.last_of_row[:8].tolist() == [False, True, False, False, True, True, False, True]
    assert log.last_of_page[:8].tolist() == [False, False, False, False, True, True, False, True]
    assert not log.ended[-1]
    count = kuairand_fit.going_on(log)
    assert count[0].tolist() == [[0, 0], [3, 3], [0, 0], [2, 1]]  # all long views: only hc1 and hr1
    assert count[2].sum(axis=1).tolist() == [99, 0, 99, 0]  # the last page may not have ended


def test_the_fit_recovers_how_far_users_go_on(made: tuple[Path, dict[str, Floats]]) -> None:
    found = kuairand_fit.fit_reading(kuairand.read_kuairand(made[0]))
    truth = {"hc0": expit(0.4), "hc1": expit(-0.4), "hr0": 0.5, "hr1": expit(-0.85), "patience": 0.8}
    for name, value in truth.items():
        assert abs(found.value[name] - value) < 3.5 * found.error[name], name
        assert found.error[name] < 0.1, name


def test_standard_errors_are_the_spread_of_the_estimates() -> None:
    rng = np.random.default_rng(1)
    z, error = [], []
    logit = np.array([0.2, -0.3, 0.0, 0.4])
    for _ in range(40):
        p = expit(logit + 0.6 * rng.normal(size=(200, 1)))
        on = rng.binomial(15, p)
        found = kuairand_fit.fit_hazards(np.stack([15 - on, on], axis=2))
        z.append([found.value[name] for name in (*kuairand_fit.HAZARDS, "patience")])
        error.append([found.error[name] for name in (*kuairand_fit.HAZARDS, "patience")])
    np.testing.assert_allclose(np.mean(error, axis=0), np.std(z, axis=0, ddof=1), rtol=0.35)
    np.testing.assert_allclose(np.mean(z, axis=0)[:4], expit(logit), atol=0.015)


def test_the_fit_recovers_taste_and_the_decay_over_columns(made: tuple[Path, dict[str, Floats]]) -> None:
    model = kuairand_fit.fit_taste(kuairand.read_kuairand(made[0]), kuairand_fit.TasteConfig(rank=2, taste=20.0))
    assert abs(model.step[0] + 0.3) < 4 * model.step_error[0]
    assert abs(model.step[1]) < 4 * model.step_error[1]
    assert model.column_trust < 0.9
    assert np.corrcoef(model.user, made[1]["user"])[0, 1] > 0.8
    assert np.corrcoef(model.video, made[1]["video"])[0, 1] > 0.8


def test_held_out_rows_are_predicted_better_than_the_base_rate_and_calibrated(
    made: tuple[Path, dict[str, Floats]],
) -> None:
    config = kuairand_fit.TasteConfig(rank=1, user=2.0, video=2.0, taste=1e6)  # the truth's own
    found = kuairand_check.held_out(kuairand.read_kuairand(made[0]), config)
    assert found.log_loss["model"] < found.log_loss["user"] < found.log_loss["base"]
    assert found.gain[0] == pytest.approx(found.log_loss["base"] - found.log_loss["model"])
    assert found.gain[0] > 5 * found.gain[1]
    assert abs(found.slope[0] - 1) < 4 * found.slope[1] < 0.25
    assert abs(found.intercept[0]) < 4 * found.intercept[1]
    assert found.reading["patience"] < found.reading["hazards"] < found.reading["base"]


def test_where_there_is_no_taste_nothing_is_gained(tmp_path: Path) -> None:
    file = tmp_path / "rated.tsv"
    write_kuairand(file)
    head, *lines = file.read_text().splitlines()
    rng = np.random.default_rng(0)
    shuffled = ["\t".join([*f[:3], str(int(rng.random() < 0.4)), f[4]]) for f in (line.split("\t") for line in lines)]
    file.write_text("\n".join([head, *shuffled]) + "\n")
    assert kuairand_check.held_out(kuairand.read_kuairand(file)).gain[0] < 0.002


def test_a_world_knows_the_value_of_its_pages(made: tuple[Path, dict[str, Floats]]) -> None:
    world = kuairand.kuairand_world(made[0])
    assert world.browsing.name == "KUAIRAND"
    rng = np.random.default_rng(0)
    user = rng.integers(0, world.n_users, 300)
    everything = world.appeal(user[:, None], np.arange(world.n_videos)[None])
    best = np.argsort(-everything, axis=1)[:, :6].reshape(300, 2, 3)
    plain = np.argsort(rng.random(everything.shape), axis=1)[:, :6].reshape(300, 2, 3)
    values = [world.value(user, card) for card in (best, plain)]
    assert values[0].mean() > 1.2 * values[1].mean()
    likes = np.take_along_axis(everything, best.reshape(300, 6), axis=1).reshape(best.shape)
    again = page_value(likes, best >= 0, world.browsing, patience=world.patience[user])
    np.testing.assert_allclose(values[0], again, rtol=1e-12)
    who = np.repeat(user[:30], 400)
    feedback = world.browse(who, np.repeat(best[:30], 400, axis=0), rng)
    streams = feedback.streamed.sum(axis=(1, 2))[feedback.displayed]
    error = streams.std() / np.sqrt(len(streams))
    assert abs(streams.mean() - values[0][:30].mean()) < 4 * error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\tvideo_id\n1\t2\n", "has no column time_ms"),
        ("user_id\tvideo_id\ttime_ms\tlong_view\tduration_ms\n1\t2\tx\t0\t0\n", "column time_ms is not all whole"),
        ("user_id\tvideo_id\ttime_ms\tlong_view\tduration_ms\n1\t2\t3\t2\t0\n", "values other than 0 and 1"),
        ("user_id\tvideo_id\ttime_ms\tlong_view\tduration_ms\n1\t2\t3\t1\t0\n", "has 1 rows; expected at least 100"),
    ],
)
def test_files_that_are_not_the_log_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rated.tsv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        kuairand.read_kuairand(file)


@REAL
def test_the_real_log_gives_the_world_that_is_described() -> None:
    found = kuairand_fit.fit_reading(kuairand.read_kuairand(DATA)).value
    described = {"hc0": 0.423, "hc1": 0.370, "hr0": 0.512, "hr1": 0.510, "patience": 0.695}  # docs/worlds.md
    assert found == pytest.approx(described, abs=6e-4)


def write_log(file: Path, n: int = 3_000) -> None:
    """Choices of a, b, c in two situations; the best is a in the first and c in the second."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 2, n)
    pmf = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])[place]
    action = (pmf.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    rate = np.array([[0.8, 0.4, 0.2], [0.1, 0.4, 0.7]])
    table = pa.table(
        {
            "card": np.array(["a", "b", "c"])[action],
            "reward": (rng.random(n) < rate[place, action]).astype(np.int8),
            "propensity": pmf[np.arange(n), action],
            "where": np.array(["home", "car"])[place],
            "age": rng.normal(size=n),
        }
    )
    pq.write_table(table, file)


def test_a_log_with_other_names_is_evaluated(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet")
    log = generic_logs.read_log(tmp_path / "log.parquet", {"action": "card"}, context=["where", "age"])
    assert log.action_id == ("a", "b", "c")
    assert log.context_name == ("where=car", "where=home", "age")
    assert (len(log), log.n_actions, log.context.shape) == (3_000, 3, (3_000, 3))
    best = np.where(log.context[:, 1:2] == 1, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]])
    found = estimate("snips", log.choices(best))
    assert found.lower < 0.75 < found.upper
    assert found.verdict == "conclusive"


def test_csv_and_parquet_read_alike(tmp_path: Path) -> None:
    import pyarrow.csv as csv

    write_log(tmp_path / "log.parquet", 50)
    csv.write_csv(pq.read_table(tmp_path / "log.parquet"), tmp_path / "log.csv")
    one, two = (
        generic_logs.read_log(tmp_path / f"log.{kind}", {"action": "card"}, ["where"]) for kind in ("parquet", "csv")
    )
    for name in ("action", "reward", "propensity", "context"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)


class Fixed:
    """Chooses by the situation and learns nothing; remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float]] = []

    def pmf(self, context: Floats) -> Floats:
        return np.array([0.1, 0.1, 0.8]) if context[0] == 1 else np.array([0.7, 0.2, 0.1])

    def update(self, context: Floats, action: int, reward: float) -> None:
        del context
        self.told.append((action, reward))


def test_a_replayed_policy_is_told_what_it_would_have_earned(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", 30_000)
    log = generic_logs.read_log(tmp_path / "log.parquet", {"action": "card"}, ["where"])
    policy = Fixed()
    found = generic_logs.replay(log, policy, np.random.default_rng(0))
    # In the car .1 x .1 + .1 x .4 + .8 x .7, at home .7 x .8 + .2 x .4 + .1 x .2, both as often.
    truth = (0.61 + 0.66) / 2
    error = found.reward.std() / np.sqrt(len(found.reward))
    assert abs(found.reward.mean() - truth) < 4 * error
    assert error < 0.01
    assert policy.told == list(zip(log.action[found.row].tolist(), found.reward.tolist(), strict=True))


def test_propensities_are_stated_where_the_file_has_none(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", 200)
    pq.write_table(pq.read_table(tmp_path / "log.parquet").drop_columns(["propensity"]), tmp_path / "bare.parquet")
    log = generic_logs.read_log(tmp_path / "bare.parquet", {"action": "card"})
    with pytest.raises(SupportError, match="the log has no propensity; expected a column of that name"):
        log.choices(np.full(3, 1 / 3))
    np.testing.assert_allclose(log.logged_at("uniform").propensity, 1 / 3)
    often = log.logged_at("frequency")
    np.testing.assert_allclose(often.propensity, (np.bincount(log.action) / 200)[log.action])
    assert estimate("ips", often.choices(generic_logs.frequency(log)[:, 0])).value == pytest.approx(log.reward.mean())


@pytest.mark.parametrize(
    ("text", "mapping", "error", "message"),
    [
        ("a,reward\nx,1\n", {}, DataError, "has no column 'action'; expected some of a, reward"),
        ("action,reward\nx,1\n", {"price": "reward"}, DataError, "mapping has 'price'; expected some of action"),
        ("action,reward\nx,yes\n", {}, DataError, "column reward holds string; expected numbers"),
        ("action,reward\nx,1\ny,\n", {}, DataError, "reward in row 2 is missing or not finite"),
        ("action,reward,propensity\nx,1,0.5\ny,0,0\n", {}, SupportError, "propensity in row 2 is 0.0"),
        ("action,reward\n", {}, DataError, "has no rows; expected at least one choice"),
    ],
)
def test_logs_that_cannot_be_used_are_refused_with_the_row(
    tmp_path: Path, text: str, mapping: dict[str, str], error: type[Exception], message: str
) -> None:
    file = tmp_path / "log.csv"
    file.write_text(text)
    with pytest.raises(error, match=message):
        generic_logs.read_log(file, mapping)
