"""What routes answer, by example, for the OpenAPI document; a test holds them against what the service answers."""

from __future__ import annotations

from typing import Any

_CARD = {"item_id": "t0856013", "title": "Wake Up to the Stranger", "type": "track", "artists": ["The Holy Ravens"]}
_PAGE = {
    "request_id": "3f1c2a9e5b7d4c60a1e2f3b4c5d6e7f8",
    "batch_id": "1359a8f86690ddd0",
    "shelves": [
        {
            "title": "Jump back in",
            "key": "jump_back_in",
            "parameters": {},
            "explanation": "What you played lately and often",
            "cards": [_CARD],
        }
    ],
}
_PREFERENCES = {
    "user_id": "u000123",
    "blocked_artists": ["The Holy Ravens"],
    "blocked_items": [],
    "not_interested": ["t0856013"],
    "followed_artists": ["Leila"],
    "explicit": True,
    "mode": "personalised",
    "unknown": [],
}
_ITEM = {**_CARD, "popularity": 0.41, "taken_down": False}
_NEAR = {**_ITEM, "cosine": 0.93}
_COUNTS = {"shown": 70, "seen": 31, "reward": 9.0, "reward_rate": 0.29}
_HEALTH = {"status": "ok", "batch_id": "1359a8f86690ddd0", "model_id": "bcfa892fba508a67"}
_WORKERS = {"serving": 2, "took_up": 2}
_CONTROL = {
    "explore": "off",
    "learning": "on",
    "fallback": "off",
    "taken_down": 1,
    "history": [{"happened_at": "2026-11-22T06:51:24.501260+00:00", "what": "explore off", "why": "a release"}],
}
_LOGGED_CARD = {
    "column": 0,
    "item_id": "t0856013",
    "title": "Wake Up to the Stranger",
    "raw_score": 0.21,
    "score": 0.21,
    "rank": 0,
    "propensity": 0.84,
    "pinned": False,
}
_SHOWN_CARD = {
    **_LOGGED_CARD,
    "feedback": {"seen": True, "listened_s": 41.5, "skipped": None, "saved": False, "reward": 1.0},
    "contributions": {"constant": -2.4, "match": 0.9},
}
_SIMULATION = {
    "world": "W1",
    "scenario": "steady",
    "policies": ["exploring", "frozen"],
    "rounds": 6,
    "pages": 400,
    "seed": 1,
}

