"""What listeners ask for, in Redis, for API workers on several hosts; as `recommender.states.preferences`.

Keys:

    NAME:preferences            a hash: user id to the wishes as JSON
    NAME:preferences:number     of the latest change
    NAME:preferences:began      the number before the first change that the server knows: who followed less far gives it
                                what it lacks
    NAME:preferences:changes    a sorted set: user ids (of the erased a digest), by the number of their latest change
    NAME:preferences:erased     a hash: digest to the moment of erasure, microseconds UTC

Each host keeps a copy in its run, which follows the changes: a wish holds while the server is away, and after it was
emptied, when the copies bring back their wishes and whom they know to be erased. Numbers begin with the clock, so that
those after an emptying are higher than all before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bart.errors import StoreError
from bart.types.wishes import NO_WISHES, Wishes
from recommender.states.preferences import LeftOut, SqlitePreferences, body_of, subject_of, wishes_of
from recommender.states.redis_store import NAME, reaching

ERASED = b"\0"  # how a member begins that stands for an erased listener
_AT_ONCE = 1000  # changes


class RedisPreferences:
    """`Preferences` on a server. client: the caller's. copy: of this host, closed here."""

    def __init__(self, client: Any, copy: SqlitePreferences, name: str = NAME) -> None:
        self._client, self._copy = client, copy
        self._key, self._number = f"{name}:preferences", f"{name}:preferences:number"
        self._changes, self._erased = f"{name}:preferences:changes", f"{name}:preferences:erased"
        self._began = f"{name}:preferences:began"

    def create(self) -> None:
        """Makes the copy where there is none."""
        self._copy.create()

    def get(self, user_id: str) -> Wishes:
        """As in the protocol; of a server that is away, or was emptied, what the copy knows."""
        try:
            with reaching():
                body = self._client.hget(self._key, user_id)
        except StoreError:
            body = None
        return self._copy.get(user_id) if body is None else wishes_of(body.decode())

    def change(self, user_id: str, change: Callable[[Wishes], Wishes]) -> Wishes:
        after = NO_WISHES
        with reaching():
            self._bring_back()  # else an emptied server would take this for all that there is

        def write(pipe: Any) -> Callable[[int], None]:
            nonlocal after
            body = pipe.hget(self._key, user_id)
            after = change(self._copy.get(user_id) if body is None else wishes_of(body.decode()))

            def queue(number: int) -> None:
                if after == NO_WISHES:
                    pipe.hdel(self._key, user_id)
                else:
                    pipe.hset(self._key, user_id, body_of(after))
                pipe.zadd(self._changes, {user_id: number})

            return queue

        self._as_one_step(write)
        self._copy.change(user_id, lambda _: after)
        return after

    def erase(self, user_id: str, erased_us: int, *, wishes: bool = True) -> int:
        """As in the protocol; the copies of other hosts know within a second."""
        member = ERASED + subject_of(user_id)
        with reaching():
            self._bring_back()

        def write(pipe: Any) -> Callable[[int], None]:
            until_us = max(erased_us, int(pipe.hget(self._erased, member) or erased_us))

            def queue(number: int) -> None:
                if wishes:
                    pipe.hdel(self._key, user_id)
                    pipe.zrem(self._changes, user_id)
                pipe.hset(self._erased, member, until_us)
                pipe.zadd(self._changes, {member: number})

            return queue

        done = self._as_one_step(write)
        return max(int(done[0]) if wishes else 0, self._copy.erase(user_id, erased_us, wishes=wishes))

    def _as_one_step(self, write: Callable[[Any], Callable[[int], None]], count: int = 1) -> list[Any]:
        """Carries out changes up to the next number, or the next `count`; again where others came between, so that
        numbers are in the order in which changes hold, and whoever follows them misses none."""
        from redis.exceptions import WatchError

        while True:
            try:
                with reaching(), self._client.pipeline() as pipe:
                    pipe.watch(self._changes)
                    queue = write(pipe)
                    number = int(pipe.incrby(self._number, count))
                    pipe.multi()
                    queue(number)
                    done: list[Any] = pipe.execute()
                    return done
            except WatchError:
                continue

    def left_out(self) -> LeftOut:
        self.follow()
        return self._copy.left_out()

    def followers(self) -> dict[str, frozenset[str]]:
        self.follow()
        return self._copy.followers()

    def follow(self) -> bool:
        try:
            with reaching():
                return self._bring_back() or self._take_over(self._copy.followed()) is not None
        except StoreError:
            return False

    def close(self) -> None:
        self._copy.close()

    def _bring_back(self) -> bool:
        """Gives a server that was emptied, or is new to this host, what the copy knows and it does not; what is there
        already stays. Whether there was anything."""
        began = self._begun()
        if began <= self._copy.followed():
            return False
        since: int | None = 0
        while since is not None:
            since = self._take_over(since)
        bodies = {user_id.encode(): body for user_id, body in self._copy.stored()}
        erased = {ERASED + subject: at for subject, at in self._copy.left_out().erased_us.items()}
        members = [*bodies, *erased]
        parts = (members[k : k + _AT_ONCE] for k in range(0, len(members), _AT_ONCE))
        given = sum(self._give(part, bodies, erased) for part in parts)
        self._copy.take_over({}, {}, max(began, self._copy.followed()))
        return given > 0

    def _begun(self) -> int:
        """The number at which the server begins; made where there is none."""
        from redis.exceptions import WatchError

        while True:
            began = self._client.get(self._began)
            if began is not None:
                return int(began)
            try:
                with self._client.pipeline() as pipe:
                    pipe.watch(self._began, self._number)
                    known = int(pipe.get(self._number) or 0)
                    start = max(time.time_ns() // 1000, known, self._copy.followed()) + 1
                    pipe.multi()
                    pipe.set(self._began, start, nx=True)
                    pipe.set(self._number, start)
                    pipe.execute()
            except WatchError:
                continue

    def _give(self, members: list[bytes], bodies: dict[bytes, str], erased: dict[bytes, int]) -> int:
        """Writes what the server has no change of; how many."""
        count = 0

        def write(pipe: Any) -> Callable[[int], None]:
            nonlocal count
            with self._client.pipeline(transaction=False) as reader:
                for member in members:
                    reader.zscore(self._changes, member)
                missing = [member for member, at in zip(members, reader.execute(), strict=True) if at is None]
            count = len(missing)

            def queue(number: int) -> None:
                for k, member in enumerate(missing):
                    if member in bodies:
                        pipe.hset(self._key, member, bodies[member])
                    else:
                        pipe.hset(self._erased, member, erased[member])
                    pipe.zadd(self._changes, {member: number - k})

            return queue

        self._as_one_step(write, len(members))
        return count

    def _take_over(self, since: int) -> int | None:
        """Takes over the next changes behind a number; the number of the last of them, None without any."""
        found = self._client.zrangebyscore(self._changes, f"({since}", "+inf", 0, _AT_ONCE, withscores=True)
        if not found:
            return None
        users = [member.decode() for member, _ in found if not member.startswith(ERASED)]
        gone = [member for member, _ in found if member.startswith(ERASED)]
        times = self._client.hmget(self._erased, gone) if gone else []
        users += self._copy.users_of([member[len(ERASED) :] for member in gone])  # whose wishes may have gone too
        bodies = self._client.hmget(self._key, users) if users else []
        known = {user: None if body is None else body.decode() for user, body in zip(users, bodies, strict=True)}
        erased = {member[len(ERASED) :]: int(at) for member, at in zip(gone, times, strict=True) if at is not None}
        last = int(found[-1][1])
        self._copy.take_over(known, erased, last)
        return last
