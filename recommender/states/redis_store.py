"""Listeners in Redis, for API workers on several hosts: the same rows and rules as `SqliteListenerStore`.

Needs the extra `redis`. Keys, all under one name:

    NAME:listener:BATCH:USER     the packed row
    NAME:exposure:BATCH:USER     a hash: item row to "times,last_s,page", see `recommender.states.resting`
    NAME:ids:BATCH               a sorted set: the user ids of a batch (NAME:listeners:BATCH of earlier versions, a set)
    NAME:batches                 a hash: batch id to the length of its states
    NAME:heard:BATCH             a hash: a part of the events to a note that the states hold all of it
    NAME:done:DIGEST             that a change was carried out; kept for a day where it has a name, else a minute

Read, advance, write is one step: WATCH, then MULTI/EXEC, again where another writer came between. When the answer to
EXEC is lost, nobody knows whether it was carried out; so the same EXEC writes NAME:done:DIGEST, and a repetition looks
there first. States are as durable as the server's append-only file: with `appendfsync always` a session that was
acknowledged is on the disk.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import blake2b
from itertools import islice, pairwise
from typing import Any
from uuid import uuid4

import numpy as np

from bart.errors import SchemaMismatch, StoreError
from bart.types import Floats32, Ints
from recommender.features.history import History
from recommender.features.tables import Histories
from recommender.features.usage import Usage
from recommender.listener.model import HEADER, ListenerModel
from recommender.states.resting import RestConfig, counted_exposures
from recommender.states.store import LAST_LETTER, NO_USAGE, ListenerRow, StoredListeners

NAME = "bart"
TIMEOUT_S = 1.0  # for a connection and for an answer
AWAY_S = 1.0  # a server that did not answer is not asked again for so long, where there is a fallback
_DONE_S = 86_400
_UNNAMED_DONE_S = 60
_CHUNK = 500  # rows a round trip
_VERSION = 1  # 2 where a history comes last, 3 where the lengths of history and usage do and then both
_LAST = struct.Struct("<2I")
_HEAD = struct.Struct("<BBqdd6I")  # version, flags, made_at_s, diversity, success, then six lengths
_MADE, _DIVERSITY, _SUCCESS, _START = (1 << i for i in range(4))


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Any:
    """A client of the server at redis://HOST:PORT/DB. Nothing is sent yet, and nothing is ever sent twice by itself.

    Raises ValueError for what is no such address, and StoreError where the extra `redis` is not installed.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise StoreError("the Python package redis is missing; expected pip install 'bart-home[redis]'") from None
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(f"store url is {url!r:.80}; expected redis://HOST:PORT/DB")
    return redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


