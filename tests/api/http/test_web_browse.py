"""Items and listeners in a real browser: what is typed is found, what is shown is what the service knows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

READY = "document.body?.dataset.ready === 'yes'"
FOUND = "[...document.querySelectorAll('#found b')].map(e => e.textContent)"


@pytest.fixture(scope="module")
def served(chromium: Any, demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """The state of a service with a log, and its address."""
    run = Path(shutil.copytree(demo_run, tmp_path_factory.mktemp("browse") / "run", symlinks=True))
    with chromium.serving(run, {}) as (state, address):
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
    assert [error for error in tab.errors if "http://" not in error or served[1] in error] == []


def type_in(tab: Any, text: str) -> None:
    tab.run(f"(box => {{ box.value = {text!r}; box.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            "(document.getElementById('text'))")  # fmt: skip
    tab.wait(f"document.body.dataset.listed === {text!r}")


def confirm(tab: Any) -> None:
    tab.wait("document.getElementById('sure').open")
    tab.click("#sure-yes")
    tab.wait("!document.getElementById('sure').open")


def test_an_item_is_found_while_it_is_typed_told_and_taken_down(
    served: tuple[Any, str], page: Callable[..., Any]
) -> None:
    from api.browse.search import ItemSearch

    service = served[0].service
    items = service.run.items
    tab = page("/operate/items")
    assert len(tab.run(FOUND)) == 50
    word = items.title[40].split()[-1][:4]
    type_in(tab, word)
    expected = ItemSearch(items).find(word)
    assert tab.run(FOUND) == items.title[expected.row].tolist()
    assert tab.run("document.getElementById('count').textContent").startswith(f"{expected.count:,} item")
    tab.click("#found li:nth-child(2) a")
    item = str(items.item_id[expected.row[1]])
    tab.wait(f"document.body.dataset.shown === {item!r}")
    assert tab.run("document.getElementById('one-title').textContent") == items.title[expected.row[1]]
    assert tab.run("location.search") == f"?item={item}"
    assert tab.run("document.querySelectorAll('#one .lines a').length") >= 12
    tab.click("#takedown")
    confirm(tab)
    tab.wait("document.getElementById('takedown').textContent === 'Put back'")
    assert service.control.read().taken_down == {item}
    tab.click("#takedown")
    confirm(tab)
    tab.wait("document.getElementById('takedown').textContent === 'Take down'")
    assert service.control.read().taken_down == frozenset()


def test_more_items_are_told_behind_those_that_are_shown(page: Callable[..., Any]) -> None:
    tab = page("/operate/items")
    tab.click("#more")
    tab.wait("document.querySelectorAll('#found a').length === 100")
    assert len(set(tab.run("[...document.querySelectorAll('#found a')].map(a => a.href)"))) == 100


def test_a_listener_is_told_with_pages_and_reasons_asks_for_something_and_is_erased(
    served: tuple[Any, str], page: Callable[..., Any]
) -> None:
    service = served[0].service
    decision = list(service.log.decisions())[-1]
    user = decision.user_id
    tab = page("/operate/listeners")
    type_in(tab, user)
    assert tab.run("[...document.querySelectorAll('#found a')].map(e => e.textContent)") == [user]
    tab.click("#found a")
    tab.wait(f"document.body.dataset.shown === {user!r}")
    tab.click(".page summary")
    tab.wait("document.querySelectorAll('.page[open] .lines button').length > 3")
    shelves = tab.run("[...document.querySelectorAll('.page[open] h4')].map(e => e.textContent)")
    assert shelves == [decision.shelves[number].title for number in decision.page.shelf.tolist()]
    tab.click(".page[open] .lines button")
    tab.wait("document.getElementById('reasons').open")
    assert "Propensity" in tab.run("document.getElementById('reasons-text').textContent")
    tab.press("Escape")
    tab.click("#explicit")
    until = time.monotonic() + 60
    while service.run.store.wishes(user).explicit and time.monotonic() < until:
        time.sleep(0.05)
    assert not service.run.store.wishes(user).explicit
    tab.wait("document.getElementById('explicit').checked === false")
    tab.click("#erase")
    confirm(tab)
    tab.wait(f"document.body.dataset.erased === {user!r}")
    assert service.run.store.get(user) is None
    assert decision.request_id not in {one.request_id for one in service.log.decisions()}


@pytest.mark.parametrize("kind", ["items", "listeners"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_browsers_fit_their_width_and_axe_finds_nothing(
    served: tuple[Any, str], page: Callable[..., Any], pictures: Path, kind: str, width: int, dark: bool
) -> None:
    pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    decision = next(iter(served[0].service.log.decisions()))
    shown = {"items": f"item={decision.item_id[decision.page.card[0, 0]]}", "listeners": f"listener={decision.user_id}"}
    tab = page(f"/operate/{kind}?{shown[kind]}", width=width, dark=dark)
    if kind == "listeners":
        tab.click(".page summary")
        tab.wait("!!document.querySelector('.page[open] .lines button')")
    assert tab.run("document.documentElement.scrollWidth") <= width
    tab.screenshot(pictures / f"{kind}-{width}-{'dark' if dark else 'light'}.png")
    assert tab.axe() == []


def test_without_the_key_nothing_is_told(served: tuple[Any, str]) -> None:
    import httpx

    for path in ("/v1/items", "/v1/items/x", "/v1/listeners?prefix=u", "/v1/listeners/u/profile"):
        assert httpx.get(served[1] + path).status_code == 401
