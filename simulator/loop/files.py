"""A run of the loop as files: JSON, Parquet and a plot."""

from __future__ import annotations

import json
from pathlib import Path

from simulator.loop.plot import plot
from simulator.loop.records import LoopResult


def write_result(result: LoopResult, directory: Path) -> tuple[Path, ...]:
    """Writes loop.json, loop.parquet and loop.svg into `directory`, each beside and then renamed; their paths."""
    import pyarrow.parquet as pq

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = tuple(directory / name for name in ("loop.json", "loop.parquet", "loop.svg"))
    drafts = tuple(path.with_name(f".{path.name}.new") for path in paths)
    try:
        drafts[0].write_text(json.dumps(result.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        pq.write_table(result.table(), drafts[1], compression="zstd")
        drafts[2].write_text(plot(result), encoding="utf-8")
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return paths
