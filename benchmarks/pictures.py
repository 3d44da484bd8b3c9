"""Takes the pictures of the pages that docs/ shows: python benchmarks/pictures.py RUN [--out FOLDER] [--only NAMES].

RUN is a run of `bart demo`; it is copied, since pages are decided and listened to. Chromium of Debian, headless, at
1280 and 390 pixels, light and dark; before and after a listener has heard twelve sessions of one genre.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import struct
import tempfile
import time
import urllib.request
import zlib
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

SIZES = ((1280, 900), (390, 844))
CARDS = "document.querySelectorAll('.card').length > 5"
READY = "document.body?.dataset.ready === 'yes'"
GENRE, SESSIONS, TRACKS = "jazz", 12, 12
PATIENCE_S = 900  # a simulation takes minutes
REST_S = 0.6  # until what was asked for last is on the screen


def chromium() -> Any:
    """The module of the tests that drives a browser."""
    file = Path(__file__).resolve().parent.parent / "tests/support/chromium.py"
    spec = importlib.util.spec_from_file_location("chromium", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def at_all_sizes(tab: Any, out: Path, name: str, show: Any) -> None:
    """NAME-WIDTH-light.png and -dark.png; show(width, height, dark) opens what is to be seen."""
    for width, height in SIZES:
        for dark in (False, True):
            show(width=width, height=height, dark=dark)
            time.sleep(REST_S)
            tab.screenshot(out / f"{name}-{width}-{'dark' if dark else 'light'}.png")


def listen(address: str, user: str, items: list[str]) -> None:
    """Reports sessions of twelve tracks each, the last one still running."""
    now = datetime.now(timezone.utc)
    for number in range(SESSIONS):
        start = now - timedelta(hours=3 * (SESSIONS - number)) if number < SESSIONS - 1 else now - timedelta(minutes=40)
        plays = [
            {"item_id": item, "started_at": (start + timedelta(minutes=3 * n)).isoformat(), "listened_s": 170.0}
            for n, item in enumerate(items[(number * TRACKS) % len(items) :][:TRACKS])
        ]
        body = {"user_id": user, "session_id": f"pictures-{number}", "final": number < SESSIONS - 1, "plays": plays}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{address}/v1/sessions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            answer.read()


def shares(service: Any) -> tuple[int, int]:
    """Cards of the last page of the genre, and all of them."""
    decision = list(service.log.decisions())[-1]
    columns = decision.columns // 2  # the other half waits behind "More"
    shown = [decision.item_id[c] for row in decision.page.card.tolist() for c in row[:columns] if c >= 0]
    items = service.run.items
    return sum(GENRE in items.genres[items.row_of[item]] for item in shown), len(shown)


def with_covers(run: Path) -> None:
    """Publishes a cover, two colours from corner to corner, for every other album, playlist and show of the run."""
    from api.service.control import ControlStore
    from api.upkeep.item_tables import ItemBody
    from api.upkeep.item_updates import _body_of_table, publish_items
    from bart.item_store import load_items

    folder = run / "covers"
    folder.mkdir(exist_ok=True)
    items = load_items(run / "bundle" / "items")
    store, at = ControlStore(run / "control.sqlite", 5.0), datetime.now(timezone.utc)
    for row in np.flatnonzero(items.is_container)[::2].tolist():
        item_id = str(items.item_id[row])
        (folder / f"{row}.png").write_bytes(gradient(np.random.default_rng(row)))
        body = _body_of_table(items, row, ItemBody(title="-", popularity=float(items.popularity[row])))
        store.put_item(item_id, body.model_copy(update={"image": f"{row}.png"}).model_dump_json(), at)
    publish_items(run, store, at.isoformat())
    store.close()


def gradient(rng: np.random.Generator, side: int = 200) -> bytes:
    """A PNG."""
    first, second = rng.integers(20, 240, (2, 3))
    across = np.add.outer(np.arange(side), np.arange(side))[:, :, None] / (2 * side)
    pixel = (first * (1 - across) + second * across).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in pixel)

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")


def most_shown(service: Any) -> str:
    """The item that stood on the most pages."""
    shown = Counter(str(d.item_id[card]) for d in service.log.decisions() for card in d.page.card[d.page.card >= 0])
    return shown.most_common(1)[0][0]


def main() -> None:
    """Serves a copy of the run and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/pages"))
    parser.add_argument("--user", default="u000009")
    parser.add_argument("--only", default="home,why,follow,operate,items,listeners,report,simulate")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    module = chromium()
    with tempfile.TemporaryDirectory() as place:
        run = Path(shutil.copytree(asked.run, Path(place) / "run", symlinks=True))
        with_covers(run)
        with module.serving(run, {}) as (state, address), module.browser(Path(place) / "profile", PATIENCE_S) as tab:
            home = f"{address}/?user={asked.user}"
            tab.sign_in(address, run)

            def see(path: str, ready: str, **how: Any) -> None:
                tab.open(path, **how)
                tab.wait(ready)

            def why(**how: Any) -> None:
                see(home, CARDS, **how)
                tab.click('[data-row="0"][data-column="1"]')
                tab.click("#why")
                tab.wait("document.getElementById('reasons').open")

            if "home" in wanted:
                at_all_sizes(tab, asked.out, "home", lambda **how: see(home, CARDS, **how))
            if "why" in wanted:
                at_all_sizes(tab, asked.out, "why", why)
            if "follow" in wanted:
                follow(tab, state, address, home, asked)
            if "operate" in wanted:
                at_all_sizes(tab, asked.out, "operate", lambda **how: see(f"{address}/operate", READY, **how))
            browsers = {"items": f"item={most_shown(state.service)}&q=the", "listeners": f"listener={asked.user}"}
            for name in (one for one in browsers if one in wanted):
                path = f"{address}/operate/{name}?{browsers[name]}"
                at_all_sizes(tab, asked.out, name, lambda path=path, **how: see(path, READY, **how))
            if "report" in wanted:
                tab.open((run / "report.html").as_uri(), width=1200, height=1950)
                time.sleep(REST_S)
                tab.screenshot(asked.out / "report.png")
            if "simulate" in wanted:
                see(f"{address}/simulate", READY)
                tab.click("#start")
                tab.wait("document.getElementById('status').textContent.startsWith('Done')")
                at_all_sizes(tab, asked.out, "simulate", lambda **how: see(f"{address}/simulate", READY, **how))


def follow(tab: Any, state: Any, address: str, home: str, asked: Any) -> None:
    """before.png and after.png, and how many of the cards are of the genre."""
    items = state.service.run.items
    rows = [row for row in range(len(items.item_id)) if GENRE in items.genres[row]]
    rows.sort(key=lambda row: -items.popularity[row])
    for name in ("before", "after"):
        tab.open(home, width=1280, height=1650)
        tab.wait(CARDS)
        time.sleep(REST_S)
        tab.screenshot(asked.out / f"{name}.png")
        print("{}: {} of {} cards are {}".format(name, *shares(state.service), GENRE))
        if name == "before":
            listen(address, asked.user, [str(items.item_id[row]) for row in rows[: SESSIONS * TRACKS]])


if __name__ == "__main__":
    main()
