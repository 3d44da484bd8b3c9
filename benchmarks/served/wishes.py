"""Preferences and takedowns that change under load: no page, rank or list holds what must not be shown by then."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from bart.bundle import open_bundle
from bart.item_store import load_items
from bart.log.care.verify import verify
from bart.types import ItemTable
from benchmarks.served.server import serving

CLIENTS, CHANGERS, USERS = 6, 2, 40
WITHIN_S = 1.0
ARTISTS = 60  # of which some are blocked: the first of the items'
TAKEN = 8  # items that are taken down and put back

Asked = tuple[float, float, str, list[str]]  # began, ended, user, shown item ids


@dataclass
class Told:
    """What one listener asked for, one after another: when it was sent, when it was answered, the wishes."""

    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    wishes: list[dict[str, Any]] = field(default_factory=list)

    def in_force(self, began: float, ended: float, within_s: float) -> list[dict[str, Any]]:
        """All that may have been the wishes of a page: from the last that was answered `within_s` before it began to
        the last that was sent before it ended."""
        first = sum(at <= began - within_s for at in self.answered) - 1
        last = sum(at <= ended for at in self.sent) - 1
        return [{}] * (first < 0) + self.wishes[max(first, 0) : last + 1]


class Client:
    """One connection that goes on."""

    def __init__(self, port: int, key: str = "") -> None:
        self._headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and document; a connection that was closed meanwhile is opened again, once."""
        for again in (True, False):
            try:
                self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
                answer = self._connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (OSError, HTTPException):
                self._connection.close()
                if not again:
                    raise
        raise AssertionError

    def close(self) -> None:
        self._connection.close()


