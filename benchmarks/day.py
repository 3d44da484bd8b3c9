"""What a day of listening costs `bart retrain --events` beside ever longer histories: CPU to merge it and to hear it.

    python -m benchmarks day --run RUN [--times 1 4 16]

RUN: of `bart build`, with events of two weeks and more; it is copied. Its last 16 days are the history, repeated before
themselves; the day is the last one again, a day later. A build's notes of what its states hold are those of the copy.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api.hosts.shared import listener_store
from api.jobs.ingest import hear, merge_events
from api.run.events import notes_of
from api.run.listening import Listening
from api.run.progress import ignore
from api.run.runs import RunPaths
from api.run.settings import load_settings
from bart.bundle import open_bundle
from bart.item_store import load_items
from recommender.events.parts import DAY_US, by_listener, read_parts, write_parts

SPAN_D = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    asked = parser.parse_args()
    events = read_parts(RunPaths(asked.run).events)
    at_us = events["started_at"].cast(pa.int64()).to_numpy()
    events = events.filter(pa.array(at_us > at_us.max() - SPAN_D * DAY_US))
    at_us = events["started_at"].cast(pa.int64()).to_numpy()
    day = moved(events.filter(pa.array(at_us > at_us.max() - DAY_US)), 1)
    for times in asked.times:
        with tempfile.TemporaryDirectory(prefix="bart-day-") as folder:
            run = Path(folder) / "run"
            shutil.copytree(asked.run, run, symlinks=True, ignore=shutil.ignore_patterns("events.parquet"))
            pq.write_table(day, Path(folder) / "day.parquet")
            print(of(run, events, times, Path(folder) / "day.parquet"), flush=True)


def moved(events: pa.Table, days: int) -> pa.Table:
    at_us = events["started_at"].cast(pa.int64()).to_numpy() + days * DAY_US
    place = events.schema.get_field_index("started_at")
    return events.set_column(place, events.schema.field("started_at"), pa.array(at_us).cast(pa.timestamp("us", "UTC")))


def of(run: Path, events: pa.Table, times: int, day: Path) -> str:
    paths, settings = RunPaths(run), load_settings({})
    whole = pa.concat_tables([moved(events, -SPAN_D * k) for k in reversed(range(times))])
    write_parts(by_listener(whole), paths.events)
    n = len(whole)
    del whole
    bundle = open_bundle(paths.bundle.resolve())
    items = load_items(bundle.folder("items"))
    with closing(listener_store(paths, bundle, settings)) as store:
        store.note_parts_heard(notes_of(paths.events, (), items))
        spent = [time.process_time()]
        added, _ = merge_events(paths, Listening(day, simulated=True), settings)
        spent.append(time.process_time())
        heard = hear(paths, items, store, ignore)
        spent.append(time.process_time())
    merged_s, heard_s = np.diff(spent)
    return (
        f"{n:>12,} events before, {added:,} plays of a day: merged in {merged_s:.2f} s of CPU, "
        f"{heard.sessions:,} sessions heard in {heard_s:.2f} s"
    )


if __name__ == "__main__":
    main()
