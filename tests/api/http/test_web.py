"""The home page in a real browser: what is shown, what a hand does, and what the service learns of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CARDS = "document.querySelectorAll('.card').length"
TITLES = "[...document.querySelectorAll('main h2')].map(e => e.textContent)"


@pytest.fixture(scope="module")
def served(chromium: Any, built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A service on a port of this machine, and its address."""
    run = Path(shutil.copytree(built_run, tmp_path_factory.mktemp("web") / "run", symlinks=True))
    with chromium.serving(run, {"page": {"rows": 4, "columns": 5}}) as (state, address):
        yield state.service, address


@pytest.fixture
def home(served: tuple[Any, str], tab: Any) -> Iterator[Any]:
    """A page of listener-03 with cards behind "more" in its first row; a script that fails fails the test."""
    tab.sign_in(served[1], served[0].run.paths.root)
    tab.errors.clear()
    for _ in range(60):  # which shelves stand first is drawn, and some have only a card or two
        tab.open(f"{served[1]}/?user=listener-03")
        tab.wait(f"{CARDS} > 5")
        first, second = (last_decision(served[0]).page.card[:2] >= 0).sum(axis=1)
        if first > 5 and second > 1:
            break
    yield tab
    assert tab.errors == []


def last_decision(service: Any) -> Any:
    return list(service.log.decisions())[-1]


