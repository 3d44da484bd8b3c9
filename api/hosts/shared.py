"""What several hosts share through Redis: listener states, reported sessions, and the way to the decision log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.hosts.redis_sessions import RedisSessions
from api.hosts.spool import Spool
from api.hosts.stream_sink import StreamSink
from bart.errors import StoreError
from bart.item_store import load_items
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent, FeedbackResult
from bart.types import Context, Decision, Floats32, Listener
from recommender.features.source import open_features
from recommender.features.tables import Histories
from recommender.listener.model import ListenerModel, Session
from recommender.states.preferences import LeftOut, Preferences, SqlitePreferences
from recommender.states.redis_preferences import RedisPreferences
from recommender.states.redis_store import (
    AWAY_S,
    RedisListenerStore,
    connect,
    drop_batch,
    reaching,
    stored_batches,
)
from recommender.states.states import ListenerRow, SqliteListenerStore, StoredListeners, load_listener_model
from recommender.states.store import Heard

if TYPE_CHECKING:
    from api.run.runs import RunPaths
    from api.run.settings import Settings
    from bart.bundle import Bundle

SPOOL_FILE = "spool.sqlite"

_log = logging.getLogger("bart.shared")
_thread = threading.local()


@dataclass(frozen=True)
class Shared:
    """An open server. name: what all keys begin with. stream: whether decisions go through it too."""

    client: Any
    name: str
    stream: bool

    def listeners(
        self,
        embedded: Path,
        model: ListenerModel,
        batch_id: str,
        cold: Floats32 | None,
        histories: Histories | None,
        *,
        serving: bool = True,
    ) -> StoredListeners:
        """The listeners of a batch, filled from the file that the batch was built with where that was not done yet.

        embedded: RUN/listeners.sqlite. serving: read from it while the server does not answer.
        """
        own = SqliteListenerStore(embedded, model, batch_id, cold_vector=cold, histories=histories)
        try:
            store = self._served(own, model, batch_id, cold, serving)
        except BaseException:
            own.close()
            raise
        return store

    def _served(
        self, own: SqliteListenerStore, model: ListenerModel, batch_id: str, cold: Floats32 | None, serving: bool
    ) -> StoredListeners:
        store = _ServedListeners(self.client, model, batch_id, cold, self.name, own, serving)
        if not serving:
            store.ensure_filled()
            own.close()
            store.closing = self
        return store

    def sessions(self) -> RedisSessions:
        """Reported sessions, shared by all hosts."""
        return RedisSessions(self.client, self.name)

    def preferences(self, copy: Path) -> RedisPreferences:
        """What listeners ask for. copy: the file of this host that follows it."""
        return RedisPreferences(self.client, SqlitePreferences(copy), self.name)

    def keep_batches(self, kept: set[str]) -> None:
        """Forgets the listeners of all other batches."""
        for batch_id in stored_batches(self.client, self.name) - kept:
            drop_batch(self.client, batch_id, self.name)
            self.client.srem(f"{self.name}:filled", batch_id)

    def log(self, run: Path, path: Path, **options: Any) -> DecisionLog:
        """The log of a service on this host: through the stream, or the host's own with marks."""
        if not self.stream:
            return MarkedLog(path, **options)
        sink = StreamSink(self.client, Spool(run / SPOOL_FILE), self.name, marks=marks)
        return StreamedLog(path, sink, **options)

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()


def open_shared(settings: Settings) -> Shared | None:
    """The server that the settings name, None where they name none. It need not answer yet."""
    asked = settings.store
    if not asked.url:
        return None
    return Shared(connect(asked.url), asked.name, asked.stream)


