"""What a listener does besides visiting: picks at the beginning, sessions that run, sessions that are over."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from api.hosts.redis_sessions import RedisSessions
from api.hosts.running_sessions import RunningSessions
from api.wire.problems import ProblemError
from api.wire.schemas import Onboarding, SessionRequest, utc_offset_min
from bart.errors import BartError
from bart.types import Context, Ints, ItemTable, Labels, Listener
from recommender.features.tables import not_credited
from recommender.listener.model import session_columns
from recommender.sessions.table import SessionColumns
from recommender.states.states import Session, StoredListeners
from recommender.states.store import Heard

PICKS_A_LABEL = 5  # items that stand for a picked artist or genre
RECENTLY_S = 6 * 3600  # how far back a report looks for sessions that its batch has missed
BATCHES_NOTED = 8  # more than are kept
_log = logging.getLogger("bart.service")
LATE = "@late"
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
        listener = self.store.listener(user_id, context, heard.session, heard.counted)
        if not listener.wishes.profiled:
            return listener
        newest = heard.played[::-1].tolist()
        recent = np.array(list(dict.fromkeys([*newest, *listener.recent.tolist()])), dtype=np.int64)
        return replace(listener, recent=recent)

    def report(self, report: SessionRequest, received_at: datetime) -> dict[str, Any]:
        """Takes a session so far, or commits a final one; says what became of it."""
        started_at = report.started_at or report.plays[0].started_at or self._begun_at(report, received_at)
        times = [started_at, *(play.started_at for play in report.plays if play.started_at is not None)]
        if max(times) > received_at + CLOCK_SLACK:
            raise ProblemError(422, "The session is in the future", "started_at: expected a time that has been")
        heard = self._heard(report, started_at, received_at)
        if heard is None:
            raise ProblemError(422, "No play is of a known item", "plays: expected item ids of this batch")
        now_s = int(received_at.timestamp())
        counts = {"plays": heard.known, "unknown": len(report.plays) - heard.known}
        if not self.store.wishes(report.user_id).profiled:
            return {"status": "not kept", **counts}
        told = report.model_copy(update={"started_at": started_at}).model_dump_json().encode()
        if not report.final:
            kept = self.sessions.put(report.user_id, report.session_id, len(report.plays), told, now_s)
            return {"status": "running" if kept else "late", **counts}
        return {"status": self._commit(report, heard, told, now_s), **counts}

    def _begun_at(self, report: SessionRequest, received_at: datetime) -> datetime:
        """When a session began whose report tells no time: what was listened to before it arrived, but after the last
        one that is known."""
        begun_at = received_at - timedelta(seconds=sum(play.listened_s or 0.0 for play in report.plays))
        known_s = self.store.last_heard_s(report.user_id)
        if known_s is None or known_s < begun_at.timestamp():
            return begun_at
        return min(datetime.fromtimestamp(known_s + 1, tz=timezone.utc), received_at)

    def _commit(self, report: SessionRequest, heard: _Heard, told: bytes, now_s: int) -> str:
        """Keeps a final session, then commits it: whoever is killed in between leaves it to a start or to a retry."""
        ended_s = self.store.last_heard_s(report.user_id)
        late = ended_s is not None and int(heard.session.context.at.timestamp()) <= ended_s
        kept = _Kept((), told, now_s, late)
        first = self.sessions.claim(report.user_id, report.session_id, now_s, kept.body)
        # Others too: while a batch gives way to another, they may have been committed to the other one alone.
        _, taken = self._replayed(self.sessions.finished(now_s - RECENTLY_S if first else 0, report.user_id))
        if first:  # where another process committed it in between, the answer is the same
            return kept.status
        known = self.sessions.kept(report.user_id, report.session_id)
        if known and not _Kept.of(known).is_of(report):
            return "conflicting"
        return taken.get((report.user_id, report.session_id), "repeated")

    def replay(self, since_s: int, user_id: str | None = None) -> int:
        """Commits the sessions reported from `since_s` on that this batch has not met; how many.

        Of each listener those that began after the last committed one, in order: earlier ones are in the state by other
        ways, or late, and wait for the next rebuild. Each is then noted as met by this batch, so that doing it again
        commits nothing. user_id: of this listener alone.
        """
        return self._replayed(self.sessions.finished(since_s, user_id))[0]

    def commit_unmet(self) -> None:
        """Commits what a process that was killed had kept and not committed; what fails is left to retries."""
        try:
            self._replayed(self.sessions.unmet())
        except (BartError, sqlite3.Error) as error:
            _log.warning("sessions that were kept could not be committed: %s", error)

    def _replayed(self, sessions: Iterable[tuple[str, str, bytes]]) -> tuple[int, dict[tuple[str, str], str]]:
        """How many sessions were committed, and the status of each that this batch had not met."""
        batch_id = self.store.batch_id
        unmet: dict[str, list[tuple[str, _Kept, _Heard]]] = {}
        for user, session_id, body in sessions:
            kept = _Kept.of(body)
            if batch_id in kept.batches:
                continue
            report = SessionRequest.model_validate_json(kept.told)
            heard = None if report.started_at is None else self._heard(report, report.started_at, kept.received_at)
            if heard is not None:  # else of items that this batch does not hold
                unmet.setdefault(user, []).append((session_id, kept, heard))
        count, status = 0, {}
        for user, mine in unmet.items():
            mine.sort(key=lambda one: one[2].session.context.at)
            sources = self.store.model.sources
            columns = SessionColumns.concat([session_columns(heard.session, sources) for *_, heard in mine])
            played, skipped, within = (
                [getattr(heard, name) for *_, heard in mine] for name in ("played", "skipped", "within")
            )
            count += self.store.catch_up(user, columns, played, skipped, within)
            for session_id, kept, _ in mine:
                self.sessions.settle(user, session_id, kept.met_by(batch_id).body)
                status[user, session_id] = kept.status
        return count, status

    def reported(self) -> Iterator[Reported]:
        """The final sessions that are kept, as this batch counts them in a history."""
        for user_id, _, body in self.sessions.finished(0):
            kept = _Kept.of(body)
            report = SessionRequest.model_validate_json(kept.told)
            if report.started_at is None or kept.received_s is None:  # of an earlier version
                continue
            heard = self._heard(report, report.started_at, kept.received_at)
            if heard is not None:
                yield Reported(user_id, kept.received_s, kept.late, heard.counted)

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
        if not self.store.wishes(user_id).profiled:
            detail = "onboarding: nothing is kept of this listener, by their own wish; expected none"
            raise ProblemError(409, "The listener is not profiled", detail)
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

    def _heard(
        self, report: SessionRequest, started_at: datetime, received_at: datetime | None = None
    ) -> _Heard | None:
        """The session of a report; None where no item is known. received_at: it has not ended later, whatever its plays
        add up to, and has not begun later either, whatever the client's clock says."""
        started_at = started_at.astimezone(timezone.utc)
        if received_at is not None:
            started_at = min(started_at, received_at)
        rows = self.items.rows(play.item_id for play in report.plays)
        known = rows >= 0
        if not known.any():
            return None
        skipped = np.array([bool(play.skipped) for play in report.plays])
        ended_at = started_at
        for play in report.plays:
            begun = ended_at if play.started_at is None else max(ended_at, play.started_at.astimezone(timezone.utc))
            ended_at = begun + timedelta(seconds=play.listened_s or 0.0)
        if received_at is not None:
            ended_at = min(ended_at, received_at)
        context = Context(started_at, utc_offset_min(report.tz, started_at), report.device)
        session = Session.of(context, ended_at, self.items.vector[rows[known]], skipped[known])
        source = self.items.rows(play.container_id or "" for play in report.plays)
        _, within = not_credited(self.items, rows[known & ~skipped], source[known & ~skipped])
        return _Heard(session, int(known.sum()), rows[known & ~skipped], rows[known & skipped], within)


