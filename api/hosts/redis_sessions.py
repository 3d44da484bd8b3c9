"""Listening sessions as clients report them, in Redis, for API workers on several hosts; as
`api.hosts.running_sessions`.

Keys: NAME:session:USER a hash: session id to a small header and the body; it lives as long as its newest session may
matter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from api.hosts.running_sessions import CLAIMED_S, RUNNING_S, UNMET
from bart.errors import StoreError
from recommender.states.redis_store import reaching

_HEAD = struct.Struct("<BIq")  # final, plays, updated_s


class RedisSessions:
    """Sessions by listener, with the calls of `RunningSessions`. Threads, processes and hosts may share it."""

    def __init__(self, client: Any, name: str = "bart") -> None:
        self._client = client
        self._name = name

    def put(self, user_id: str, session_id: str, plays: int, body: bytes, now_s: int) -> bool:
        """Keeps a running session; False where a final or longer report of it is known already (this one is late)."""

        def change(known: tuple[int, int, int, bytes] | None) -> tuple[int, int, int, bytes] | None:
            late = known is not None and (known[0] or known[1] > plays)
            return None if late else (0, plays, now_s, body)

        return self._change(user_id, session_id, change)

    def claim(self, user_id: str, session_id: str, now_s: int, body: bytes = b"") -> bool:
        """Keeps what a final session held, in one write; False where it was final already. One that an earlier version
        claimed and lost is claimed again."""
        return self._change(
            user_id,
            session_id,
            lambda known: None if known is not None and known[0] and known[3] else (1, 0, now_s, body),
        )

    def settle(self, user_id: str, session_id: str, body: bytes) -> None:
        """Keeps which batches a final session is committed to, with what it held: others may have to hear of it."""
        self._change(user_id, session_id, lambda known: (*known[:3], body) if known is not None and known[0] else None)

    def kept(self, user_id: str, session_id: str) -> bytes:
        """The body of a final session; empty without one, or where an earlier version kept none."""
        with reaching():
            value = self._client.hget(self._key(user_id), session_id)
        final, _, _, body = (0, 0, 0, b"") if value is None else _read(value)
        return body if final else b""

    def running(self, user_id: str, now_s: int) -> bytes | None:
        """The body of the listener's running session, the one reported last; None without one.

        None too while the server does not answer: a page without the running session is better than none.
        """
        try:
            with reaching():
                found = self._client.hvals(self._key(user_id))
        except StoreError:
            return None
        running = [s for s in map(_read, found) if not s[0] and s[2] >= now_s - RUNNING_S]
        return max(running, key=lambda s: s[2])[3] if running else None

    def unmet(self) -> Iterator[tuple[str, str, bytes]]:
        """User id, session id and body of final sessions that no batch has met: who took them was killed."""
        return (one for one in self.finished(0) if one[2].startswith(UNMET))

    def finished(self, since_s: int, user_id: str | None = None) -> Iterator[tuple[str, str, bytes]]:
        """User id, session id and body of the sessions committed from `since_s` on, of one listener or of all."""
        with reaching():
            prefix = f"{self._name}:session:"
            keys = [self._key(user_id).encode()] if user_id is not None else self._client.scan_iter(f"{prefix}*")
            for key in keys:
                user = key.decode()[len(prefix) :]
                for session_id, value in self._client.hgetall(key).items():
                    final, _, updated_s, body = _read(value)
                    if final and updated_s >= since_s and body:
                        yield user, session_id.decode(), body

    def forget(self, user_id: str) -> int:
        """Removes a listener's sessions; how many there were."""
        with reaching(), self._client.pipeline() as pipe:
            pipe.hlen(self._key(user_id))
            pipe.delete(self._key(user_id))
            return int(pipe.execute()[0])

    def forget_old(self, now_s: int) -> None:
        """Removes what can matter to nobody any more."""
        with reaching():
            for key in self._client.scan_iter(f"{self._name}:session:*"):
                for session_id, value in self._client.hgetall(key).items():
                    final, _, updated_s, _ = _read(value)
                    if updated_s < now_s - (CLAIMED_S if final else RUNNING_S):
                        self._client.hdel(key, session_id)

    def close(self) -> None:
        """The client is the caller's: nothing is left to close."""

    def _change(
        self,
        user_id: str,
        session_id: str,
        change: Callable[[tuple[int, int, int, bytes] | None], tuple[int, int, int, bytes] | None],
    ) -> bool:
        """Replaces one session in one step; False where `change` left it alone."""
        from redis.exceptions import WatchError

        key = self._key(user_id)
        while True:
            try:
                with reaching(), self._client.pipeline() as pipe:
                    pipe.watch(key)
                    value = pipe.hget(key, session_id)
                    after = change(None if value is None else _read(value))
                    if after is None:
                        return False
                    pipe.multi()
                    pipe.hset(key, session_id, _HEAD.pack(*after[:3]) + after[3])
                    pipe.expire(key, CLAIMED_S)
                    pipe.execute()
                    return True
            except WatchError:
                continue

    def _key(self, user_id: str) -> str:
        return f"{self._name}:session:{user_id}"


def _read(value: bytes) -> tuple[int, int, int, bytes]:
    final, plays, updated_s = _HEAD.unpack_from(value)
    return final, plays, updated_s, value[_HEAD.size :]