def warnings_of(client: Any) -> Iterator[str]:
    """What of the server's settings lets acknowledged data be lost, a line each. Raises the client's errors."""
    from redis.exceptions import ResponseError

    try:
        found = {k: client.config_get(k).get(k) for k in ("appendonly", "appendfsync", "maxmemory-policy")}
    except ResponseError:  # a hosted server may not tell
        return
    if found["appendonly"] != "yes":
        yield "appendonly is off: what was acknowledged is lost when the Redis server ends; expected appendonly yes"
    elif found["appendfsync"] != "always":
        yield f"appendfsync is {found['appendfsync']}: the last second or two may be lost; expected appendfsync always"
    if found["maxmemory-policy"] != "noeviction":
        yield f"maxmemory-policy is {found['maxmemory-policy']}: states may be evicted; expected noeviction"


def tell_risks(client: Any) -> None:
    """Tells in the log of the process what `warnings_of` finds; nothing where the server does not answer."""
    from redis.exceptions import RedisError

    try:
        for text in warnings_of(client):
            _log.warning("%s", text)
    except (RedisError, OSError) as error:
        _log.warning("the Redis server does not answer: %s", error)


def marks() -> Sequence[str]:
    """Marks of the page that this thread decides: whether its listener came from the host's own file."""
    return ("embedded_state",) if getattr(_thread, "stale", False) else ()


class _ServedListeners(RedisListenerStore):
    """Filled from the file of its batch before it is first asked, and notes for `marks` where a listener came from.

    closing: what to close with it.
    """

    closing: Shared | None = None

    def __init__(
        self,
        client: Any,
        model: ListenerModel,
        batch_id: str,
        cold: Floats32 | None,
        name: str,
        own: SqliteListenerStore,
        serving: bool,
    ) -> None:
        fallback = own if serving else None
        super().__init__(
            client, model, batch_id, cold_vector=cold, name=name, fallback=fallback, histories=own.histories
        )
        self._own = own
        self._marker = f"{name}:filled"
        self._filled = self._refilling = self._closed = False
        self._filling = threading.Lock()
        self._refiller: threading.Thread | None = None
        self._marker_seen = float("-inf")

    def ensure_filled(self) -> None:
        """Brings the batch's listeners to the server, unless that was done; those that are there stay.

        Raises StoreError where the server does not answer.
        """
        from redis.exceptions import RedisError

        with self._filling:
            if self._filled:
                return
            try:
                if not self._client.sismember(self._marker, self.batch_id):
                    count = self.fill(self._owned())
                    self._client.sadd(self._marker, self.batch_id)
                    _log.info("%d listeners of batch %s brought to the shared store", count, self.batch_id)
            except (RedisError, OSError) as error:
                raise StoreError(f"the Redis store does not serve: {error}") from error
            self._filled = True

    def get(self, user_id: str) -> ListenerRow | None:
        if not self._filled and self._fallback is not None:
            if self._refilling:
                self._local.stale = True
                return self._own.get(user_id)
            try:
                self.ensure_filled()
            except StoreError:
                self._local.stale = True
                return self._own.get(user_id)
        found = super().get(user_id)
        if found is None and not self.stale and self._was_emptied():
            self._local.stale = True
            return self._own.get(user_id)
        return found

    def probe(self) -> None:
        """Raises StoreError where the server was emptied while it was served from, until its listeners are back."""
        if self._refilling or self._was_emptied(at_once=True):
            raise StoreError("the shared store was emptied; its listeners are being brought back")
        super().probe()

    def _was_emptied(self, at_once: bool = False) -> bool:
        """Whether the server holds nothing of this batch any more; its listeners are then brought there again.

        They are as the batch was built: what was heard since was on the server alone. Looked for once a second, where a
        listener is not known.
        """
        if self._fallback is None or not self._filled:
            return False
        if not at_once and time.monotonic() - self._marker_seen < AWAY_S:
            return False
        self._marker_seen = time.monotonic()
        try:
            with reaching():
                if self._client.sismember(self._marker, self.batch_id):
                    return False
        except StoreError:
            return False
        with self._filling:
            self._filled, self._refilling = False, True
        _log.error("the shared store was emptied: bringing the listeners of batch %s back", self.batch_id)
        self._refiller = threading.Thread(target=self._refill, name="bart-refill", daemon=True)
        self._refiller.start()
        return True

    def _owned(self) -> Iterator[ListenerRow]:
        """The listeners of the batch as this process has them; ends in StoreError where it closes meanwhile."""
        for user in self._own.user_ids():
            if self._closed:
                raise StoreError("this process ends")
            if (row := self._own.get(user)) is not None:
                yield row

    def _refill(self) -> None:
        try:
            self.ensure_filled()
        except Exception:
            _log.exception("the listeners of batch %s could not be brought back; trying again", self.batch_id)
        finally:
            self._refilling = False  # where it failed, the next who asks tries again

    def listener(
        self, user_id: str, context: Context, running: Session | None = None, heard: Heard | None = None
    ) -> Listener:
        found = super().listener(user_id, context, running, heard)
        _thread.stale = self.stale
        return found

    def _update(self, user_id: str, change: Callable[[ListenerRow | None], ListenerRow | None], once: str = "") -> None:
        if not self._filled:
            self.ensure_filled()
        super()._update(user_id, change, once)

    def forget(self, user_id: str) -> int:
        if self._fallback is not None:
            self._own.forget(user_id)
        return super().forget(user_id)

    def close(self) -> None:
        self._closed = True
        if self._refiller is not None:
            self._refiller.join()  # it reads the store that is closed next
        super().close()
        if self.closing is not None:
            self.closing.close()


