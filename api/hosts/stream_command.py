"""`bart log consume`: the receiving end of the transport as a process."""

from __future__ import annotations

import logging
import signal
import threading

from api.hosts.shared import tell_risks
from api.hosts.stream_consumer import StreamConsumer, Taken
from bart.errors import StoreError
from bart.log.decision_log import DecisionLog
from recommender.states.redis_store import connect

_ANSWER_S = 10.0  # longer than the server is asked to wait for entries


def consume(url: str, log: DecisionLog, name: str, consumer: str, claim_after_s: float, once: bool) -> Taken:
    """Takes entries until SIGTERM or Ctrl-C, or (`once`) until none is left; what was begun is committed.

    Raises StoreError with `once` where the server does not answer; without, it is waited for.
    """
    from redis.exceptions import RedisError

    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    client = connect(url, _ANSWER_S)
    try:
        tell_risks(client)
        return StreamConsumer(client, log, name, consumer, claim_after_s=claim_after_s).run(stop, until_empty=once)
    except (RedisError, OSError) as error:
        raise StoreError(f"the Redis server does not serve: {error}") from error
    finally:
        client.close()
        for number, handler in before.items():
            signal.signal(number, handler)