class RedisListenerStore(StoredListeners):
    """The listeners of one batch in Redis.

    client: of `connect`; the caller's, and closed by the caller. name: what all keys begin with. fallback: read from
    while the server does not answer (`stale` says so); nothing is written to it: writing raises StoreError then. Safe
    for many threads, processes and hosts.
    """

    def __init__(
        self,
        client: Any,
        model: ListenerModel,
        batch_id: str,
        *,
        cold_vector: Floats32 | None = None,
        name: str = NAME,
        fallback: StoredListeners | None = None,
        histories: Histories | None = None,
    ) -> None:
        super().__init__(model, batch_id, cold_vector, histories)
        self._client = client
        self._name = name
        self._fallback = fallback
        self._local = threading.local()
        self._away_until = 0.0
        self._users = f"{name}:ids:{batch_id}"
        self._batches = f"{name}:batches"
        try:
            with reaching():
                known = client.hget(self._batches, batch_id)
                _sort_ids(client, batch_id, name)
        except StoreError:
            if fallback is None:
                raise
            return
        if known is not None and int(known) != model.state_size:
            raise SchemaMismatch(
                f"states of batch {batch_id} have {int(known)} numbers, the model's have {model.state_size}: states of "
                "different batches cannot be compared"
            )

    @property
    def stale(self) -> bool:
        """Whether what this thread read last came from the fallback."""
        return bool(getattr(self._local, "stale", False))

    def get(self, user_id: str) -> ListenerRow | None:
        if self._fallback is not None and time.monotonic() < self._away_until:
            self._local.stale = True
            return self._fallback.get(user_id)
        try:
            with reaching():
                value = self._client.get(self._row_key(user_id))
        except StoreError:
            if self._fallback is None:
                raise
            self._away_until = time.monotonic() + AWAY_S
            self._local.stale = True
            return self._fallback.get(user_id)
        self._local.stale = False
        return None if value is None else self.checked(_unpack(user_id, value))

    def put_many(self, rows: Iterable[ListenerRow]) -> int:
        """As in the base; some hundred rows a transaction, each of them whole."""
        return self._put(rows, keep=False)

    def fill(self, rows: Iterable[ListenerRow]) -> int:
        """Stores the listeners whose id is not known yet in this batch; how many were given."""
        return self._put(rows, keep=True)

    def saw(
        self, user_id: str, page: str, seen: Ints, streamed: Ints, at: datetime, config: RestConfig | None = None
    ) -> Ints:
        at_s = int(at.timestamp())
        key = self._exposure_key(user_id)
        rested: Ints = np.empty(0, dtype=np.int64)

        def change(pipe: Any) -> Callable[[Any], None]:
            nonlocal rested
            known = {int(row): _exposure(text) for row, text in pipe.hgetall(key).items()}
            value = pipe.get(self._row_key(user_id))
            after, rested = counted_exposures(known, seen, streamed, page, at_s, config or RestConfig())
            row = None if value is None else _unpack(user_id, value)
            changed = self.resting(user_id, row, rested, at_s)

            def write(pipe: Any) -> None:
                pipe.delete(key)
                if after:
                    pipe.hset(key, mapping={row: f"{kept[0]},{kept[1]},{kept[2]}" for row, kept in after.items()})
                if changed is not None:
                    self._queue(pipe, changed)

            return write

        self._transaction((self._row_key(user_id), key), change)
        return rested

    def user_ids(self) -> list[str]:
        try:
            with reaching():
                return [user.decode() for user in self._client.zrangebylex(self._users, "-", "+")]
        except StoreError:
            if self._fallback is None:
                raise
            return self._fallback.user_ids()

    def ids_from(self, prefix: str = "", after: str = "", limit: int = 200) -> list[str]:
        low = f"({after}" if after >= prefix and after else f"[{prefix}"
        try:
            with reaching():
                found = self._client.zrangebylex(
                    self._users, low.encode(), f"({prefix}{LAST_LETTER}".encode(), start=0, num=limit
                )
        except StoreError:
            if self._fallback is None:
                raise
            return self._fallback.ids_from(prefix, after, limit)
        return [user.decode() for user in found]

    def __len__(self) -> int:
        with reaching():
            return int(self._client.zcard(self._users))

    def heads(self, user_ids: Sequence[str]) -> dict[str, Floats32]:
        found: dict[str, Floats32] = {}
        for first in range(0, len(user_ids), _CHUNK):
            some = user_ids[first : first + _CHUNK]
            with reaching(), self._client.pipeline(transaction=False) as pipe:
                for user_id in some:
                    pipe.getrange(self._row_key(user_id), _HEAD.size, _HEAD.size + 4 * HEADER - 1)
                values = pipe.execute()
            found |= {user: np.frombuffer(head, "<f4") for user, head in zip(some, values, strict=True) if head}
        return found

    def parts_heard(self) -> dict[str, str]:
        with reaching():
            noted = self._client.hgetall(_heard_key(self._name, self.batch_id))
        return {part.decode(): note.decode() for part, note in noted.items()}

    def note_parts_heard(self, parts: Mapping[str, str]) -> None:
        key = _heard_key(self._name, self.batch_id)
        with reaching(), self._client.pipeline() as pipe:
            pipe.delete(key)
            if parts:
                pipe.hset(key, mapping=dict(parts))
            pipe.execute()

    def batches_of(self, user_id: str) -> set[str]:
        batches = stored_batches(self._client, self._name)
        with reaching():
            return {b for b in batches if self._client.exists(f"{self._name}:listener:{b}:{user_id}")}

    def forget(self, user_id: str) -> int:
        """Removes a listener from all batches; how many states there were.

        The append-only file still tells of the listener until it is rewritten, which is asked for here and is done in
        the background.
        """
        gone = 0
        with reaching():
            for batch_id in stored_batches(self._client, self._name):
                with self._client.pipeline() as pipe:
                    pipe.delete(f"{self._name}:listener:{batch_id}:{user_id}")
                    pipe.delete(f"{self._name}:exposure:{batch_id}:{user_id}")
                    pipe.zrem(f"{self._name}:ids:{batch_id}", user_id)
                    pipe.srem(f"{self._name}:listeners:{batch_id}", user_id)
                    gone += int(pipe.execute()[0])
            if gone and self._client.info("persistence").get("aof_enabled"):
                _rewrite(self._client)
        return gone

    def drop_batch(self, batch_id: str) -> None:
        drop_batch(self._client, batch_id, self._name)

    def close(self) -> None:
        """Closes the fallback; the client is the caller's."""
        super().close()
        if self._fallback is not None:
            self._fallback.close()

    # ------------------------------------------------------------------------------------------------------ machinery

    def _update(self, user_id: str, change: Callable[[ListenerRow | None], ListenerRow | None], once: str = "") -> None:
        key = self._row_key(user_id)

        def step(pipe: Any) -> Callable[[Any], None] | None:
            value = pipe.get(key)
            row = change(None if value is None else self.checked(_unpack(user_id, value)))
            return None if row is None else lambda pipe: self._queue(pipe, row)

        self._transaction((key,), step, f"{self.batch_id}\0{user_id}\0{once}" if once else "")

    def _transaction(
        self, keys: tuple[str, ...], change: Callable[[Any], Callable[[Any], None] | None], once: str = ""
    ) -> None:
        """Reads under WATCH, writes under MULTI/EXEC, again until no other writer came between."""
        from redis.exceptions import WatchError

        digest = blake2b((once or uuid4().hex).encode(), digest_size=16).hexdigest()
        done = f"{self._name}:done:{digest}"
        look = bool(once)  # an unnamed change can only have been carried out after a first try
        while True:
            try:
                with reaching(), self._client.pipeline() as pipe:
                    pipe.watch(*keys)
                    if look and pipe.exists(done):
                        return
                    write = change(pipe)
                    if write is None:
                        return
                    pipe.multi()
                    write(pipe)
                    pipe.set(done, 1, ex=_DONE_S if once else _UNNAMED_DONE_S)
                    pipe.execute()
                    return
            except WatchError:  # another writer, or a connection that broke while we watched
                look = True

    def _queue(self, pipe: Any, row: ListenerRow) -> None:
        pipe.set(self._row_key(row.user_id), _pack(self.checked(row)))
        pipe.zadd(self._users, {row.user_id: 0})
        pipe.hset(self._batches, self.batch_id, self.model.state_size)

    def _put(self, rows: Iterable[ListenerRow], keep: bool) -> int:
        count = 0
        given = iter(rows)
        while some := [self.checked(row) for row in islice(given, _CHUNK)]:
            with reaching(), self._client.pipeline() as pipe:
                pipe.hset(self._batches, self.batch_id, self.model.state_size)
                for row in some:
                    pipe.set(self._row_key(row.user_id), _pack(row), nx=keep)
                pipe.zadd(self._users, {row.user_id: 0 for row in some})
                pipe.execute()
            count += len(some)
        return count

    def _row_key(self, user_id: str) -> str:
        return f"{self._name}:listener:{self.batch_id}:{user_id}"

    def _exposure_key(self, user_id: str) -> str:
        return f"{self._name}:exposure:{self.batch_id}:{user_id}"


