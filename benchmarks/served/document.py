"""The service's OpenAPI document: requests made from it, and answers held against it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import fastjsonschema

WORDS = (
    "u000001", "t1", "mobile", "SE", "Europe/Stockholm", "sv-SE", "default", "folk", "explore", "learning", "on", "off",
    "track", "song", "W1", "steady", "exploring", "a key", "☃ é", "",
)  # fmt: skip
TIMES = (
    "2026-02-03T04:05:06Z",
    "2026-11-30T23:59:59.999999+05:30",
    "1970-01-01T00:00:00Z",
    "2038-01-19T03:14:08+14:00",
)
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Operation:
    """One call of the document. admin: it asks for a key always."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def admin(self) -> bool:
        return self.described.get("security") == [{"key": []}]

    def is_of(self, method: str, path: str) -> bool:
        """Whether a request is of this call: ids in paths may hold slashes where no other call has that path."""
        return method == self.method and re.fullmatch(re.sub(r"\{\w+\}", ".+", self.path), path) is not None


class Document:
    """The document as it was answered. known: ids that requests take now and then, by the name of a parameter."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._schemas = document["components"]["schemas"]
        self.known: dict[str, list[str]] = {}
        self.operations = [
            Operation(method.upper(), path, described)
            for path, methods in document["paths"].items()
            for method, described in methods.items()
        ]
        self._checks: dict[tuple[str, str, str], Callable[[Any], Any]] = {}

    def request(self, operation: Operation, rng: random.Random) -> tuple[str, Any]:
        """Path with its query, and body, as the document lets a client send them."""
        path, query = operation.path, []
        for one in operation.described.get("parameters", ()):
            value = self._known(one["name"], rng) or self.value(one["schema"], rng)
            text = quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")
            if one["in"] == "path":
                path = path.replace(f"{{{one['name']}}}", text)
            elif one.get("required") or rng.random() < 0.3:
                query.append(f"{one['name']}={text}")
        asked = operation.described.get("requestBody")
        body = self.value(asked["content"]["application/json"]["schema"], rng) if asked else None
        return path + ("?" + "&".join(query) if query else ""), body

    def value(self, schema: dict[str, Any], rng: random.Random) -> Any:
        """Something that a schema allows, as far as one can tell by it alone."""
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], rng)
        if "anyOf" in schema:
            return self.value(rng.choice(schema["anyOf"]), rng)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            wanted = set(schema.get("required", ()))
            fields = schema.get("properties", {}).items()
            return {
                name: self._known(name, rng) or self.value(field, rng)
                for name, field in fields
                if name in wanted or rng.random() < 0.3
            }
        if kind == "array":
            least, most = schema.get("minItems", 0), min(schema.get("maxItems", 5), 5)
            return [self.value(schema["items"], rng) for _ in range(rng.randint(least, max(least, most)))]
        if kind in ("integer", "number"):
            return _number(schema, rng)
        return {"boolean": rng.random() < 0.5, "string": _text(schema, rng)}.get(str(kind))

    def _known(self, name: str, rng: random.Random) -> str | None:
        ids = self.known.get(name)
        return rng.choice(ids) if ids and rng.random() < 0.5 else None

    def operation(self, method: str, path: str) -> Operation | None:
        """The call that a request is of; None where the document has none."""
        path = path.partition("?")[0]
        found = [one for one in self.operations if one.is_of(method, path)]
        return max(found, key=lambda one: len(one.path), default=None)

    def against(self, operation: Operation | None, status: int, media_type: str, body: bytes) -> str:
        """What of an answer is not as the document says; "" where all is."""
        if operation is None:  # of no call: told as a problem all the same
            right = status in (400, 404, 405, 429) and (media_type == PROBLEM or status == 400)
            return "" if right else f"{status} {media_type} to what is no call"
        told = operation.described["responses"].get(str(status))
        if told is None:
            return f"{operation.method} {operation.path}: status {status} is not declared"
        if media_type not in told["content"]:
            return f"{operation.method} {operation.path}: {status} as {media_type!r}, declared: {list(told['content'])}"
        if not media_type.endswith("json"):
            return ""
        key = (operation.method + operation.path, str(status), media_type)
        if key not in self._checks:
            schema = {**told["content"][media_type].get("schema", {}), "components": {"schemas": self._schemas}}
            self._checks[key] = fastjsonschema.compile(schema, use_default=False)
        try:
            self._checks[key](json.loads(body))
        except (ValueError, fastjsonschema.JsonSchemaException) as error:
            return f"{operation.method} {operation.path}: {status}: {error}"
        return ""


def _number(schema: dict[str, Any], rng: random.Random) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -10))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1000))
    if schema["type"] == "integer":
        high -= "maximum" not in schema and "exclusiveMaximum" in schema
        return rng.choice([low, high, rng.randint(low, high), rng.randint(low, min(low + 9, high))])
    return rng.choice([low, high, rng.uniform(low, high)])


def _text(schema: dict[str, Any], rng: random.Random) -> str:
    if schema.get("format") == "date-time":
        return rng.choice(TIMES)
    if schema.get("format") == "date":
        return rng.choice(TIMES)[:10]
    least, most = schema.get("minLength", 0), schema.get("maxLength", 300)
    odd = "".join(rng.choice("aZ0 .-_~é☃/%") for _ in range(rng.randint(least, min(most, 40))))
    words = [*WORDS, odd]
    fitting = [w for w in words if least <= len(w) <= most and re.search(schema.get("pattern", ""), w)]
    return rng.choice(fitting or [odd])
