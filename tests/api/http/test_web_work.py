"""The pages of work in a real browser: an operator throws switches and changes bundles, a simulation is watched."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

READY = "document.body?.dataset.ready === 'yes'"
TEXT = "document.getElementById('%s').textContent"


@pytest.fixture(scope="module")
def served(chromium: Any, demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """The state of a service with a log and a report, and its address."""
    run = Path(shutil.copytree(demo_run, tmp_path_factory.mktemp("work") / "run", symlinks=True))
    with chromium.serving(run, {"page": {"rows": 3, "columns": 3}}) as (state, address):
        yield state, address


@pytest.fixture
def page(served: tuple[Any, str], tab: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; a script that fails fails the test."""

    def open_page(path: str, **how: Any) -> Any:
        tab.sign_in(served[1], served[0].service.run.paths.root)
        tab.errors.clear()
        tab.open(served[1] + path, **how)
        tab.wait(READY)
        return tab

    yield open_page
    # What a page of another module still sent to its own server, which is gone, is no error of this one.
    assert [error for error in tab.errors if "http://" not in error or served[1] in error] == []


def key_of(state: Any) -> dict[str, str]:
    return {"x-api-key": (state.service.run.paths.root / "admin.key").read_text().strip()}


def confirm(tab: Any, why: str) -> None:
    tab.wait("document.getElementById('sure').open")
    tab.run(f"document.getElementById('sure-why').value = {why!r}")
    tab.click("#sure-yes")
    tab.wait("!document.getElementById('sure').open")


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "it stays as it was"
        time.sleep(0.05)


def test_the_operators_page_tells_what_the_log_holds(served: tuple[Any, str], page: Callable[..., Any]) -> None:
    from api.upkeep.operating_figures import figures, watch

    service = served[0].service
    tab = page("/operate")
    expected = figures(watch(service.log, service.run.items, "streamed_30s"))
    shown = tab.run("[...document.querySelectorAll('#tiles strong')].map(e => e.textContent)")
    rate = 100 * expected["total"]["reward_rate"]
    assert shown[0] == f"{rate:.{1 if rate < 10 else 0}f} %"
    assert shown[2] == f"{expected['total']['value']:.2f}"
    assert tab.run("document.querySelectorAll('#charts > figure').length") == 4
    tab.wait("document.querySelectorAll('#charts svg polyline').length >= 6")
    assert tab.run("document.querySelector('#report iframe').getAttribute('sandbox')") == ""


def test_a_switch_is_thrown_after_a_question_and_told_with_its_reason(
    served: tuple[Any, str], page: Callable[..., Any]
) -> None:
    tab = page("/operate")
    tab.click("#switch-explore")
    tab.wait("document.getElementById('sure').open")
    tab.press("Escape")
    tab.wait("!document.getElementById('sure').open")
    assert served[0].service.control.read().explore
    tab.click("#switch-explore")
    confirm(tab, "too bold")
    tab.wait("document.getElementById('switch-explore').getAttribute('aria-checked') === 'false'")
    until(lambda: not served[0].service.controls.explore)
    assert "explore off" in tab.run(TEXT % "history")
    assert "too bold" in tab.run(TEXT % "history")
    tab.click("#switch-explore")
    confirm(tab, "")
    until(lambda: served[0].service.controls.explore)


def test_a_bundle_is_activated_and_rolled_back(served: tuple[Any, str], page: Callable[..., Any]) -> None:
    from api.run.versions import Versions
    from bart.bundle import open_bundle, write_bundle
    from bart.reward.baselines import PriorScorer

    service = served[0].service
    versions = Versions(service.run.paths.root)
    first = versions.active()
    bundle = open_bundle(service.run.paths.bundle)
    ece = {"name": "ece", "value": 0.0123, "bound": 0.05, "passed": True, "text": "calibration error, at most"}
    gate = {"passed": True, "reason": "", "gates": [ece]}
    metrics = {"retrain": gate}
    with write_bundle(versions.draft(), created_at="2026-02-01T00:00:00+00:00", metrics=metrics) as folder:
        for name in ("items", "listener", "index"):
            shutil.copytree(bundle.folder(name), folder / name)
        PriorScorer(service.run.items, taste=5.0).save(folder / "reward")
    other = versions.add(versions.draft())
    tab = page("/operate")
    assert "all gates passed" in tab.run(TEXT % "bundles")
    assert "ece 0.0123 (calibration error, at most 0.0500)" in tab.run(TEXT % "bundles")
    tab.click(f"[data-bundle='{other}']")
    confirm(tab, "it is better")
    tab.wait(f"document.querySelector(\"[data-bundle='{other}']\").textContent === 'Active'")
    assert versions.active() == other
    until(lambda: served[0].service.run.bundle.path.name == other)
    tab.click("#rollback")
    confirm(tab, "it is not")
    tab.wait(f"document.querySelector(\"[data-bundle='{first}']\").textContent === 'Active'")
    assert versions.active() == first


