"""A log of some days with feedback, and a random history of one: what an honest service does to its log."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import drawn_pages
import numpy as np

from bart.log.care.erasure import erase_user, prune
from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.log.proof.closing import Closer
from bart.log.record.feedback import FeedbackEvent
from bart.types import Context, Decision

AT = datetime(2026, 3, 1, 6, tzinfo=timezone.utc)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEY = b"a key of at least thirty-two bytes"
USERS = 6


def make(i: int, at: datetime | None = None) -> Decision:
    """A drawn page of 2 x 3 that verifies; four a day from `AT` on, by six users in turn."""
    when = at or AT + (i // 4) * DAY + (i % 4) * 4 * HOUR
    return drawn_pages.make(i, request_id=f"request-{i:03d}", user_id=f"user-{i % USERS}", context=Context(when))


def event(name: str, at: datetime, column: int = 0, listened_s: float = 40.0) -> FeedbackEvent:
    return FeedbackEvent(name, at, 0, column, seen=True, listened_s=listened_s)


def fill(path: Path, pages: int = 24, key: bytes | None = None) -> None:
    """A log of pages with feedback on each, one user erased, and all days but the last closed."""
    with DecisionLog(path, proof_key=key) as log:
        for i in range(pages):
            page = make(i)
            log.append(page)
            log.feedback(
                page.request_id, [event("e", page.decided_at), event("f", page.decided_at, 1)], page.decided_at + HOUR
            )
        log.close_windows(AT + (pages // 4 - 1) * DAY)
        erase_user(log, "user-5", AT + 10 * DAY)
        log.close_windows(AT + (pages // 4) * DAY)


class Killed(Exception):
    """Stands for a kill: what was committed stays, what was not is gone."""


def history(path: Path, export: Path, seed: int, key: bytes | None) -> None:
    """What an honest service may do to its log, in a random order: pages (late ones too), feedback (late, repeated,
    conflicting, early), closings with a clock that is sometimes ahead, erasures, prunings, exports, and kills."""
    rng = np.random.default_rng(seed)
    now, made = AT, 0
    log = DecisionLog(path, proof_key=key)
    known: list[Decision] = []
    try:
        for _ in range(int(rng.integers(25, 60))):
            step = rng.choice(
                ["page", "late page", "feedback", "late feedback", "early feedback", "close", "ahead", "lower", "erase",
                 "prune", "export", "kill closing", "kill export", "reopen"],
                p=[0.3, 0.06, 0.18, 0.08, 0.04, 0.1, 0.02, 0.02, 0.04, 0.02, 0.06, 0.04, 0.02, 0.02],
            )  # fmt: skip
            now += float(rng.exponential(5)) * HOUR
            if step in ("page", "late page"):
                at = now if step == "page" else now - float(rng.uniform(24, 120)) * HOUR
                known.append(replace(make(made), user_id=f"user-{rng.integers(USERS)}", context=Context(at)))
                made += 1
                try:
                    log.append(known[-1])
                except ValueError:  # of a user who was erased since
                    known.pop()
            elif step in ("feedback", "late feedback") and known:
                page = known[int(rng.integers(len(known)))]
                at = page.decided_at + float(rng.uniform(0, 24 if step == "feedback" else 96)) * HOUR
                name = f"e{rng.integers(3)}"  # often one that is known, with another content
                log.feedback(page.request_id, [event(name, at, int(rng.integers(3)), float(rng.integers(60)))], at)
            elif step == "early feedback":
                log.feedback(f"request-{made:03d}", [event("early", now)], now)
            elif step == "close":
                log.close_windows(now)
            elif step == "ahead":
                log.close_windows(now + 30 * DAY)
            elif step == "lower" and known:
                log.lower_watermark(now - 2 * DAY)
            elif step == "erase":
                user = f"user-{rng.integers(USERS)}"
                erase_user(log, user, now, [export] if export.is_dir() else [])
                known = [page for page in known if page.user_id != user]
            elif step == "prune":
                prune(log, now - 6 * DAY)
            elif step == "export" and known:
                export_log(log, export, now=now)
            elif step == "kill closing":
                _killed_closing(log, now, int(rng.integers(1, 6)))
            elif step == "kill export" and known:
                _killed_export(log, export, now, int(rng.integers(1, 6)))
            elif step == "reopen":
                log.close()
                log = DecisionLog(path, proof_key=key)
    finally:
        log.close()


def _killed_closing(log: DecisionLog, now: datetime, after: int) -> None:
    """A closing that is killed before its n-th commit."""
    left = after

    def write():  # type: ignore[no-untyped-def]
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return log._alone()

    closer = Closer(log.reading, write, log.window_us, log.proof_key)
    with suppress(Killed):
        closer.close(int(now.timestamp() * 1e6))


def _killed_export(log: DecisionLog, export: Path, now: datetime, after: int) -> None:
    """An export that is killed after its n-th file: no error is handled, the files lie there."""
    from bart.log.care import export as module
    from bart.log.proof import manifest

    before, left = module.write_batches, after
    copy = export.with_name("killed")

    def write(*given):  # type: ignore[no-untyped-def]
        nonlocal left
        left -= 1
        if left < 0:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(export, copy)  # as it lies there at the kill; what an error would still do is not kept
            raise Killed
        return before(*given)

    module.write_batches = write
    try:
        export_log(log, export, now=now)
    except Killed:
        shutil.rmtree(export)
        copy.rename(export)
        assert (export / manifest.FILE).is_file()
    finally:
        module.write_batches = before
