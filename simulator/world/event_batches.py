"""Simulated events as Arrow record batches, in the layout of events.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bart.types import DEVICES, Bools, Ints, Strings
from simulator.world.world import World

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("started_at", pa.timestamp("us", tz="UTC")),
        ("tz", pa.string()),
        ("utc_offset_min", pa.int32()),
        ("listened_s", pa.float64()),
        ("skipped", pa.bool_()),
        ("device", pa.string()),
        ("source", pa.string()),
        ("duration_s", pa.float64()),
        ("session_id", pa.string()),
    ]
)

WITH_CONTAINERS = SCHEMA.append(pa.field("container_id", pa.string()))  # of a world that has them
FOLLOWING = ("utc_offset_min", "duration_s")  # columns that follow from the zone and the item


@dataclass(eq=False)
class Events:
    """Events of some sessions, flat; times in tenths of a second."""

    listener: Ints
    row: Ints
    started_ds: Ints
    listened_ds: Ints
    skipped: Bools
    device: Ints
    source: Ints
    session: Ints  # number of the session within the listener's
    offset_min: Ints
    container: Ints  # world row of what it was played from, -1 for none

    @classmethod
    def join(cls, parts: list[Events]) -> Events:
        """All parts, by listener, then time; a listener's events of a part come in the order of time."""
        arrays = {name: np.concatenate([getattr(e, name) for e in parts]) for name in cls.__dataclass_fields__}
        order = np.lexsort((arrays["started_ds"], arrays["listener"]))
        return cls(**{name: a[order] for name, a in arrays.items()})

    def __len__(self) -> int:
        return len(self.listener)

    def before(self, end_s: int) -> Events:
        """Those that begin before `end_s`, UTC seconds."""
        there = self.started_ds < 10 * end_s
        return Events(**{name: getattr(self, name)[there] for name in self.__dataclass_fields__})


class Columns:
    """Turns events into record batches; holds the strings, which are looked up and not formatted."""

    def __init__(self, world: World, sources: Sequence[str]) -> None:
        p = world.population
        self.user = pa.array(p.user_id, pa.string())
        self.item = pa.array(world.cards.item_id, pa.string())
        self.schema = SCHEMA if world.containers is None else WITH_CONTAINERS
        self.tz = pa.array(world.config.zones, pa.string())
        self.device = pa.array(DEVICES, pa.string())
        self.source = pa.array(sources, pa.string())
        self.zone = p.zone
        self.user_id = p.user_id
        self.duration = world.cards.duration_s

    def batch(self, e: Events) -> pa.RecordBatch:
        """The events in the layout of `SCHEMA`."""
        begins = np.flatnonzero(np.diff(e.listener * 100_000 + e.session, prepend=-1))
        name: Strings = np.array(
            [
                f"{self.user_id[i]}-{k:04d}"
                for i, k in zip(e.listener[begins].tolist(), e.session[begins].tolist(), strict=True)
            ],
            dtype=object,
        )
        of = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(e.listener)))
        return pa.record_batch(
            [
                self.user.take(pa.array(e.listener)),
                self.item.take(pa.array(e.row)),
                pa.array(e.started_ds * 100_000, SCHEMA.field("started_at").type),
                self.tz.take(pa.array(self.zone[e.listener])),
                pa.array(e.offset_min.astype(np.int32)),
                pa.array(e.listened_ds / 10.0),
                pa.array(e.skipped),
                self.device.take(pa.array(e.device)),
                self.source.take(pa.array(e.source)),
                pa.array(self.duration[e.row]),
                pa.array(name, pa.string()).take(pa.array(of)),
                *([] if self.schema is SCHEMA else [self.item.take(pa.array(e.container, mask=e.container < 0))]),
            ],
            schema=self.schema,
        )
