"""A run that version 0.1 made opens, serves, evaluates, upgrades and rolls back with the present code."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from places import ROOT

EARLIER = ROOT / "tests/data/run_0_1"
EXPECTED = json.loads((EARLIER / "expected.json").read_text())
SURFACE = json.loads((EARLIER / "surface.json").read_text())
COMPATIBILITY = ROOT / "docs/compatibility.md"
KEY = {"x-api-key": "a key"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it was left. Copy it before writing to it."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER / "run.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


@pytest.fixture
def run(unpacked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked, tmp_path / "run", symlinks=True))


@pytest.fixture
def service_of(client_of: Callable[..., Any]) -> Callable[[Path], Any]:
    from api.run.settings import load_settings
    from api.service.service import open_service

    @contextmanager
    def serve(run: Path) -> Iterator[Client]:
        settings = load_settings({"serve": {"admin_key": KEY["x-api-key"]}}, file=EARLIER / "bart.toml")
        with open_service(run, settings) as service, client_of(service) as client:
            yield client

    return serve


def bart(*arguments: str | Path) -> int:
    from api.cli import main

    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    return int(stopped.value.code or 0)


def page_of(client: Client, user: str) -> dict[str, Any]:
    """The page of a user at the time and seed of expected.json, in the words of expected.json."""
    ask = {"user_id": user, "device": "mobile", "tz": "Europe/Stockholm"}
    forced = {"seed": EXPECTED["pages"][user]["seed"], "at": "2025-02-24T19:30:00Z"}
    answer = client.post("/v1/home?debug=true", json=ask | forced, headers=KEY)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    return {
        "arm": page["debug"]["arm"],
        "seed": forced["seed"],
        "propensity": page["debug"]["propensity"],
        "shelves": {
            shelf["key"] + str(sorted(shelf["parameters"].items())): [card["item_id"] for card in shelf["cards"]]
            for shelf in page["shelves"]
        },
    }


def test_its_bundles_and_its_log_verify(run: Path) -> None:
    for bundle in (run / "bundle", *(path for path in (run / "bundles").iterdir() if path.is_dir())):
        assert bart("bundle", "verify", bundle) == 0
    assert bart("log", "verify", run / "log.sqlite") == 0
    assert bart("log", "verify", run / "log") == 0


def test_it_serves_the_pages_that_the_earlier_version_served(run: Path, service_of: Callable[[Path], Any]) -> None:
    with service_of(run) as client:
        for user, expected in EXPECTED["pages"].items():
            found = page_of(client, user)
            assert found["propensity"] == pytest.approx(expected["propensity"], rel=1e-12)
            assert found | {"propensity": 0} == expected | {"propensity": 0}


def test_it_takes_feedback_for_pages_of_both_versions(run: Path, service_of: Callable[[Path], Any]) -> None:
    """The window of an earlier page is over, so what comes for it is kept as late; that of a fresh one is open."""
    from bart.log.decision_log import DecisionLog

    with closing(DecisionLog(run / "log.sqlite")) as log:
        earlier = [decision.request_id for decision in log.decisions()][-1]
    with service_of(run) as client:
        fresh = client.post("/v1/home", json={"user_id": "listener 4"}, headers=KEY).json()["request_id"]
        for page, becomes in ((earlier, "late"), (fresh, "accepted")):
            event = {"event_id": "late", "row": 0, "column": 0, "seen": True, "listened_s": 44.0}
            answer = client.post("/v1/feedback", json={"request_id": page, "events": [event]}, headers=KEY)
            assert answer.status_code == 202, answer.text
            assert answer.json()[becomes] == 1, answer.text
    assert bart("log", "verify", run / "log.sqlite") == 0


def test_its_export_evaluates_to_the_same_estimates(run: Path, tmp_path: Path) -> None:
    policies = ["--policy", f"{run}/bundle:0.05", "--policy", "popularity:0.3"]
    assert bart("evaluate", run / "log", *policies, "--seed", "1", "--out", tmp_path / "report") == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    found = {
        policy["name"].replace(f"{run}/", ""): {name: one["value"] for name, one in policy["estimates"].items()}
        for policy in report["policies"]
    }
    assert found.keys() == EXPECTED["values"].keys()
    for policy, values in EXPECTED["values"].items():
        assert found[policy].keys() == values.keys()
        for name, value in values.items():
            # What pages are predicted to earn is fitted otherwise since; what the log alone says has not moved.
            near = {"rel": 0.05} if name in ("dm", "dr") else {"rel": 1e-9}
            assert found[policy][name] == pytest.approx(value, **near), (policy, name)


def test_it_is_upgraded_learns_on_and_rolls_back_to_the_same_pages(
    run: Path, service_of: Callable[[Path], Any]
) -> None:
    before = (run / "bundle").resolve().name
    assert bart("log", "migrate", run / "log.sqlite") == 0
    assert bart("log", "migrate", run / "log") == 0
    assert bart("bundle", "migrate", run / "bundle") == 0
    assert bart("retrain", run, "--config", EARLIER / "bart.toml") in (0, 3)  # few pages: a gate may refuse
    made = {path.name for path in (run / "bundles").iterdir() if path.is_dir()}
    new = max(made)
    assert new > before
    if (run / "bundle").resolve().name == before:
        assert bart("bundle", "activate", run, new, "--force") == 0
    for name in made:
        assert bart("bundle", "verify", run / "bundles" / name) == 0
    assert bart("log", "verify", run / "log.sqlite") == 0
    with service_of(run) as client:
        assert page_of(client, "listener 4")["shelves"]
    assert bart("bundle", "rollback", run) == 0
    assert (run / "bundle").resolve().name == before
    with service_of(run) as client:
        assert page_of(client, "listener 4")["shelves"] == EXPECTED["pages"]["listener 4"]["shelves"]


def test_every_call_of_the_earlier_version_takes_and_answers_what_it_did() -> None:
    from api.http.app import app_of
    from api.run.settings import load_settings

    document = app_of(nullcontext(None), load_settings()).openapi()  # type: ignore[arg-type]
    schemas = document["components"]["schemas"]
    for name, earlier in SURFACE["calls"].items():
        method, path = name.split()
        call = document["paths"][path][method.lower()]
        assert set(earlier["answers"]) <= call["responses"].keys(), name
        assert set(earlier["parameters"]) <= {one["name"] for one in call.get("parameters", [])}, name
        if earlier["takes"]:
            body = schemas[call["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]]
            assert set(earlier["takes"]) <= body["properties"].keys(), name


def test_every_command_of_the_earlier_version_has_its_flags() -> None:
    import typer

    from api.cli import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, set[str]]]:
        for key, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {key}", inner)
        yield name, {word for one in command.params for word in (*one.opts, *one.secondary_opts)}

    present = dict(walk("bart", typer.main.get_command(app)))
    for name, flags in SURFACE["commands"].items():
        assert set(flags) <= present[name], name


def test_every_setting_of_the_earlier_version_is_one_with_the_same_default_or_the_listed_one() -> None:
    from api.run.settings import load_settings

    settings, changed = load_settings(), changed_defaults()
    assert load_settings(SURFACE["settings"]), "a value that was the default is still taken"
    for section, values in SURFACE["settings"].items():
        for name, value in values.items() if isinstance(values, dict) else ():
            there = getattr(settings, section)
            found = there[name] if isinstance(there, dict) else getattr(there, name)
            earlier, now = changed.pop(f"{section}.{name}", (value, value))
            assert earlier == value, f"{section}.{name}"
            assert (list(found) if isinstance(found, tuple) else found) == now, f"{section}.{name}"
    assert not changed, "docs/compatibility.md lists settings that the earlier version did not have"


def changed_defaults() -> dict[str, tuple[Any, Any]]:
    """{setting: (earlier, now)} where the default is another one, as docs/compatibility.md lists it with its reason."""
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (\S+) \| (\S+) \| (.+) \|$", COMPATIBILITY.read_text(), re.MULTILINE)
    assert all(len(reason) > 20 for *_, reason in rows)
    return {name: (json.loads(earlier), json.loads(now)) for name, earlier, now, _ in rows}