def feedback(service: Any, request_id: str, done: Any) -> Any:
    """The joined feedback of a page, once it is as expected."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        joined = service.log.joined(request_id)
        if joined is not None and done(joined):
            return joined
        time.sleep(0.05)
    pytest.fail(f"feedback stays {joined}")


def test_the_page_shows_the_shelves_and_cards_that_were_decided(served: tuple[Any, str], home: Any) -> None:
    decision = last_decision(served[0])
    assert decision.user_id == "listener-03"
    assert home.run(TITLES) == [decision.shelves[number].title for number in decision.page.shelf.tolist()]
    items = served[0].run.items
    shown = [decision.item_id[card] for row in decision.page.card.tolist() for card in row if card >= 0]
    titles = [items.title[items.row_of[item]] for item in shown]
    assert home.run("[...document.querySelectorAll('.card b')].map(e => e.textContent)") == titles
    assert home.run("document.querySelectorAll('.card svg').length") == len(shown)
    assert home.run("document.getElementById('shelves').getAttribute('aria-busy')") == "false"


def test_what_comes_into_view_is_reported_as_seen_and_nothing_else(served: tuple[Any, str], tab: Any) -> None:
    tab.open(f"{served[1]}/?user=listener-04", width=500, height=700)
    tab.wait(f"{CARDS} > 5")
    request_id = last_decision(served[0]).request_id
    joined = feedback(served[0], request_id, lambda f: f.displayed and f.seen[0, 0])
    assert not joined.seen[-1].any()  # far below the fold
    tab.run("document.querySelector('main section:last-child').scrollIntoView()")
    feedback(served[0], request_id, lambda f: f.seen[-1, 0])


def test_playing_saving_and_skipping_are_reported_and_move_the_next_page(served: tuple[Any, str], home: Any) -> None:
    service = served[0]
    before = last_decision(service)
    title = home.run('document.querySelector(\'[data-row="1"][data-column="0"] b\').textContent')
    home.click('[data-row="1"][data-column="0"]')
    home.wait("!document.getElementById('player').hidden")
    assert home.run("document.getElementById('playing').textContent") == title
    home.click("#save")
    assert home.run("document.getElementById('save').getAttribute('aria-pressed')") == "true"
    time.sleep(0.3)
    home.click("#skip")
    assert home.run("document.getElementById('player').hidden")
    joined = feedback(service, before.request_id, lambda f: f.saved[1, 0])
    assert 0.2 < joined.listened_s[1, 0] < 30
    assert joined.skipped[1, 0] == 1
    home.click('[data-row="1"][data-column="1"]')
    time.sleep(0.3)
    home.click("#stop")
    feedback(service, before.request_id, lambda f: f.skipped[1, 1] == 0)
    home.click("#who button")
    home.wait(f"{CARDS} > 5")
    until = time.monotonic() + 20
    while (after := last_decision(service)).request_id == before.request_id and time.monotonic() < until:
        time.sleep(0.05)
    assert after.user_id == "listener-03"
    heard = [before.item_id[before.page.card[1, column]] for column in (0, 1)]
    rows = service.run.items.rows(heard)
    recent = service.listening.listener("listener-03", after.context).recent
    assert recent[0] == rows[1]  # what was played, and not what was skipped
    assert not (after.listener == before.listener).all()


def test_the_page_says_why_a_card_is_there(served: tuple[Any, str], home: Any) -> None:
    decision = last_decision(served[0])
    home.click('[data-row="0"][data-column="1"]')
    home.click("#why")
    home.wait("document.getElementById('reasons').open")
    text = home.run("document.getElementById('reasons-text').textContent")
    assert decision.shelves[int(decision.page.shelf[0])].title in text
    card = int(decision.page.card[0, 1])
    for share in (decision.raw_score[card], decision.page.card_propensity[0, 1]):
        assert f"{100 * share:.{1 if share < 0.1 else 0}f} %" in text  # one decimal below 10 %, as the page writes it
    others = home.run("[...document.querySelectorAll('#reasons h3')].map(e => e.textContent)")
    assert others == ["What speaks for it, and against", "What else could have stood here", "Its neighbours"]
    mine = decision.score[decision.shelf == decision.page.shelf[0]]
    rank = int((mine > decision.score[card]).sum())
    assert f"{'first' if rank == 0 else f'number {rank + 1}'} of {len(mine)} on its shelf" in text
    home.press("Escape")
    assert not home.run("document.getElementById('reasons').open")


def test_without_the_key_the_page_offers_to_begin_and_names_the_link(
    served: tuple[Any, str], tab: Any, pictures: Path
) -> None:
    tab.open(served[1] + "/operate")
    tab.wait(f"document.readyState === 'complete' && location.href === '{served[1]}/operate'")
    tab.run("sessionStorage.clear()")
    tab.errors.clear()
    pages = len(served[0].log)
    for width in (1280, 390):
        tab.open(served[1], width=width)
        tab.wait("location.pathname === '/' && document.getElementById('welcome')?.hidden === false")
        assert "bart serve" in tab.run("document.getElementById('welcome').textContent")
        assert len(served[0].log) == pages
        tab.screenshot(pictures / f"welcome-{width}.png")
        assert tab.axe() == []
    tab.click("#begin")
    tab.wait("document.getElementById('picker').open")
    tab.click('#picker input[value="folk"]')
    tab.click("#picked")
    tab.wait(f"{CARDS} > 5")
    assert tab.run("document.getElementById('welcome').hidden")
    assert tab.errors == []


def test_the_link_gives_the_tab_the_key_and_leaves_no_trace_of_it(served: tuple[Any, str], tab: Any) -> None:
    key = (served[0].run.paths.root / "admin.key").read_text().strip()
    tab.open(served[1])
    tab.wait(f"location.href === '{served[1]}/' && document.readyState === 'complete'")  # not what was there before
    tab.run("sessionStorage.clear()")
    tab.open(f"{served[1]}/#key={key}")  # in a tab that shows the page already
    tab.wait(f"{CARDS} > 5")
    assert tab.run("location.href") == f"{served[1]}/"
    assert tab.run("document.querySelectorAll('#listeners option').length") > 5
    assert tab.run("sessionStorage.getItem('bart-key')") == key


def test_a_new_listener_picks_what_to_begin_with(served: tuple[Any, str], home: Any) -> None:
    home.click("#new")
    home.wait("document.getElementById('picker').open")
    assert home.run("document.getElementById('picked').disabled")
    home.click('#picker input[value="jazz"]')
    home.click("#picked")
    home.wait("document.getElementById('listener').value.startsWith('new-')")
    name = home.run("document.getElementById('listener').value")
    until = time.monotonic() + 20
    while (decision := last_decision(served[0])).user_id != name and time.monotonic() < until:
        time.sleep(0.05)
    row = served[0].run.store.get(name)
    assert row is not None
    assert {served[0].run.items.genres[int(item)] for item in row.favourite} == {("jazz",)}
    home.wait(f"{CARDS} > 5")
    home.wait(f"{TITLES}.length === {len(decision.page.shelf)}")  # until the old page has given way


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_fits_its_width_and_can_be_read(
    served: tuple[Any, str], tab: Any, pictures: Path, width: int, dark: bool
) -> None:
    tab.errors.clear()
    tab.open(f"{served[1]}/?user=listener-05", width=width, height=844, dark=dark)
    tab.wait(f"{CARDS} > 5")
    assert tab.run("document.documentElement.scrollWidth") <= width
    for part in ("h1", "h2", ".head p", ".card b", ".card span", "label", "#who button"):
        assert tab.run(CONTRAST % part) >= 4.5, part
    assert tab.run("Math.min(...[...document.querySelectorAll('#who button')].map(e => e.offsetHeight))") >= 40
    assert tab.run("[...document.querySelectorAll('.card b')].every(e => e.scrollWidth <= e.clientWidth)")
    picture = pictures / f"home-{width}-{'dark' if dark else 'light'}.png"
    tab.screenshot(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert tab.errors == []


def test_everything_that_can_be_operated_has_a_name_and_is_reached_by_keyboard(home: Any) -> None:
    nodes = home.accessibility()
    operable = [n for n in nodes if n["role"]["value"] in ("button", "textbox", "combobox", "link", "progressbar")]
    assert len(operable) > 10
    assert [node for node in operable if not node["name"]["value"]] == []
    levels = [n["name"]["value"] for n in nodes if n["role"]["value"] == "heading"]
    assert levels[0].startswith("Good")
    assert levels[1:] == home.run(TITLES)
    lists = [n for n in nodes if n["role"]["value"] == "list"]
    assert [node["name"]["value"] for node in lists] == home.run(TITLES)
    reached: list[str] = []
    for _ in range(14):
        home.press("Tab")
        reached.append(home.run("document.activeElement.id || document.activeElement.className"))
    assert reached[0] == "skip"
    assert {"listener", "new", "card"} <= set(reached)
    home.run("document.querySelector('.card').focus()")
    home.press("Enter")
    home.wait("!document.getElementById('player').hidden")


def test_the_page_is_small_and_asks_nobody_else(served: tuple[Any, str], home: Any) -> None:
    found = home.run("performance.getEntriesByType('resource').map(e => [e.name, e.decodedBodySize])")
    assert all(name.startswith(served[1] + "/") for name, _ in found)
    page = home.run("performance.getEntriesByType('navigation')[0].decodedBodySize")
    assert 0 < page + sum(size for _, size in found) < 150_000


def test_more_reveals_cards_that_were_decided_with_the_page_each_with_its_propensity(
    served: tuple[Any, str], home: Any
) -> None:
    decision = last_decision(served[0])
    assert decision.columns == 10  # twice what the settings show
    visible = "[...document.querySelectorAll('section:first-child .card')].filter(e => e.offsetWidth).length"
    n = int((decision.page.card[0] >= 0).sum())
    assert n > 5
    assert home.run(visible) == 5
    home.click("section:first-child .more")
    assert home.run(visible) == n
    assert home.run("document.activeElement.dataset.column") == "5"
    assert home.run("document.querySelector('section:first-child .more')") is None
    assert np.isfinite(decision.page.card_propensity[0, :n]).all()
    feedback(served[0], decision.request_id, lambda f: f.seen[0, 5])
    assert not served[0].log.joined(decision.request_id).seen[1, 5:].any()


def test_a_page_of_another_hour_is_of_that_hour_and_recorded_as_forced(served: tuple[Any, str], home: Any) -> None:
    assert not last_decision(served[0]).forced
    home.click("#context summary")
    home.run("(h => { h.value = '23'; })(document.getElementById('hour'))")
    home.run("(h => { h.value = '6'; })(document.getElementById('weekday'))")
    home.run("(h => { h.value = 'radio'; })(document.getElementById('surface'))")
    home.click("#who button")
    home.wait("!document.getElementById('forced').hidden")
    decision = last_decision(served[0])
    assert decision.forced
    assert (decision.context.local_time.hour, decision.context.local_time.weekday()) == (23, 5)
    assert decision.context.surface == "radio"
    assert home.run("document.getElementById('greeting').textContent") == "Good evening"


def test_after_a_play_the_page_offers_to_follow_and_does(served: tuple[Any, str], home: Any) -> None:
    before = last_decision(served[0])
    home.click('[data-row="0"][data-column="0"]')
    home.click("#stop")
    home.wait("!document.getElementById('follow').hidden")
    home.click("#refresh")
    home.wait("document.getElementById('follow').hidden")
    after = last_decision(served[0])
    assert after.request_id != before.request_id
    # A session that another page left running may have moved the page before as well: what is stored has heard of none.
    stored = served[0].run.store.listener(after.user_id, after.context).vector
    assert (after.listener != stored).any()
    assert home.run(TITLES) == [after.shelves[number].title for number in after.page.shelf.tolist()]


def test_axe_finds_nothing_on_the_page_its_dialogs_and_its_player(home: Any) -> None:
    pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    assert home.axe() == []
    home.click("#context summary")
    home.click('[data-row="0"][data-column="1"]')
    assert home.axe() == []
    home.click("#why")
    home.wait("document.getElementById('reasons').open")
    assert home.axe() == []
    home.press("Escape")
    home.click("#stop")
    home.click("#new")
    home.wait("document.getElementById('picker').open")
    assert home.axe() == []


# Contrast of a text against what lies behind it, as WCAG defines it.
CONTRAST = """(selector => {
  const light = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const element = document.querySelector(selector);
  let behind = element;
  while (behind.parentElement && rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const [a, b] = [rgb(getComputedStyle(element).color), rgb(getComputedStyle(behind).backgroundColor)].map(luminance);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})(%r)"""


def test_a_cover_is_fetched_late_and_drawn_where_it_cannot_be_had(served: tuple[Any, str], tab: Any) -> None:
    from small_png import png

    folder = served[0].run.paths.root / "covers"
    folder.mkdir(exist_ok=True)
    (folder / "x.png").write_bytes(png())
    tab.open(f"{served[1]}/operate")
    tab.wait("!!document.getElementById('key')")
    made = tab.run(
        "import('/static/cover.js').then(async ({cover}) => { const box = document.createElement('div');"
        "document.querySelector('header').before(box);"
        "const images = ['/covers/x.png', '/covers/none.png', 'https://elsewhere.example/x.png', undefined];"
        "box.append(...images.map(image => cover({item_id: 'i', artists: [], image})));"
        "const late = box.firstChild.loading;"
        "const made = () => box.querySelectorAll('svg').length === 3 && box.firstChild.complete;"
        "while (!made()) await new Promise(then => setTimeout(then, 50));"
        "return [late, ...[...box.children].map(one => one.naturalWidth || one.tagName)]; })"
    )
    assert made == ["lazy", 1, "svg", "svg", "svg"]
    assert any("elsewhere.example" in error for error in tab.errors)  # the policy of the page says no
    tab.errors.clear()
