"""What a listener does besides visiting: picks at the beginning, sessions that run, sessions that are over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from api.hosts.redis_sessions import RedisSessions
from api.hosts.running_sessions import RunningSessions
from api.wire.problems import ProblemError
from api.wire.schemas import Onboarding, SessionRequest, utc_offset_min
from bart.types import Context, Ints, ItemTable, Labels, Listener
from recommender.listener.model import session_columns
from recommender.sessions.table import SessionColumns
from recommender.states.states import Session, StoredListeners

PICKS_A_LABEL = 5  # items that stand for a picked artist or genre
RECENTLY_S = 6 * 3600  # how far back a report looks for sessions that its batch has missed
BATCHES_NOTED = 8  # more than are kept
CLOCK_SLACK = timedelta(minutes=5)  # how far ahead of ours a client's clock may be


@dataclass(frozen=True)
class ListeningService:
    """Listeners of one batch, with what they are listening to now."""

    items: ItemTable
    store: StoredListeners
    sessions: RunningSessions | RedisSessions

    def listener(self, user_id: str, context: Context) -> Listener:
        """The listener for a visit; a running session moves the vector and stands first among what was played."""
        body = self.sessions.running(user_id, int(context.at.timestamp()))
        if body is None:
            return self.store.listener(user_id, context)
        report = SessionRequest.model_validate_json(body)
        heard = self._heard(report, report.started_at or context.at)
        if heard is None:  # another batch has served since: it does not hold these items
            return self.store.listener(user_id, context)
        listener = self.store.listener(user_id, context, heard.session)
        newest = heard.played[::-1].tolist()
        recent = np.array(list(dict.fromkeys([*newest, *listener.recent.tolist()])), dtype=np.int64)
        return replace(listener, recent=recent)

    def report(self, report: SessionRequest, received_at: datetime) -> dict[str, Any]:
        """Takes a session so far, or commits a final one; says what became of it."""
        started_at = report.started_at or report.plays[0].started_at or received_at
        times = [started_at, *(play.started_at for play in report.plays if play.started_at is not None)]
        if max(times) > received_at + CLOCK_SLACK:
            raise ProblemError(422, "The session is in the future", "started_at: expected a time that has been")
        heard = self._heard(report, started_at)
        if heard is None:
            raise ProblemError(422, "No play is of a known item", "plays: expected item ids of this batch")
        now_s = int(received_at.timestamp())
        counts = {"plays": heard.known, "unknown": len(report.plays) - heard.known}
        if not report.final:
            body = report.model_copy(update={"started_at": started_at}).model_dump_json().encode()
            kept = self.sessions.put(report.user_id, report.session_id, len(report.plays), body, now_s)
            return {"status": "running" if kept else "late", **counts}
        if not self.sessions.claim(report.user_id, report.session_id, now_s):
            return {"status": "repeated", **counts}
        try:
            # While a batch gives way to another, an earlier session may have been committed to the other one alone.
            self.replay(now_s - RECENTLY_S, report.user_id)
            self.store.advance(report.user_id, heard.session, heard.played, once=report.session_id)
        except BaseException:
            self.sessions.release(report.user_id, report.session_id)
            raise
        told = report.model_copy(update={"started_at": started_at}).model_dump_json().encode()
        self.sessions.settle(report.user_id, report.session_id, _with_batches([self.store.batch_id], told))
        return {"status": "committed", **counts}

    def replay(self, since_s: int, user_id: str | None = None) -> int:
        """Commits the sessions reported from `since_s` on that this batch has not met; how many.

        Of each listener those that began after the last committed one, in order: earlier ones are in the state by other
        ways. Each is then noted as met by this batch, so that doing it again commits nothing. user_id: of this listener
        alone.
        """
        batch_id = self.store.batch_id
        unmet: dict[str, list[tuple[str, list[str], bytes, _Heard]]] = {}
        for user, session_id, body in self.sessions.finished(since_s, user_id):
            batches, told = _batches_of(body)
            if batch_id in batches:
                continue
            report = SessionRequest.model_validate_json(told)
            heard = None if report.started_at is None else self._heard(report, report.started_at)
            if heard is not None:  # else of items that this batch does not hold
                unmet.setdefault(user, []).append((session_id, batches, told, heard))
        done = 0
        for user, sessions in unmet.items():
            sessions.sort(key=lambda one: one[3].session.context.at)
            sources = self.store.model.sources
            columns = SessionColumns.concat([session_columns(heard.session, sources) for *_, heard in sessions])
            done += self.store.catch_up(user, columns, [heard.played for *_, heard in sessions])
            for session_id, batches, told, _ in sessions:
                self.sessions.settle(user, session_id, _with_batches([*batches, batch_id], told))
        return done

    def onboard(self, user_id: str, picks: Onboarding, context: Context) -> None:
        """Makes a listener of picks. Raises ProblemError for one who has listened, or picks that nobody knows."""
        rows = self.items.rows(picks.items)
        parts = [rows[rows >= 0]]
        parts += [self._foremost(self.items.artists, name) for name in picks.artists]
        parts += [self._foremost(self.items.genres, name) for name in picks.genres]
        chosen = np.array(list(dict.fromkeys(np.concatenate(parts).tolist())), dtype=np.int64)
        chosen = chosen[self.items.vector[chosen].any(axis=1)]
        if len(chosen) == 0:
            raise ProblemError(422, "No pick is known", "onboarding: expected items, artists or genres of this batch")
        row = self.store.get(user_id)
        if row is not None and row.known:
            raise ProblemError(409, "The listener is not new", "onboarding: this listener has sessions already")
        self.store.onboard(user_id, chosen, self.items.vector[chosen], context)

    def choices(self, n: int = 24) -> dict[str, list[str]]:
        """Artists and genres to pick from, the most popular first."""
        return {"artists": self._popular(self.items.artists, n), "genres": self._popular(self.items.genres, n)}

    def _popular(self, labels: Labels, n: int) -> list[str]:
        first, has = labels.first, labels.first >= 0
        weight = np.bincount(first[has], self.items.popularity[has], minlength=len(labels.vocabulary))
        order = np.argsort(-weight, kind="stable")[:n]
        return [labels.vocabulary[code] for code in order.tolist()]

    def _foremost(self, labels: Labels, name: str) -> Ints:
        rows = labels.rows_with(name)
        order = np.argsort(-self.items.popularity[rows], kind="stable")
        return rows[order[:PICKS_A_LABEL]]

    def _heard(self, report: SessionRequest, started_at: datetime) -> _Heard | None:
        """The session of a report; None where no item is known."""
        started_at = started_at.astimezone(timezone.utc)
        rows = self.items.rows(play.item_id for play in report.plays)
        known = rows >= 0
        if not known.any():
            return None
        skipped = np.array([bool(play.skipped) for play in report.plays])
        ended_at = started_at
        for play in report.plays:
            begun = ended_at if play.started_at is None else max(ended_at, play.started_at.astimezone(timezone.utc))
            ended_at = begun + timedelta(seconds=play.listened_s or 0.0)
        context = Context(started_at, utc_offset_min(report.tz, started_at), report.device)
        session = Session.of(context, ended_at, self.items.vector[rows[known]], skipped[known])
        return _Heard(session, int(known.sum()), rows[known & ~skipped])


@dataclass(frozen=True, slots=True)
class _Heard:
    """known: plays of known items. played: rows of those that were not skipped, in order: what was skipped explains
    nothing that is shown next."""

    session: Session
    known: int
    played: Ints


def _with_batches(batches: list[str], told: bytes) -> bytes:
    """A report as it is kept: which batches have met it, and what it told."""
    return " ".join(batches[-BATCHES_NOTED:]).encode() + b"\n" + told


def _batches_of(body: bytes) -> tuple[list[str], bytes]:
    batches, _, told = body.partition(b"\n")
    return batches.decode().split(), told
