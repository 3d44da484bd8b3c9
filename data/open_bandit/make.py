"""Makes the Parquet files beside it from the CSV files of the Open Bandit Dataset's small sample.

    python make.py DIRECTORY

DIRECTORY holds random/all/all.csv, bts/all/all.csv and random/all/item_context.csv, as they stand in `obp/dataset/obd`
of the Python package obp 0.4.1. The same input gives the same tables.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

HERE = Path(__file__).parent
USER_FEATURES = tuple(f"user_feature_{i}" for i in range(4))
ITEM_FEATURES = tuple(f"item_feature_{i}" for i in range(1, 4))


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("usage: python make.py DIRECTORY (of the CSV files; expected random/all/all.csv in it)")
    source = Path(sys.argv[1])
    for policy in ("random", "bts"):
        table = csv.read_csv(source / policy / "all" / "all.csv")
        kept = pa.table(
            {
                "timestamp": pc.cast(table["timestamp"], pa.timestamp("us", "UTC")),
                "item_id": pc.cast(table["item_id"], pa.int16()),
                "position": pc.cast(table["position"], pa.int8()),
                "click": pc.cast(table["click"], pa.int8()),
                "propensity": pc.cast(table["propensity_score"], pa.float64()),
                **{name: table[name].dictionary_encode() for name in USER_FEATURES},
            }
        )
        _write(kept, f"{policy}_all")
    items = csv.read_csv(source / "random" / "all" / "item_context.csv")
    _write(
        pa.table(
            {
                "item_id": pc.cast(items["item_id"], pa.int16()),
                "item_feature_0": items["item_feature_0"],
                **{name: items[name].dictionary_encode() for name in ITEM_FEATURES},
            }
        ),
        "items_all",
    )


def _write(table: pa.Table, name: str) -> None:
    pq.write_table(table, HERE / f"{name}.parquet", compression="zstd", compression_level=19)
    print(f"{name}.parquet: {table.num_rows} rows, {(HERE / f'{name}.parquet').stat().st_size} bytes")


if __name__ == "__main__":
    main()
