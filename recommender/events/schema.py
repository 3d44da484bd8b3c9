"""The columns of the event table, and what a column of a user's file may be mapped to."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

EVENT_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),
        ("utc_offset_min", pa.int32()),
        ("listened_s", pa.float64()),
        ("skipped", pa.bool_()),
        ("device", pa.string()),
        ("source", pa.string()),
        ("duration_s", pa.float64()),
    ]
)
REQUIRED = ("user_id", "item_id", "started_at")
# The event's own columns, and what describes the item or the order.
MAPPABLE = (
    *EVENT_SCHEMA.names, "listened_ms", "duration_ms", "tz", "order", "session_id", "title", "artist", "genre", "type",
    "rating", "value", "liked", "weight", "container_id",
)  # fmt: skip
# Columns of the event table that are there where the files say more of some row.
FURTHER = {"session_id": pa.string(), "type": pa.string(), "weight": pa.float64(), "container_id": pa.string()}
# Names that files give to what is required, most telling first; only proposed in an error, never taken.
OTHER_NAMES = {
    "user_id": (
        "userid", "user", "uid", "listener", "listener_id", "username", "user_name", "account", "account_id",
        "member_id", "customer_id", "who", "callsign",
    ),
    "item_id": (
        "itemid", "item", "track_id", "trackid", "song_id", "songid", "media_id", "video_id", "track_uri", "uri",
        "recording_id", "recording_mbid", "movie_id", "movieid", "product_id", "track", "song", "iid", "sid",
        "track_name", "title", "what", "combined",
    ),
    "started_at": (
        "startedat", "start_time", "starttime", "timestamp", "played_at", "listened_at", "time", "ts", "datetime",
        "date_time", "ts_listen", "event_time", "at", "when", "date", "created_at", "utc_time", "uts", "time_ms",
    ),
}  # fmt: skip


# Names that files give to what makes a row more or less than a play; only proposed, never taken.
WORTH_NAMES = {
    "rating": ("ratings", "stars", "score", "user_rating", "my_rating"),
    "type": ("event", "event_type", "event_name", "action", "action_type", "interaction", "interaction_type"),
    "liked": ("like", "is_like", "loved", "is_liked", "favorite", "favourite", "thumbs_up"),
}


def schema_with(names: Iterable[str]) -> pa.Schema:
    """The schema of an event table with those of `FURTHER` that are named."""
    named = set(names)
    return pa.schema([*EVENT_SCHEMA, *(pa.field(name, kind) for name, kind in FURTHER.items() if name in named)])