@dataclass(frozen=True, slots=True, eq=False)
class Reported:
    """A session that was reported. received_s: when; late: it began before one that was known by then."""

    user_id: str
    received_s: int
    late: bool
    heard: Heard


@dataclass(frozen=True, slots=True)
class _Heard:
    """known: plays of known items. played: rows of those that were not skipped, in order: what was skipped explains
    nothing that is shown next. skipped: rows of the others. within: rows of the containers that they were played from,
    as far as their own do not say it."""

    session: Session
    known: int
    played: Ints
    skipped: Ints
    within: Ints

    @property
    def counted(self) -> Heard:
        """As a history counts it."""
        return Heard.of(
            np.concatenate([self.played, self.within]), self.skipped, int(self.session.context.at.timestamp())
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """A final session as it is kept. batches: those that have met it. told: the report. received_s: when it came, None
    of an earlier version. late: it had begun before the last one that was known then ended."""

    batches: tuple[str, ...]
    told: bytes
    received_s: int | None = None
    late: bool = False

    @property
    def status(self) -> str:
        return "late" if self.late else "committed"

    @property
    def received_at(self) -> datetime | None:
        return None if self.received_s is None else datetime.fromtimestamp(self.received_s, tz=timezone.utc)

    @property
    def body(self) -> bytes:
        words = [*self.batches, *(() if self.received_s is None else (f"@{self.received_s}",)), *([LATE] * self.late)]
        return " ".join(words).encode() + b"\n" + self.told

    def is_of(self, report: SessionRequest) -> bool:
        """Whether this is the session that a report tells of; where it tells no time, the first one was that of its
        arrival."""
        known = SessionRequest.model_validate_json(self.told)
        return report == (known if report.started_at else known.model_copy(update={"started_at": None}))

    def met_by(self, batch_id: str) -> _Kept:
        """The same, noted as met by a batch."""
        return replace(self, batches=(*self.batches, batch_id)[-BATCHES_NOTED:])

    @classmethod
    def of(cls, body: bytes) -> _Kept:
        """What `body` made."""
        head, _, told = body.partition(b"\n")
        words = head.decode().split()
        times = [int(word[1:]) for word in words if word.startswith("@") and word != LATE]
        batches = tuple(word for word in words if not word.startswith("@"))
        return cls(batches, told, times[0] if times else None, LATE in words)
