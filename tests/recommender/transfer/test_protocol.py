"""What is asked, of whom, and that nothing of the week that is predicted reaches what predicts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from user_world import DAY_S, UserWorld, user_world

from bart.errors import DataError
from recommender.shelves.items import read_items
from recommender.transfer.cold import first_hours
from recommender.transfer.kinds import KINDS
from recommender.transfer.protocol import Prepared, ProtocolConfig, ask, prepare
from recommender.transfer.task import TRIALS
from recommender.transfer.whole import StudyConfig, run_study, write_study
from recommender.users.encoder import EncoderConfig

TINY = StudyConfig(
    trials=TRIALS[:1], negatives=("uniform",), encoder=EncoderConfig(dimension=8, hidden=16, epochs=3, batch=64)
)


@pytest.fixture(scope="module")
def world() -> UserWorld:
    return user_world(users=60, days=24)


def prepared_of(world: UserWorld, events: pa.Table | None = None) -> Prepared:
    names = pa.table({"item_id": world.items.item_id.tolist(), "artist": [f"a{k % 20}" for k in range(200)]})
    return prepare(
        world.events if events is None else events,
        read_items(names).items,
        None,
        accounts_of(world),
        ProtocolConfig(tracks=10),
        np.random.default_rng(0),
    )


def accounts_of(world: UserWorld) -> pa.Table:
    of = world.accounts
    users = sorted(of.made_at_s)
    return pa.table(
        {
            "user_id": users,
            "joined_at": pa.array([of.made_at_s[user] * 1_000_000 for user in users], pa.timestamp("us", "UTC")),
            "country": [of.country.get(user) for user in users],
            "onboarding": [list(of.picked.get(user, ())) for user in users],
        }
    )


@pytest.fixture(scope="module")
def prepared(world: UserWorld) -> Prepared:
    return prepared_of(world)


def test_the_week_that_is_predicted_moves_nothing_that_predicts_it(world: UserWorld, prepared: Prepared) -> None:
    started = world.events["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
    item = np.array(world.events["item_id"].to_pylist(), dtype=object)
    after = started >= prepared.cut_s
    item[after] = np.random.default_rng(1).permutation(item[after])
    other = world.events.set_column(1, "item_id", pa.array(item.tolist()))
    again = prepared_of(world, other)
    np.testing.assert_array_equal(again.now.value, prepared.now.value)
    np.testing.assert_array_equal(again.side, prepared.side)
    np.testing.assert_array_equal(again.lessons.mean, prepared.lessons.mean)
    for kind in KINDS.values():
        np.testing.assert_array_equal(kind(again, 4, 1), kind(prepared, 4, 1))


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_pairs_are_of_the_week_beside_others_and_never_heard_beside_never_heard(
    prepared: Prepared, power: float
) -> None:
    asked = ask(prepared, power, np.random.default_rng(2))
    place = {int(user): number for number, user in enumerate(prepared.now.listener)}
    parts = [set(pairs.user.tolist()) for pairs in (asked.train, asked.valid, asked.test)]
    assert not parts[0] & parts[2]
    assert not (parts[0] | parts[2]) & parts[1]
    for user, item, played, new in zip(asked.test.user, asked.test.item, asked.test.played, asked.new, strict=True):
        week = prepared.later.of(place[int(user)])
        assert (item in week) == bool(played)
        heard = prepared.plays[int(user), int(item)] > 0
        assert not (new and heard)
        if played:
            assert new == (not heard)
    assert asked.test.played.mean() == 0.5


def test_first_hours_of_who_was_there_before_end_before_the_cut(prepared: Prepared) -> None:
    first = first_hours(prepared)
    assert first.old.all()
    assert all(len(item) for item in first.item)


def test_an_account_made_within_the_data_is_a_newcomer_and_teaches_nothing(world: UserWorld) -> None:
    user = sorted(world.accounts.made_at_s)[0]
    late = {**world.accounts.made_at_s, user: world.accounts.made_at_s[user] + 5 * DAY_S}
    moved = replace(world, accounts=replace(world.accounts, made_at_s=late))
    own = np.array(world.events["user_id"].to_pylist()) == user
    started = world.events["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
    made = prepared_of(moved, world.events.filter(pa.array(~own | (started >= late[user]))))
    first = first_hours(made)
    assert {made.user_id[k] for k in first.listener[first.old == 0].tolist()} == {user}
    assert len(made.lessons.value) == (len(prepared_of(world).lessons.value) // 60) * 59


def test_too_few_listeners_are_refused_in_one_line(world: UserWorld) -> None:
    few = np.isin(world.events["user_id"].to_pylist(), [f"listener-{k:03d}" for k in range(5)])
    with pytest.raises(DataError, match="expected 20"):
        prepared_of(world, world.events.filter(pa.array(few)))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match="'BPR2' is unknown"):
        StudyConfig(kinds=("BPR2",))


def test_a_study_compares_all_kinds_and_says_where_it_came_from(prepared: Prepared, tmp_path: Path) -> None:
    found = run_study(prepared, TINY, seed=1, seeds=2)
    text = write_study(tmp_path, found)
    for kind in ("encoder", *KINDS):
        assert f"| {kind} |" in text
    assert set(found["clusters"]) == {"favourite artists", "country of most listened artists"} | (
        {"onboarding"} if "onboarding" in found["clusters"] else set()
    )
    assert (tmp_path / "users.json").is_file()
    average = found["task"]["uniform"]["average"]["auc"]
    assert average["interval"][0] <= average["gain"] <= average["interval"][1]
    assert found["without"][""]["auc"] > 0.5


def test_where_the_week_is_shuffled_nothing_is_predicted(world: UserWorld) -> None:
    """Every play is of an item drawn anew: no listener has a taste."""
    rng = np.random.default_rng(3)
    item = rng.choice(world.items.item_id, len(world.events))
    shuffled = prepared_of(world, world.events.set_column(1, "item_id", pa.array(item.tolist())))
    study = replace(TINY, kinds=("average",), ablate=False)
    auc = np.stack(run_study(shuffled, study, seed=1, seeds=1)["values"]["task"]["uniform"]["encoder"]["auc"])
    error = auc.std() / np.sqrt(auc.size)
    assert abs(auc.mean() - 0.5) < 4 * error