# By method and path: of the answer that tells of success.
ANSWERS: dict[str, Any] = {
    "POST /v1/home": _PAGE,
    "POST /v1/rank": {**_PAGE, "unknown": ["t9"]},
    "POST /v1/feedback": {
        "accepted": 1,
        "repeated": 0,
        "conflicting": 0,
        "late": 0,
        "quarantined": 0,
        "rejected": [{"index": 1, "event_id": "2", "reason": "event '2': no card at row 40, column 0"}],
    },
    "POST /v1/sessions": {"status": "running", "plays": 2, "unknown": 0},
    "GET /v1/decisions/{request_id}": {
        "request_id": "3f1c2a9e5b7d4c60a1e2f3b4c5d6e7f8",
        "user_id": "u000123",
        "decided_at": "2026-11-22T06:52:23.123456+00:00",
        "context": {
            "local_time": "2026-11-22T07:52:23.123456",
            "utc_offset_min": 60,
            "device": "mobile",
            "surface": "default",
            "country": "SE",
            "explicit_allowed": True,
        },
        "traits": {"account_age_d": 12.0, "diversity": 0.72, "exploration_success": None},
        "batch_id": "1359a8f86690ddd0",
        "model_id": "bcfa892fba508a67",
        "policy": "epsilon_greedy",
        "rules_version": "default",
        "arm": "",
        "forced": False,
        "seed": "1234567890123456789",
        "shelf_epsilon": [0.2],
        "card_epsilon": [0.2],
        "page_propensity": 0.69,
        "page": [
            {"row": 0, "rule": "jump_back_in", "title": "Jump back in", "propensity": 0.83, "cards": [_SHOWN_CARD]}
        ],
        "greedy": [
            {"row": 0, "rule": "jump_back_in", "title": "Jump back in", "propensity": 1.0, "cards": [_LOGGED_CARD]}
        ],
        "candidates": [
            {
                "rule": "jump_back_in",
                "title": "Jump back in",
                "cards": [{name: _LOGGED_CARD[name] for name in ("item_id", "title", "raw_score", "score")}],
            }
        ],
        "feedback": {"displayed": True, "events": 1, "late": 0, "joined_at": "2026-11-22T06:53:04+00:00"},
    },
    "GET /v1/decisions/{request_id}/why": {
        "request_id": "3f1c2a9e5b7d4c60a1e2f3b4c5d6e7f8",
        "row": 0,
        **_SHOWN_CARD,
        "shelf": {
            "title": "Jump back in",
            "explanation": "What you played lately and often",
            "rule": "jump_back_in",
            "propensity": 0.83,
        },
        "rank_on_page": 0,
        "candidates_on_shelf": 30,
        "candidates_on_page": 300,
        "epsilon": 0.2,
        "policy": "epsilon_greedy",
        "model_id": "bcfa892fba508a67",
        "arm": "",
        "forced": False,
        "neighbours": [{"item_id": "t0700830", "title": "The Sleeping Thunder", "artists": ["Leila"], "cosine": 0.93}],
        "left": 30,
        "explored": False,
        "alternatives": [
            {
                "item_id": "t0856013",
                "title": "Wake Up to the Stranger",
                "raw_score": 0.21,
                "propensity": 0.84,
                "stands_here": True,
            }
        ],
        "others": 22,
        "others_propensity": 0.1,
    },
    "GET /v1/items": {"items": [_ITEM], "next": 49, "found": 1234},
    "GET /v1/items/{item_id}": {
        **_ITEM,
        "batch_id": "1359a8f86690ddd0",
        "genres": ["folk"],
        "released_at": "2026-11-20",
        "duration_s": 215.0,
        "explicit": False,
        "countries": [],
        "has_vector": True,
        "plays": 1200,
        "holders": [_ITEM],
        "members": [_ITEM],
        "members_count": 1,
        "neighbours": [{name: _NEAR[name] for name in ("item_id", "title", "artists", "cosine")}],
        "standing": [{"list": "popular", "place": 12, "of": 300}],
        "exposure": {
            "pages": 3000,
            "since": "2026-11-21T06:52:23Z",
            "until": "2026-11-22T06:52:23Z",
            **_COUNTS,
            "periods": [{"since": "2026-11-21T06:52:23Z", "pages": 250, **_COUNTS}],
            "shelves": [{"rule": "jump_back_in", **_COUNTS}],
        },
    },
    "GET /v1/listeners": {"listeners": ["u000001", "u000123"], "next": "u000123"},
    "GET /v1/listeners/{user_id}/similar": {
        "user_id": "u000123",
        "batch_id": "1359a8f86690ddd0",
        "encoded_at": "2026-11-21T04:00:12+00:00",
        "listeners": 986,
        "similar": [{"user_id": "u000456", "cosine": 0.8123}],
    },
    "GET /v1/listeners/{user_id}/profile": {
        "user_id": "u000123",
        "batch_id": "1359a8f86690ddd0",
        "known": True,
        "made_at": "2026-01-26T00:00:00+00:00",
        "diversity": 0.72,
        "exploration_success": None,
        "history": [{**_ITEM, "plays": 12, "skips": 1, "last_at": "2026-11-21T21:50:23+00:00"}],
        "history_count": 212,
        "taste": {
            "plays": 2671,
            "items": 179,
            "latest_at": "2026-11-21T21:50:23+00:00",
            "half_life_d": 30.0,
            "genres": [{"name": "folk", "share": 0.48}],
            "artists": [{"name": "The Holy Ravens", "share": 0.2}],
            "hours": [0] * 8 + [3, 5, 6, 0, 12, 10, 9, 13, 12, 10, 10, 10, 12, 14, 11, 9],
            "spread": 0.15,
        },
        "vector": [0.31, -0.12],
        "near": [_NEAR],
        "interests": [{"share": 0.36, "near": [_NEAR]}],
        "preferences": _PREFERENCES,
        "pages": [
            {
                "request_id": "3f1c2a9e5b7d4c60a1e2f3b4c5d6e7f8",
                "decided_at": "2026-11-22T06:52:23+00:00",
                "device": "mobile",
                "surface": "default",
                "arm": "",
                "forced": False,
                "model_id": "bcfa892fba508a67",
                "shelves": ["Jump back in"],
                "cards": 36,
                "seen": 4,
                "reward": 1.0,
            }
        ],
    },
    "GET /v1/listeners/{user_id}": {
        "user_id": "u000123",
        "batch_id": "1359a8f86690ddd0",
        "pages": 12,
        "latest_page_at": "2026-11-22T06:52:23+00:00",
        "state": {
            "known": True,
            "made_at": "2026-01-26T00:00:00+00:00",
            "diversity": 0.72,
            "exploration_success": None,
            "recent": ["t0700830"],
            "favourite": ["t0421099"],
            "rested": [],
            "blocked_artists": [],
            "numbers": 200,
        },
    },
    "DELETE /v1/listeners/{user_id}": {
        "user_id": "u000123",
        "erased_at": "2026-11-22T06:52:46.211436+00:00",
        "states": 1,
        "sessions": 0,
        "pages": 12,
        "events": 30,
        "quarantined": 0,
        "exported": 10,
        "files": 2,
        "preferences": 1,
        "held_by": {
            "bundles": [{"bundle": "20261122T054953Z-bcfa892f", "active": True, "weights": True, "rates": True}],
            "dropped_by": {
                "weights": "bart retrain: after an erasure it learns anew, from the log without the listener"
            },
        },
        "compacted": True,
        "code": "fba2ce007ad00178a076833de727e4a9",
    },
    "GET /v1/listeners/{user_id}/preferences": _PREFERENCES,
    "PUT /v1/listeners/{user_id}/preferences": {**_PREFERENCES, "erased": None},
    "PUT /v1/items/{item_id}": {"item_id": "t9000001", "status": "new", "published": False},
    "DELETE /v1/items/{item_id}": {"item_id": "t0856013", "status": "taken down", "known": True, "workers": _WORKERS},
    "DELETE /v1/takedowns/{item_id}": {"item_id": "t0856013", "status": "put back", "workers": _WORKERS},
    "GET /v1/models": {
        "active": "20261122T054953Z-bcfa892f",
        "before": "20261122T054944Z-232c99bd",
        "bundles": [
            {
                "name": "20261122T054953Z-bcfa892f",
                "batch_id": "1359a8f86690ddd0",
                "model_id": "bcfa892fba508a67",
                "created_at": "2026-11-22T05:49:53+00:00",
                "active": True,
                "parent": "232c99bd87165ba2",
                "learnt_until_s": 1739238838,
                "gate": {},
            }
        ],
        "damaged": {},
    },
    "POST /v1/models": {
        "active": "20261122T054944Z-232c99bd",
        "previous": "20261122T054953Z-bcfa892f",
        "workers": _WORKERS,
    },
    "GET /v1/control": _CONTROL,
    "POST /v1/control": {**_CONTROL, "workers": _WORKERS},
    "GET /v1/onboarding": {"artists": ["Silas Caimeili"], "genres": ["reggae", "ambient"]},
    "GET /health": _HEALTH,
    "GET /ready": _HEALTH,
}

# Bodies whose schema holds no example of its own.
BODIES: dict[str, Any] = {"SimulationRequest": _SIMULATION}

# Answers that are not JSON, by method and path: media type, and an example where one can be written down.
OTHERS: dict[str, tuple[str, str | None]] = {
    "GET /metrics": ("text/plain", "# TYPE bart_pages_total counter\nbart_pages_total 705.0\n"),
    "GET /v1/operate/report": ("text/html", None),
    "GET /v1/simulation/events": ("text/event-stream", 'id: 0\nevent: end\ndata: {"kind":"idle"}\n\n'),
    "GET /v1/simulation/{name}": ("application/octet-stream", None),
}


def add_examples(document: dict[str, Any]) -> None:
    """Adds the examples to an OpenAPI document."""
    schemas = document["components"]["schemas"]
    for name, body in BODIES.items():
        schemas.get(name, {}).setdefault("examples", [body])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            status = min(code for code in operation["responses"] if code.startswith("2"))
            answer = operation["responses"][status]
            if route in ANSWERS:
                answer.setdefault("content", {}).setdefault("application/json", {})["example"] = ANSWERS[route]
            elif route in OTHERS:
                media_type, text = OTHERS[route]
                answer["content"] = {media_type: {} if text is None else {"example": text}}
