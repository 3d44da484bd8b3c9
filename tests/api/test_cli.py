"""A user's mistake is one line on stderr and exit 2, never a traceback; a failed check is exit 1."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from api.cli import app, main


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sreve"], "No such command 'sreve'"),
        (["demo", "--listenrs", "4"], "No such option: --listenrs"),
        (["demo", "--seed", "x"], "Invalid value for '--seed'"),
        (["demo", "--visits", "5"], "setting world.visits is 5"),
        (["demo", "--browsing", "W9"], "expected one of W1"),
        (["build"], "Missing option '--events'"),
        (["build", "--events", "no.csv", "--out", "run"], "no.csv does not exist"),
        (["build", "--events", "no.csv", "--out", "run", "--map", "user"], "is not of the form ours=theirs"),
        (["check", "no.csv"], "no.csv does not exist"),
        (["serve", "--run", "nowhere"], "nowhere does not exist; expected a run"),
        (["evaluate", "nowhere"], "nowhere is not a directory; expected an exported log"),
        (["evaluate", "open-bandit", "--policy", "x"], "--policy does not go with open-bandit"),
        (["train", "log", "--base", "nowhere", "--out", "b"], "nowhere is not a bundle"),
        (["bundle", "show", "nowhere"], "nowhere is not a bundle"),
        (["bundle", "verify", "nowhere"], "nowhere is not a bundle"),
        (["log", "verify", "no.sqlite"], "no.sqlite does not exist"),
        (["log", "export", "no.sqlite", "--out", "o"], "no.sqlite does not exist"),
        (["log", "prune", "no.sqlite", "--older-than", "soon"], "expected whole days such as 90d"),
        (["simulate", "--out", "events.csv"], "does not end in .parquet"),
        (["init", "--out", "nowhere/bart.toml"], "nowhere/bart.toml: no such file or directory"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(arguments, capsys)
    assert code == 2
    assert message in err
    assert err.startswith("bart: ")
    assert err.count("\n") == 1


def test_wrong_columns_are_named_with_those_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plays.csv").write_text("who,what,when\na,b,2024-01-01\n")
    code, _, err = run(["check", "plays.csv"], capsys)
    assert code == 2
    assert "who" in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_a_log_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("log.sqlite").write_text("not a database, but long enough to look at" * 50)
    code, _, err = run(["log", "verify", "log.sqlite"], capsys)
    assert code == 2
    assert "log.sqlite" in err


def test_the_demo_does_not_write_over_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    code, _, err = run(["demo", "--out", "mine"], capsys)
    assert code == 2
    assert "mine exists and is not a demonstration" in err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_init_writes_once_and_over_it_only_when_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init"], capsys)[0] == 0
    assert run(["init"], capsys)[0] == 2
    assert run(["init", "--force"], capsys)[0] == 0


def test_help_lists_every_command() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "api.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in ("init", "demo", "build", "check", "simulate", "serve", "train", "evaluate", "log", "bundle"):
        assert f"  {command} " in text


def test_every_command_but_those_that_need_no_settings_takes_a_settings_file() -> None:
    def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
        for name, one in group.commands.items():
            if hasattr(one, "commands"):
                yield from commands(one, (*words, name))
            else:
                yield " ".join((*words, name)), one

    every = dict(commands(typer.main.get_command(app)))
    assert len(every) > 30
    without = {name for name, one in every.items() if "config" not in {param.name for param in one.params}}
    assert without == {"init", "compile", "arena run", "arena export"}  # the arena is the same whatever is set


def test_compile_goes_through_every_stage_and_says_where_the_code_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["compile"], capsys)
    assert code == 0, err
    assert int(re.search(r"machine code of (\d+) functions is kept beside the source", out)[1]) > 30  # type: ignore[index]
