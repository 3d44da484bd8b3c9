"""The receiving end of the transport: from a Redis stream into the one decision log.

A consumer group delivers each entry at least once: what a killed consumer had taken and not acknowledged comes again,
to itself after a restart or to another one. An entry is acknowledged after the log has committed it, and the log takes
the same decision and the same event only once. So every entry is in the log exactly once, whoever is killed when.
What the log refuses (another decision of a known request id, damage) goes to NAME:log:refused with the reason; pages
of erased requests go nowhere. An entry that left the stream before it was acknowledged (somebody trimmed it) is lost,
whichever way that is noticed. Both are counted in the log, from where the services' metrics have them.
"""

from __future__ import annotations

import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.hosts.stream_sink import read_report
from api.run.loops import LONGEST_WAIT_S
from bart.errors import ErasedError, LogError
from bart.log.decision_log import DecisionLog, insert_decision
from bart.log.outcomes.received import Report, store_feedback
from bart.log.record.record import EncodedDecision, decode, pack_shown, to_us
from bart.log.store.marks import MARKS, add_marks
from bart.log.store.store import count_meta, transaction

GROUP = "log"
AT_ONCE = 500  # entries a transaction
CLAIM_AFTER_S = 10.0  # an entry that was delivered so long ago and not acknowledged is another's to take
TRIM_EVERY_S = 5.0
RETRY_S = 0.2
REFUSED, LOST = "stream_refused", "stream_lost"  # counters beside the records of the log

# How many entries are after the last that was delivered. The server's own lag is unknown after a restart from its
# append-only file and after deletions, and a count by the client would move the bodies.
_UNDELIVERED = """
local count, after = 0, '(' .. ARGV[1]
while true do
    local found = redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', 500)
    if #found == 0 then return count end
    count, after = count + #found, '(' .. found[#found][1]
end
"""

_log = logging.getLogger("bart.stream")
Fields = Mapping[bytes, bytes]


@dataclass(slots=True)
class Taken:
    """What a consumer did. entries: acknowledged; refused: of them, kept apart; claimed: of them, from others.

    lost: gone from the stream before they were acknowledged.
    """

    entries: int = 0
    decisions: int = 0
    reports: int = 0
    refused: int = 0
    claimed: int = 0
    lost: int = 0


