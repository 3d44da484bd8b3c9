"""What stands in deploy/ fits the code: the image's steps, the commands of the units, the metrics of the alerts."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from places import ROOT

from api.cli import app
from api.run.checked import settings_of
from api.run.settings import Settings, load_settings
from api.service.service import open_service

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest), continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, rest in lines]


def words(rest: str) -> list[str]:
    """The words of an instruction in its JSON form."""
    found: list[str] = json.loads(rest)
    return found


def parses(command: list[str]) -> None:
    """Raises where the command line does not know the command or an option."""
    root = typer.main.get_command(app)
    context, rest = root.make_context("bart", list(command), resilient_parsing=True), list(command)
    while hasattr(root, "commands"):
        root = root.commands[rest.pop(0)]
    known = {option for parameter in root.params for option in getattr(parameter, "opts", [])}
    given = {word for word in rest if word.startswith("--")}
    assert given <= known, f"{' '.join(command)}: {sorted(given - known)}"
    context.close()


def test_the_images_steps_can_be_followed_and_give_a_working_command(tmp_path: Path) -> None:
    for name, rest in instructions():
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                found = ROOT / source
                assert found.exists(), f"COPY {source}: not in the repository"
                to = tmp_path / target / source if target.endswith("/") else tmp_path / target
                if found.is_dir():
                    shutil.copytree(found, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(found, to)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (tmp_path / package / "__init__.py").is_file()
    for source in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert (tmp_path / source).exists()
    for file in (project["project"]["readme"], *project["project"]["license-files"], "constraints.txt"):
        assert (tmp_path / file).is_file()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import api.cli, sys; assert api.__file__.startswith(sys.argv[1]), api.__file__; api.cli.main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_the_image_starts_a_command_that_there_is_with_settings_that_there_are() -> None:
    found = dict(instructions())
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert words(found["ENTRYPOINT"]) == list(script)
    parses(words(found["CMD"]))
    given = re.findall(r"BART_([A-Z_]+?)__([A-Z_]+)=(\S+)", "\n".join(rest for _, rest in instructions()))
    for section, name, value in given:
        assert name.lower() in settings_of(type(getattr(Settings(), section.lower())))
        load_settings({section.lower(): {name.lower(): value}})
    assert any(section == "SERVE" and name == "HOST" for section, name, _ in given)
    minor = int(re.search(r"python:3\.(\d+)", found["FROM"]).group(1))  # type: ignore[union-attr]
    assert 10 <= minor < 13


@pytest.mark.parametrize("unit", sorted(path.name for path in DEPLOY.glob("*.service")))
def test_a_units_command_and_its_options_are_known(unit: str) -> None:
    lines = (DEPLOY / unit).read_text().splitlines()
    (command,) = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
    program, *rest = shlex.split(command)
    assert Path(program).name == "bart"
    parses(rest)


def test_the_alerts_ask_for_metrics_that_the_service_has_and_the_runbook_knows_them(small_run: Path) -> None:
    text = (DEPLOY / "alerts.yml").read_text()
    with open_service(small_run, load_settings({})) as service:
        exported = service.metrics.text().decode()
    for name in set(re.findall(r"\bbart_[a-z_]+\b", text)):
        # A metric by label has no sample before its first event, but its type is told from the start.
        assert re.search(rf"^(# TYPE )?{name}(\{{|\s)", exported, re.MULTILINE), f"{name} is not exported"
    runbook = (ROOT / "docs" / "operations.md").read_text()
    alerts = re.findall(r"alert: (\w+)", text)
    assert len(alerts) >= 8
    for alert in alerts:
        assert f"| {alert} |" in runbook, f"{alert} is not in the runbook"