class MarkedLog(DecisionLog):
    """The decision log of this host, with marks where the shared store was away."""

    def append(self, decision: Decision) -> None:
        noted = marks()
        if noted:
            self.append_marked(decision, noted)
        else:
            super().append(decision)


class StreamedLog(DecisionLog):
    """Sends decisions and feedback to the one log; reads the log file of this host.

    Where the log's consumer runs on this host that file is the whole log; elsewhere it holds nothing, and only pages
    of the last hour can be looked up.
    """

    def __init__(self, path: str | Path, sink: StreamSink, **options: Any) -> None:
        super().__init__(path, **options)
        self.sink = sink
        sink.start()

    def append(self, decision: Decision) -> None:
        self.sink.append(decision)

    def feedback(
        self, request_id: str, events: Sequence[FeedbackEvent | Mapping[str, Any]], received_at: datetime
    ) -> FeedbackResult:
        return self.sink.feedback(request_id, events, received_at)

    def get(self, request_id: str) -> Decision | None:
        found = super().get(request_id)
        return found if found is not None else self.sink.get(request_id)

    def close(self) -> None:
        self.sink.close()
        super().close()


def listener_store(paths: RunPaths, bundle: Bundle, settings: Settings | None = None) -> StoredListeners:
    """The listeners of a bundle's batch for a job: where the settings say, without anything to fall back to."""
    model = load_listener_model(bundle.folder("listener"))
    _, histories = open_features(bundle.folder("listener"), load_items(bundle.folder("items")))
    shared = open_shared(settings) if settings is not None else None
    if shared is None:
        own = SqliteListenerStore(paths.listeners, model, bundle.batch_id, histories=histories)
        own.preferences = SqlitePreferences(paths.preferences)
        return own
    store = shared.listeners(paths.listeners, model, bundle.batch_id, None, histories, serving=False)
    store.preferences = shared.preferences(paths.preferences)
    return store


@contextmanager
def preferences_of(paths: RunPaths, settings: Settings) -> Iterator[Preferences]:
    """What the listeners of a run ask for, for a job."""
    shared = open_shared(settings)
    if shared is None:
        with closing(SqlitePreferences(paths.preferences)) as own:
            yield own
        return
    with closing(shared), closing(shared.preferences(paths.preferences)) as preferences:
        yield preferences


def left_out(paths: RunPaths, settings: Settings) -> LeftOut:
    """Whose listening a job of this run must not read."""
    with preferences_of(paths, settings) as preferences:
        return preferences.left_out()
