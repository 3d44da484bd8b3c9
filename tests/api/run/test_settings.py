"""Flags win over the environment, the environment over the file; every mistake is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.run.runs import exploration_of
from api.run.settings import Settings, commented_toml, load_settings
from bart.errors import DataError
from bart.types import ListenerTraits


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bart.toml").write_text("seed = 5\n[page]\nrows = 3\ncolumns = 3\nper_shelf = 11\n")
    monkeypatch.setenv("BART_PAGE__COLUMNS", "4")
    monkeypatch.setenv("BART_PAGE__ROWS", "4")
    settings = load_settings({"page": {"rows": 5, "columns": None}})
    assert (settings.page.rows, settings.page.columns, settings.page.per_shelf, settings.seed) == (5, 4, 11, 5)


def test_the_environment_says_numbers_lists_and_tables_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "BART_SEED": "9",
        "BART_PAGE": '{"rows": 3}',
        "BART_PAGE__COLUMNS": "4",
        "BART_SERVE__DURABLE": "on",
        "BART_EXPLORATION__GREEDY_ROWS": "[0, 1]",
        "BART_EXPERIMENT__NAME": "winter",
        "BART_EXPERIMENT__ARMS__more": '{"share": 0.5}',
        "BART_STORE__NAME": "here",
        "BART_DEBUG": "1",
    }.items():
        monkeypatch.setenv(name, text)
    settings = load_settings()
    assert (settings.seed, settings.page.rows, settings.page.columns, settings.serve.durable) == (9, 3, 4, True)
    assert (settings.exploration.greedy_rows, settings.experiment.arms["more"].share) == ((0, 1), 0.5)
    monkeypatch.setenv("BART_PAGE__ROWZ", "4")
    with pytest.raises(DataError, match=r"setting page\.rowz is '4', which is no setting; expected rows, columns"):
        load_settings()


def test_settings_come_back_from_json_as_they_were_and_an_address_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BART_STORE__URL", "redis://:secret@host/0")
    settings = load_settings({"experiment": {"name": "x", "arms": {"a": {"share": 0.5}}}, "rules": {"pins": []}})
    told = json.dumps(settings.as_dict(leave_out={"serve"}))
    assert "secret" not in told
    assert "serve" not in json.loads(told)
    whole = json.dumps({**settings.as_dict(), "store": settings.store.as_dict()})
    assert Settings.of(json.loads(whole)) == settings


def test_a_named_file_is_read_instead_of_the_one_here(tmp_path: Path) -> None:
    (tmp_path / "bart.toml").write_text("seed = 5\n")
    (tmp_path / "other.toml").write_text("seed = 6\n")
    assert load_settings(file=tmp_path / "other.toml").seed == 6


def test_the_written_file_changes_nothing_and_every_setting_in_it_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "bart.toml").write_text(commented_toml())
    assert load_settings() == load_settings(file=tmp_path / "bart.toml")
    lines = [
        line[2:] if line.startswith("# ") and "=" in line and not line.startswith("# Settings") and " = ..." not in line
        else line
        for line in commented_toml().splitlines()
    ]  # fmt: skip
    (tmp_path / "bart.toml").write_text("\n".join(lines))
    default = load_settings({}, None)
    (tmp_path / "bart.toml").unlink()
    assert default == load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[page]\nrows = 0\n", "setting page.rows is 0"),
        ("[page]\nrwos = 3\n", "setting page.rwos is 3"),
        ("[pgae]\nrows = 3\n", "setting pgae"),
        ("[page\n", "bart.toml"),
        ("[reward]\nweighting = 'heavy'\n", "setting reward.weighting is 'heavy'; expected one of none, conditional"),
        ("[reward]\nname = 'applause'\n", "setting reward.name is 'applause'"),
        ("[page]\nrows = 2.5\n", "setting page.rows is 2.5; expected a whole number"),
        ("[page]\nrows = true\n", "setting page.rows is True; expected a whole number"),
        ("[world]\nepsilon = nan\n", "setting world.epsilon is nan; expected at least 0.01"),
        ("[serve]\ndurable = 'perhaps'\n", "setting serve.durable is 'perhaps'; expected true or false"),
        ("[serve]\nhost = 8000\n", "setting serve.host is 8000; expected a text"),
        ("[exploration]\nsurfaces = {radio = 2}\n", "setting exploration.surfaces.radio is 2.0; expected at most 1"),
        ("[exploration]\ngreedy_rows = [0, -1]\n", "setting exploration.greedy_rows.1 is -1; expected at least 0"),
        ("[shelves.editorial.Fresh]\ntitle = 'a'\nitem_ids = ['1']\n", "setting shelves.editorial.Fresh is 'Fresh'"),
        (
            "[shelves.editorial.fresh]\ntitle = 'a'\n",
            "setting shelves.editorial.fresh.item_ids is None; expected a value",
        ),
        ("[experiment]\narms = {a = {share = 0.5}}\n", "setting experiment.name is ''"),
        ("[experiment]\nname = 'x'\narms = {a = {share = 0.6}, b = {share = 0.6}}\n", "at most 1 together"),
        ("page = 3\n", "setting page is 3; expected a table"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_setting(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bart.toml").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        load_settings()
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match="nowhere.toml does not exist"):
        load_settings(file=Path("nowhere.toml"))


def test_exploration_follows_the_settings(tmp_path: Path) -> None:
    (tmp_path / "bart.toml").write_text(
        "[exploration]\nlowest = 0.02\ngreedy_positions = [0]\nsurfaces = {radio = 0.03, car = 0.6}\n"
    )
    exploration = exploration_of(load_settings())
    rates = {surface: exploration.epsilon(surface, ListenerTraits()) for surface in ("radio", "car", "daily_mix", "x")}
    assert rates == {"radio": 0.03, "car": 0.5, "daily_mix": 0.25, "x": 0.2}
    assert exploration.epsilons("radio", ListenerTraits(), 2, 3)[1].tolist() == [0.0, 0.03, 0.03]
    one = exploration_of(load_settings({"exploration": {"epsilon": 0.9}}))
    assert one.epsilon("radio", ListenerTraits()) == 0.9


def test_a_play_is_the_unit_of_weights_and_a_scale_has_two_ends() -> None:
    assert load_settings({"events": {"weights": {"like": 2, "tip": 5.5}}}).events.weights == {"like": 2, "tip": 5.5}
    with pytest.raises(DataError, match="events.weights.play is 2.*no weight: a play counts 1"):
        load_settings({"events": {"weights": {"play": 2}}})
    with pytest.raises(DataError, match="events.rating_highest is 1.*more than rating_lowest"):
        load_settings({"events": {"rating_lowest": 1, "rating_highest": 1}})
