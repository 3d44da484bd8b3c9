"""Retries: which request a page was decided for, told by an idempotency key and all that the request says.

Ids and seeds of requests with a key are made under the secret of the run, so that nobody outside can foretell a draw.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from hashlib import blake2b

from api.wire.schemas import RankRequest, VisitFields
from bart.types import Context, Decision
from bart.types.caller import query_rule

KEYED = 1 << 64  # seeds from here on are hashes of requests with an idempotency key


def id_of(request: VisitFields, secret: bytes) -> str:
    """The request id of a visit: of its user and key, or one that was never used."""
    if request.idempotency_key is None:
        return secrets.token_hex(16)
    text = f"{request.user_id}\0{request.idempotency_key}".encode()
    return blake2b(text, key=secret, digest_size=16).hexdigest()


def seed_of(request: VisitFields, secret: bytes) -> int:
    """The seed of the draw. With an idempotency key it is a hash of the whole request, so that the record tells which
    request it is of."""
    if request.seed is not None:
        return request.seed
    if request.idempotency_key is None:
        return secrets.randbits(62)
    told = f"{type(request).__name__}\0{request.model_dump_json()}".encode(errors="surrogatepass")
    return KEYED + int.from_bytes(blake2b(told, key=secret, digest_size=8).digest(), "big")


def context_of(request: VisitFields, at: datetime) -> Context:
    """The circumstances of a visit."""
    return Context(
        at=at,
        utc_offset_min=request.utc_offset_min(at),
        device=request.device,
        surface=request.surface,
        country=request.country,
        explicit_allowed=request.explicit_allowed,
        zone_known=request.tz is not None,
    )


def is_of(decision: Decision, request: VisitFields, secret: bytes, size: tuple[int, int], shadow: bool) -> bool:
    """Whether a request is the one that a decision was made for. size: rows and columns that it asks for; shadow:
    whether the decision is a page that nobody saw."""
    if decision.seed >= KEYED:
        return decision.seed == seed_of(request, secret)
    # Its seed was set by an administrator, or by an earlier version: what the record tells is compared.
    if request.seed not in (None, decision.seed) or request.at not in (None, decision.context.at):
        return False
    asked = context_of(request, decision.context.at), request.forced, request.shadow, size
    same = asked == (decision.context, decision.forced, shadow, (decision.rows, decision.columns))
    return same and (not isinstance(request, RankRequest) or _brought(decision, request))


def _brought(decision: Decision, request: RankRequest) -> bool:
    """Whether the candidates and scores of a decision are of the shelves that a caller brings."""
    query, shelves = request.query, request.shelves
    rules = [shelf.rule if query is None else query_rule(query) for shelf in shelves]
    words = [(rule, shelf.title) for rule, shelf in zip(rules, shelves, strict=True)]
    if [(shelf.rule, shelf.title) for shelf in decision.shelves] != words:
        return False
    given = {  # of a query the model makes scores of its own
        (number, item_id): None if shelf.scores is None or query is not None else shelf.scores[i]
        for number, shelf in enumerate(shelves)
        for i, item_id in enumerate(shelf.items)
    }
    decided = zip(decision.shelf.tolist(), decision.item_id.tolist(), decision.raw_score.tolist(), strict=True)
    return all(
        (number, item_id) in given and given[number, item_id] in (None, score) for number, item_id, score in decided
    )
