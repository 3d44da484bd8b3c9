"""Redis killed, and emptied, while a run keeps its listeners there."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.served.judge import recorded
from benchmarks.served.load import loaded
from benchmarks.served.server import answers, ask, redis_server, serving

LIMIT_S = 15.0  # within which listeners must be back


def redis_emptied(run: Path, users: list[str]) -> dict[str, Any]:
    """Pages go on, `/ready` tells of it until the listeners are back, known ones are no strangers afterwards."""
    server_of, why = redis_server()
    if why:
        return {"skipped": why, "passed": True}
    import redis

    folder = run.parent / f"{run.name}-redis"
    server = server_of(folder / "redis", "always")
    try:
        client = redis.Redis.from_url(server.url)
        with serving(run, 2, f'[store]\nurl = "{server.url}"\n') as (_, port), loaded(port, users) as load:
            time.sleep(3)
            client.flushall()
            emptied = time.monotonic()
            told = ask(port, "GET", "/ready")[0]
            back_s = well_again(port, emptied)
            known = sum(ask(port, "GET", f"/v1/listeners/{user}", run=run)[0] == 200 for user in users[:20])
            server.kill()
            time.sleep(3)
            away = ask(port, "POST", "/v1/home", {"user_id": users[0]})[0]
            server.start()
            again_s = well_again(port, time.monotonic())
        found = recorded(run, load)
        client.close()
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
    well = told == 503 and known == min(20, len(users)) and away == 200 and max(back_s, again_s) < LIMIT_S
    well &= not (found["lost_pages"] or found["lost_events"] or found["refused"]) and found["log_verifies"]
    told_of = {"ready_when_emptied": told, "back_s": back_s, "known_of_20": known, "page_while_away": away}
    return {"killed": {"redis": 1}, "emptied": 1, **told_of, "again_s": again_s, **found, "passed": well}


def well_again(port: int, since: float) -> float:
    """Seconds until the service is ready, `LIMIT_S` at most."""
    while not answers(port) and time.monotonic() - since < LIMIT_S:
        time.sleep(0.05)
    return round(time.monotonic() - since, 2)