def stored_batches(client: Any, name: str = NAME) -> set[str]:
    """Ids of the batches of which there are listeners."""
    with reaching():
        return {batch.decode() for batch in client.hkeys(f"{name}:batches")}


def drop_batch(client: Any, batch_id: str, name: str = NAME) -> None:
    """Forgets all listeners of a batch."""
    users = f"{name}:ids:{batch_id}"
    with reaching():
        _sort_ids(client, batch_id, name)
        while some := client.zrange(users, 0, _CHUNK - 1):
            kinds = ("listener", "exposure")
            with client.pipeline() as pipe:
                pipe.delete(*(f"{name}:{kind}:{batch_id}:{user.decode()}" for user in some for kind in kinds))
                pipe.zrem(users, *some)
                pipe.execute()
        client.hdel(f"{name}:batches", batch_id)
        client.delete(_heard_key(name, batch_id))


def _heard_key(name: str, batch_id: str) -> str:
    return f"{name}:heard:{batch_id}"


def _sort_ids(client: Any, batch_id: str, name: str) -> None:
    """Moves the ids that an earlier version keeps in a set, which has no order, to the sorted one."""
    unsorted = f"{name}:listeners:{batch_id}"
    while some := client.srandmember(unsorted, _CHUNK):
        with client.pipeline() as pipe:
            pipe.zadd(f"{name}:ids:{batch_id}", dict.fromkeys(some, 0))
            pipe.srem(unsorted, *some)
            pipe.execute()