def test_an_item_is_taken_down_and_put_back(served: tuple[Any, str], page: Callable[..., Any]) -> None:
    control = served[0].service.control
    item = str(served[0].service.run.items.item_id[3])
    tab = page("/operate")
    tab.run(f"document.getElementById('item').value = {item!r}")
    tab.click("#takedown button")
    confirm(tab, "")
    tab.wait("!!document.querySelector('#taken code')")
    assert control.read().taken_down == {item}
    tab.click("#taken button")
    tab.wait("!document.querySelector('#taken code')")
    assert control.read().taken_down == frozenset()


def test_the_log_is_verified_on_a_button(served: tuple[Any, str], page: Callable[..., Any]) -> None:
    from bart.log.care.verify import verify

    log = served[0].service.run.paths.log
    tab = page("/operate")
    tab.click("#verify")
    tab.wait("!!document.querySelector('#verified .passed')")
    found = verify(log)
    assert found.ok
    assert f"{found.verified:,} of {found.records:,} records" in tab.run(TEXT % "verified")
    assert tab.run("document.getElementById('verify').disabled") is False


def test_the_report_may_do_nothing_and_is_shown(served: tuple[Any, str]) -> None:
    import httpx

    answer = httpx.get(served[1] + "/v1/operate/report", headers=key_of(served[0]))
    policy = answer.headers["content-security-policy"]
    assert "script" not in policy
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "<script" not in answer.text


def test_a_simulation_is_watched_round_by_round_and_leaves_its_result(
    served: tuple[Any, str], page: Callable[..., Any]
) -> None:
    import httpx

    from simulator.loop.records import LoopResult

    tab = page("/simulate")
    tab.run("document.getElementById('rounds').value = 2; document.getElementById('pages').value = 50")
    tab.click("#start")
    tab.wait("!document.getElementById('progress').hidden")
    key = key_of(served[0])
    again = httpx.post(served[1] + "/v1/simulation", json={"rounds": 1, "pages": 50}, headers=key)
    assert again.status_code == 409
    tab.wait("document.body.dataset.ended === 'done'")
    result = LoopResult.from_dict(httpx.get(served[1] + "/v1/simulation/loop.json", headers=key).json())
    rows = tab.run("[...document.querySelectorAll('#table tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    expected = [(one, name) for one in result.rounds for name in ("exploring", "frozen")]
    assert [row[0] for row in rows] == ["0", "0", "1", "1", "judged", "judged"]
    assert [row[2] for row in rows] == [f"{one.learner(name).exploring.value:.2f}" for one, name in expected]
    assert tab.run("document.querySelectorAll('#charts polyline').length") == 9
    assert httpx.get(served[1] + "/v1/simulation/loop.svg", headers=key).headers["content-type"] == "image/svg+xml"
    assert httpx.get(served[1] + "/v1/simulation/lock", headers=key).status_code == 404
    directory = served[0].service.run.paths.root / "jobs" / "simulation"
    until(lambda: not (directory / "scratch").exists())


def test_a_cancelled_simulation_leaves_nothing(served: tuple[Any, str], page: Callable[..., Any]) -> None:
    tab = page("/simulate")
    tab.click("#start")
    tab.wait("!document.getElementById('cancel').disabled")
    tab.click("#cancel")
    tab.wait("document.body.dataset.ended === 'cancelled'")
    directory = served[0].service.run.paths.root / "jobs" / "simulation"
    assert not served[0].jobs["simulation"].running
    assert sorted(path.name for path in directory.iterdir()) == ["events.jsonl", "lock", "stderr"]


@pytest.mark.parametrize("path", ["/operate", "/simulate"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_pages_of_work_fit_their_width_are_small_and_axe_finds_nothing(
    served: tuple[Any, str], page: Callable[..., Any], pictures: Path, path: str, width: int, dark: bool
) -> None:
    pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    tab = page(path, width=width, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= width
    tab.screenshot(pictures / f"{path[1:]}-{width}-{'dark' if dark else 'light'}.png")
    assert tab.axe() == []
    found = tab.run("performance.getEntriesByType('resource').map(e => [e.name, e.decodedBodySize])")
    assert all(name.startswith(served[1] + "/") for name, _ in found)
    # The report in its frame is a page of its own.
    assert sum(size for name, size in found if not name.endswith("/report")) < 150_000