class StreamConsumer:
    """Takes the stream of `name` into a log.

    client: of `connect`, with a timeout longer than `block_s`. log: of this process; `synchronous="FULL"` where what is
    acknowledged to the stream must outlive a power cut. consumer: its name in the group, this host's by default: after
    a restart it goes on with what it had taken. Two that run at once on one host need two names.
    """

    def __init__(
        self,
        client: Any,
        log: DecisionLog,
        name: str = "bart",
        consumer: str = "",
        *,
        claim_after_s: float = CLAIM_AFTER_S,
        block_s: float = 0.5,
    ) -> None:
        self.taken = Taken()
        self._client = client
        self._log = log
        self._stream = f"{name}:log"
        self._consumer = consumer or socket.gethostname()
        self._claim_after_s = claim_after_s
        self._block_s = block_s
        self._undelivered = client.register_script(_UNDELIVERED)
        self._ready = False
        self._mine = True  # what was delivered to this name before comes first
        self._claimed_at = self._trimmed_at = float("-inf")

    def run(self, stop: threading.Event, until_empty: bool = False) -> Taken:
        """Takes entries until `stop` is set, or (`until_empty`) until none is left. What fails is tried again.

        Raises LogError where the log cannot be written and the errors of the client only with `until_empty`.
        """
        from redis.exceptions import RedisError

        failures = 0
        while not stop.is_set():
            try:
                count = self.step(wait=not until_empty)
            except Exception as error:
                if until_empty:
                    raise
                expected = isinstance(error, (RedisError, OSError, LogError, sqlite3.Error))
                _log.warning("cannot take entries, trying again: %s", error, exc_info=not expected)
                self._ready, self._mine = False, True
                failures += 1
                stop.wait(min(RETRY_S * 2**failures, LONGEST_WAIT_S))
                continue
            failures = 0
            if until_empty and not count:
                break
        return self.taken

    def step(self, wait: bool = True) -> int:
        """Takes what is there, at most `AT_ONCE` entries, and says how many; waits for some where there is none."""
        if not self._ready:
            self._make_group()
        now = time.monotonic()
        if now - self._claimed_at >= self._claim_after_s / 2:
            claimed = self._claim()
            if claimed:
                return claimed
            self._claimed_at = now
        entries = self._read("0", wait=False) if self._mine else []
        self._mine = bool(entries)
        if not entries:
            entries = self._read(">", wait)
        self._take(entries)
        if now - self._trimmed_at >= TRIM_EVERY_S:
            self.trim()
            self._trimmed_at = now
        return len(entries)

    def trim(self) -> int:
        """Removes from the stream what every group has acknowledged; how many entries."""
        oldest = []
        for group in self._client.xinfo_groups(self._stream):
            pending = self._client.xpending(self._stream, group["name"])
            oldest.append(pending["min"] if pending["pending"] else group["last-delivered-id"])
        least = min(oldest, key=_order)
        return int(self._client.xtrim(self._stream, minid=least, approximate=False))

    def waiting(self) -> int:
        """Entries that are in the stream and not acknowledged by this group."""
        for group in self._client.xinfo_groups(self._stream):
            if group["name"] in (GROUP, GROUP.encode()):
                after = self._undelivered(keys=[self._stream], args=[group["last-delivered-id"]])
                return int(group["pending"]) + int(after)
        return int(self._client.xlen(self._stream))

    # ------------------------------------------------------------------------------------------------------ machinery

    def _make_group(self) -> None:
        from redis.exceptions import ResponseError

        try:
            self._client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._ready = True

    def _read(self, after: str, wait: bool) -> list[tuple[bytes, Fields | None]]:
        block = max(1, int(self._block_s * 1000)) if wait else None
        found = self._client.xreadgroup(GROUP, self._consumer, {self._stream: after}, count=AT_ONCE, block=block)
        return list(found[0][1]) if found else []

    def _claim(self) -> int:
        """Takes what others had taken and did not acknowledge in time."""
        idle_ms = int(self._claim_after_s * 1000)
        _, entries, *gone = self._client.xautoclaim(
            self._stream, GROUP, self._consumer, idle_ms, start_id="0-0", count=AT_ONCE
        )
        claimed = [*entries, *((number, None) for number in (gone[0] if gone else ()))]
        self._take(claimed)
        self.taken.claimed += len(claimed)
        return len(claimed)

    def _take(self, entries: Sequence[tuple[bytes, Fields | None]]) -> None:
        """Commits entries to the log, then acknowledges them; those without fields are in the stream no more."""
        if not entries:
            return
        refused: list[tuple[Fields, str]] = []
        decisions = reports = 0
        lost = [number.decode() for number, fields in entries if not fields]
        with self._log.maintaining() as connection, transaction(connection):
            count_meta(connection, LOST, len(lost))
            for _, fields in entries:
                if not fields:
                    continue
                try:
                    is_decision = self._store(connection, fields)
                except ErasedError:  # it must not be kept anywhere
                    is_decision = True
                except (LogError, ValueError, KeyError) as error:
                    refused.append((fields, str(error)))
                    continue
                decisions += is_decision
                reports += not is_decision
            count_meta(connection, REFUSED, len(refused))
        if lost:
            _log.error("%d entries left %s before they were taken: %s", len(lost), self._stream, ", ".join(lost[:5]))
        with self._client.pipeline() as pipe:
            for fields, reason in refused:
                _log.error("an entry is refused and kept in %s:refused: %s", self._stream, reason)
                pipe.xadd(f"{self._stream}:refused", {b"reason": reason.encode(), **fields})
            pipe.xack(self._stream, GROUP, *(number for number, _ in entries))
            pipe.execute()
        self.taken.entries += len(entries)
        self.taken.decisions += decisions
        self.taken.reports += reports
        self.taken.refused += len(refused)
        self.taken.lost += len(lost)

    def _store(self, connection: sqlite3.Connection, fields: Fields) -> bool:
        """Writes one entry; whether it is a decision. Raises before it writes anything."""
        request_id = fields[b"request_id"].decode()
        if fields[b"kind"] == b"feedback":
            events, received_us = read_report(fields[b"body"])
            report = Report(request_id, dict(enumerate(events)), [], received_us)
            store_feedback(connection, [report], self._log.window_us)
            return False
        if connection.execute("SELECT 1 FROM tombstone WHERE request_id = ?", (request_id,)).fetchone():
            return True  # erased: it must not be kept anywhere
        decision = decode(fields[b"body"], fields[b"checksum"])
        if decision.request_id != request_id:
            raise LogError(f"request {request_id!r}: the record is of {decision.request_id!r}")
        encoded = EncodedDecision(
            request_id, decision.user_id, to_us(decision.decided_at), pack_shown(decision.page),
            fields[b"body"], fields[b"checksum"],
        )  # fmt: skip
        insert_decision(connection, encoded, self._log.window_us)
        marks = set(fields.get(b"marks", b"").decode().split(",")) & set(MARKS)
        add_marks(connection, request_id, sorted(marks))
        return True


def _order(number: bytes | str) -> tuple[int, int]:
    """An entry's id as it is ordered."""
    text = number.decode() if isinstance(number, bytes) else number
    time_ms, _, place = text.partition("-")
    return int(time_ms), int(place or 0)
