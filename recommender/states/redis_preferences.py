"""What listeners ask for, in Redis, for API workers on several hosts; as `recommender.states.preferences`.

Keys:

    NAME:preferences            a hash: user id to the wishes as JSON
    NAME:preferences:number     of the latest change
    NAME:preferences:changes    a sorted set: user ids (of the erased a digest), by the number of their latest change
    NAME:preferences:erased     a hash: digest to the moment of erasure, microseconds UTC

Each host keeps a copy in its run, which follows the changes: a wish holds while the server is away, and after it was
emptied, when the copies bring their wishes back.
"""

from __future__ import annotations

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

        def write(pipe: Any) -> Callable[[int], None]:
            def queue(number: int) -> None:
                if wishes:
                    pipe.hdel(self._key, user_id)
                    pipe.zrem(self._changes, user_id)
                pipe.hset(self._erased, member, erased_us)
                pipe.zadd(self._changes, {member: number})

            return queue

        done = self._as_one_step(write)
        return max(int(done[0]) if wishes else 0, self._copy.erase(user_id, erased_us, wishes=wishes))

    def _as_one_step(self, write: Callable[[Any], Callable[[int], None]]) -> list[Any]:
        """Carries out a change under the next number; again where another came between, so that numbers are in the
        order in which changes hold, and whoever follows them misses none."""
        from redis.exceptions import WatchError

        while True:
            try:
                with reaching(), self._client.pipeline() as pipe:
                    pipe.watch(self._changes)
                    queue = write(pipe)
                    number = int(pipe.incr(self._number))
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
                return self._bring_back() or self._take_over()
        except StoreError:
            return False

    def close(self) -> None:
        self._copy.close()

    def _bring_back(self) -> bool:
        """Gives an emptied server what the copy knows; what is there already stays."""
        if self._client.exists(self._number):
            return False
        bodies = dict(self._copy.stored())
        with self._client.pipeline() as pipe:
            for number, (user_id, body) in enumerate(bodies.items(), 1):
                pipe.hsetnx(self._key, user_id, body)
                pipe.zadd(self._changes, {user_id: number}, nx=True)
            pipe.set(self._number, len(bodies), nx=True)
            pipe.execute()
        self._copy.take_over({}, {}, 0)
        return bool(bodies)

    def _take_over(self) -> bool:
        since = self._copy.followed()
        found = self._client.zrangebyscore(self._changes, f"({since}", "+inf", 0, _AT_ONCE, withscores=True)
        if not found:
            return False
        users = [member.decode() for member, _ in found if not member.startswith(ERASED)]
        gone = [member for member, _ in found if member.startswith(ERASED)]
        times = self._client.hmget(self._erased, gone) if gone else []
        users += self._copy.users_of([member[len(ERASED) :] for member in gone])  # whose wishes may have gone too
        bodies = self._client.hmget(self._key, users) if users else []
        known = {user: None if body is None else body.decode() for user, body in zip(users, bodies, strict=True)}
        erased = {member[len(ERASED) :]: int(at) for member, at in zip(gone, times, strict=True) if at is not None}
        self._copy.take_over(known, erased, int(found[-1][1]))
        return True