class Crowd:
    """Clients and changers of one server."""

    def __init__(self, port: int, key: str, items: ItemTable, pages: int, seed: int) -> None:
        self.port, self.key, self.items, self.pages, self.seed = port, key, items, pages, seed
        self.ids: list[str] = items.item_id.tolist()
        self.users = [f"wish-{seed}-{n}" for n in range(USERS)]
        self.told = {user: Told() for user in self.users}
        self.down = Told()
        self.asked: list[Asked] = []
        self.kinds: Counter[str] = Counter()
        self.changes = self.refused = 0
        self.over = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Until there are pages enough."""
        clients = [Client(self.port, self.key) for _ in range(CLIENTS + CHANGERS + 1)]
        work = [(self._client, n) for n in range(CLIENTS)] + [(self._changer, n) for n in range(CHANGERS)]
        jobs = zip([*work, (self._taker, 0)], clients, strict=True)
        threads = [threading.Thread(target=job, args=(n, client)) for (job, n), client in jobs]
        for thread in threads:
            thread.start()
        for thread, client in zip(threads, clients, strict=True):
            thread.join()
            client.close()

    def _client(self, number: int, client: Client) -> None:
        rng, keys = random.Random(f"{self.seed} {number}"), list[dict[str, Any]]()
        while not self.over.is_set():
            user, kind = rng.choice(self.users), rng.choice(("home", "home", "rank", "search", "retry"))
            body: dict[str, Any] = {"user_id": user, "rows": 3, "columns": 6}
            path = "/v1/home"
            if kind == "retry":
                body = (
                    rng.choice(keys) if keys and rng.random() < 0.7 else {**body, "idempotency_key": f"{rng.random()}"}
                )
                keys = [*keys[-20:], body]
            elif kind != "home":
                path, some = "/v1/rank", rng.sample(self.ids, 30)
                shelf: dict[str, Any] = {"title": "Given", "rule": "given", "items": some}
                if kind == "search":
                    shelf["scores"] = sorted((rng.random() for _ in some), reverse=True)
                    body = {"user_id": user, "query": f"query {rng.randrange(30)}", "columns": 20}
                body["shelves"] = [shelf]
            began = time.monotonic()
            status, page = client.ask("POST", path, body)
            ended = time.monotonic()
            with self._lock:
                if status == 200:
                    shown = [card["item_id"] for shelf in page["shelves"] for card in shelf["cards"]]
                    self.asked.append((began, ended, body["user_id"], shown))
                    self.kinds[kind] += 1
                elif not (kind == "retry" and status == 409):
                    self.refused += 1
                if len(self.asked) >= self.pages:
                    self.over.set()
            if status == 200 and rng.random() < 0.05 and page["shelves"]:
                event = {"event_id": "1", "row": 0, "column": 0, "seen": True, "listened_s": 40.0}
                client.ask("POST", "/v1/feedback", {"request_id": page["request_id"], "events": [event]})

    def _changer(self, number: int, client: Client) -> None:
        """Listeners of its own change their minds, one after another."""
        rng = random.Random(f"{self.seed} changer {number}")
        artists = list(dict.fromkeys(name for row in range(3 * ARTISTS) for name in self.items.artists[row]))[:ARTISTS]
        while not self.over.wait(0.02):
            user = rng.choice(self.users[number::CHANGERS])
            wishes = {
                "blocked_artists": rng.sample(artists, rng.randrange(12)),
                "blocked_items": rng.sample(self.ids, rng.randrange(200)),
                "not_interested": rng.sample(self.ids, rng.randrange(50)),
                "explicit": rng.random() < 0.5,
                "mode": rng.choice(("personalised", "personalised", "no_experiments")),
            }
            told, sent = self.told[user], time.monotonic()
            with self._lock:
                told.sent.append(sent)
                told.wishes.append(wishes)
            status, _ = client.ask("PUT", f"/v1/listeners/{user}/preferences", wishes)
            assert status == 200, status
            with self._lock:
                told.answered.append(time.monotonic())
                self.changes += 1

    def _taker(self, _: int, client: Client) -> None:
        """Items are taken down, then put back."""
        rng = random.Random(f"{self.seed} taker")
        down: list[str] = []
        while not self.over.wait(0.5):
            back = len(down) >= TAKEN
            item = down[0] if back else rng.choice(self.ids)
            after = [one for one in down if one != item] if back else [*down, item]
            with self._lock:
                self.down.sent.append(time.monotonic())
                self.down.wishes.append({"blocked_items": after})
            status, _ = client.ask("DELETE", f"/v1/{'takedowns' if back else 'items'}/{item}")
            assert status == 200, status
            with self._lock:
                self.down.answered.append(time.monotonic())
            down = after

    def shown_wrongly(self, within_s: float) -> list[tuple[str, str]]:
        """User and item of what stood on a page, though whatever may have been asked for by then forbids it."""
        out = []
        for began, ended, user, shown in self.asked:
            for told in (self.told[user], self.down):
                states = told.in_force(began, ended, within_s)
                out += [(user, item) for item in shown if states and all(self._forbids(s, item) for s in states)]
        return out

    def _forbids(self, wishes: dict[str, Any], item: str) -> bool:
        if item in wishes.get("blocked_items", ()) or item in wishes.get("not_interested", ()):
            return True
        row = self.items.row_of[item]
        if not wishes.get("explicit", True) and bool(self.items.explicit[row]):
            return True
        return not set(wishes.get("blocked_artists", ())).isdisjoint(self.items.artists[row])


def wishes(run: Path, pages: int, seed: int) -> dict[str, Any]:
    """So many pages, ranks and lists from two workers while preferences and takedowns change."""
    items = load_items(open_bundle(run / "bundle").folder("items"))
    key = (run / "admin.key").read_text().strip() if (run / "admin.key").exists() else ""
    with serving(run, 2) as (_, port):
        key = key or (run / "admin.key").read_text().strip()
        crowd = Crowd(port, key, items, pages, seed)
        began = time.monotonic()
        crowd.run()
        took_s = time.monotonic() - began
    late, at_once = crowd.shown_wrongly(WITHIN_S), crowd.shown_wrongly(0.0)
    cards = sum(len(shown) for *_, shown in crowd.asked)
    well = verify(run / "log.sqlite").ok
    return {
        "answers": len(crowd.asked),
        "kinds": dict(crowd.kinds),
        "cards": cards,
        "changes": crowd.changes,
        "takedowns": len(crowd.down.answered),
        "shown_wrongly_after_1_s": len(late),
        "shown_wrongly_at_once": len(at_once),
        "refused": crowd.refused,
        "log_verifies": well,
        "s": round(took_s, 1),
        "passed": not late and not crowd.refused and well,
    }