@contextmanager
def reaching() -> Iterator[None]:
    """What the client raises becomes StoreError, but for another writer's coming between."""
    from redis.exceptions import RedisError, WatchError

    try:
        yield
    except WatchError:
        raise
    except (RedisError, OSError) as error:
        raise StoreError(f"the Redis store does not serve: {error}") from error


def _rewrite(client: Any) -> None:
    from redis.exceptions import ResponseError

    try:
        client.bgrewriteaof()
    except ResponseError:  # one is under way already and may have begun before: another is scheduled by the server
        return


def _exposure(text: bytes) -> tuple[int, int, str]:
    times, last_s, page = text.decode().split(",", 2)
    return int(times), int(last_s), page


def _pack(row: ListenerRow) -> bytes:
    """A row as bytes, without its user id."""
    parts = [
        np.asarray(row.state, "<f4").tobytes(),
        *(np.asarray(rows, "<i4").tobytes() for rows in (row.recent, row.favourite, row.rested)),
        json.dumps(sorted(row.blocked_artists)).encode() if row.blocked_artists else b"",
        b"" if row.start is None else np.asarray(row.start, "<f4").tobytes(),
    ]
    given = (row.made_at_s, row.diversity, row.exploration_success, row.start)
    flags = sum(flag for flag, value in zip((_MADE, _DIVERSITY, _SUCCESS, _START), given, strict=True)
                if value is not None)  # fmt: skip
    history = b"" if row.history is None else row.history.to_bytes()
    usage = row.usage.to_bytes()
    head = _HEAD.pack(
        _VERSION + 2, flags, row.made_at_s or 0, row.diversity or 0.0, row.exploration_success or 0.0, *map(len, parts)
    )
    return head + b"".join((*parts, _LAST.pack(len(history), len(usage)), history, usage))


def _unpack(user_id: str, value: bytes) -> ListenerRow:
    """The row that `_pack` packed. Raises StoreError for other bytes."""
    if len(value) < _HEAD.size or value[0] not in (_VERSION, _VERSION + 1, _VERSION + 2):
        raise StoreError(f"the stored listener {user_id!r} is of no known form; expected version 1, 2 or 3")
    version, flags, made_at_s, diversity, success, *sizes = _HEAD.unpack_from(value)
    end = np.cumsum([_HEAD.size, *sizes]).tolist()
    state, recent, favourite, rested, blocked, start = (value[a:b] for a, b in pairwise(end))
    recent_rows, favourite_rows, rested_rows = (
        np.frombuffer(rows, "<i4").astype(np.int64) for rows in (recent, favourite, rested)
    )
    return ListenerRow(
        user_id,
        np.frombuffer(state, "<f4"),
        recent_rows,
        favourite_rows,
        rested_rows,
        made_at_s if flags & _MADE else None,
        diversity if flags & _DIVERSITY else None,
        success if flags & _SUCCESS else None,
        frozenset(json.loads(blocked)) if blocked else frozenset(),
        np.frombuffer(start, "<f4") if flags & _START else None,
        *_last(value[end[-1] :], version),
    )


def _last(value: bytes, version: int) -> tuple[History | None, Usage]:
    """History and usage, from the bytes that come after the rest of a row."""
    if version <= _VERSION + 1:
        return History.from_bytes(value) if version > _VERSION else None, NO_USAGE
    history, usage = _LAST.unpack_from(value)
    between = _LAST.size + history
    own = value[between : between + usage]
    return History.from_bytes(value[_LAST.size : between]) if history else None, Usage.from_bytes(own)
