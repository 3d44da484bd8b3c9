"""What the OpenAPI document says beyond what FastAPI can know: statuses, keys, bounds of paths, shapes of answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from api.wire.examples import ANSWERS

_ID = {"minLength": 1, "maxLength": 256, "pattern": r"^[^\x00-\x1f]+$"}
BOUNDS: dict[str, dict[str, Any]] = {
    "user_id": _ID,
    "item_id": _ID,
    "request_id": {"minLength": 1},
    "name": {"enum": ["loop.json", "loop.svg", "loop.parquet"]},
}
MAPS = {"contributions", "parameters", "gate", "damaged", "dropped_by"}  # with names of their own, or absent
UNKNOWN = {"state", "erased"}  # objects that may be null
WORDS = {
    "400": "The body is not JSON, or the request is not HTTP",
    "401": "No known key was given",
    "403": "The key is not for this, or the service is not called by its name",
    "404": "There is no such thing",
    "409": "It cannot be done in the present state",
    "413": "The body is over 1 MB",
    "415": "The content type is not application/json",
    "422": "A value is not what was expected",
    "429": "Too many requests; Retry-After says when to come again",
    "503": "Busy, or a store cannot be read or written; Retry-After says when to come again",
    "504": "Stored, and not taken up by every worker in time",
}
ALWAYS = ("403", "429", "503")
WITH_BODY = ("400", "413", "415", "422")
OF: dict[str, tuple[str, ...]] = {
    "POST /v1/home": ("401", "409"),
    "POST /v1/rank": ("401", "409"),
    "POST /v1/feedback": ("401",),
    "POST /v1/sessions": ("401", "409"),
    "POST /v1/models": ("409", "504"),
    "POST /v1/control": ("504",),
    "DELETE /v1/items/{item_id}": ("504",),
    "DELETE /v1/takedowns/{item_id}": ("404", "504"),
    "GET /v1/items/{item_id}": ("404",),
    "GET /v1/listeners/{user_id}": ("404",),
    "GET /v1/listeners/{user_id}/similar": ("404", "409"),
    "GET /v1/listeners/{user_id}/profile": ("404",),
    "GET /v1/decisions/{request_id}": ("404",),
    "GET /v1/decisions/{request_id}/why": ("404",),
    "GET /v1/operate/report": ("404",),
    "POST /v1/operate/verification": ("409", "415"),
    "POST /v1/simulation": ("409",),
    "DELETE /v1/simulation": ("409",),
    "GET /v1/simulation/{name}": ("404",),
}


def describe(document: dict[str, Any], administration: Collection[tuple[str, str]], problem: dict[str, Any]) -> None:
    """Adds them to a document. administration: method and path of the calls that always ask for a key. problem: the
    content of every error."""
    document["components"]["securitySchemes"] = {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            admin = (method.upper(), path) in administration
            if admin or path in ("/v1/home", "/v1/rank", "/v1/feedback", "/v1/sessions"):
                operation["security"] = [{"key": []}] if admin else [{"key": []}, {}]
            parameters = operation.get("parameters", [])
            for parameter in parameters:
                parameter["schema"].update(BOUNDS.get(parameter["name"], {}))
            statuses = {*ALWAYS, *OF.get(route, ()), *(("401",) if admin else ())}
            statuses |= set(WITH_BODY) if "requestBody" in operation else {"422"} if parameters else set()
            for status in sorted(statuses):
                operation["responses"][status] = {"description": WORDS[status], "content": problem}
            if route in ANSWERS:
                good = min(code for code in operation["responses"] if code.startswith("2"))
                operation["responses"][good]["content"]["application/json"]["schema"] = shape(ANSWERS[route])


def shape(example: Any) -> dict[str, Any]:
    """The schema of an answer by its example: fields are there, more may come; what can be unknown may be null."""
    if isinstance(example, dict):
        fixed = {name: shape(value) for name, value in example.items() if name not in MAPS}
        for name in UNKNOWN & set(fixed):
            fixed[name]["type"] = ["object", "null"]
        maps = {name: {"type": "object"} for name in example if name in MAPS}
        return {"type": "object", "properties": {**fixed, **maps}, **({"required": sorted(fixed)} if fixed else {})}
    if isinstance(example, list):
        return {"type": "array", "items": shape(example[0]) if example else {}}
    if example is None:
        return {}
    kind = "boolean" if isinstance(example, bool) else "string" if isinstance(example, str) else "number"
    return {"type": [kind, "null"]}
