"""The export in the hands of others: what docs/how_to/read_the_export.md tells of each reader is true.

Half of the days are of an earlier version, which lacks columns.
"""

from __future__ import annotations

import shutil
import tarfile
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

import proof_world as world
import pytest
from places import ROOT
from quick_java import QUICK_JAVA

from bart.log.care.export import export_log
from bart.log.care.migrate import migrate
from bart.log.decision_log import DecisionLog
from bart.log.store.files import export_files, open_export, upgraded


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six days of the present version and those that version 0.1 left, in one export."""
    folder = tmp_path_factory.mktemp("readers")
    world.fill(folder / "log.sqlite")
    with DecisionLog(folder / "log.sqlite") as log:
        export_log(log, folder / "log")
    with tarfile.open(ROOT / "tests/data/run_0_1/run.tar.xz") as archive:
        archive.extractall(folder / "earlier", filter="data")
    for day in (folder / "earlier/run/log").glob("date=*"):
        shutil.copytree(day, folder / "log" / day.name)
    return folder / "log"


@pytest.fixture(scope="module")
def expected(export: Path) -> dict[str, float]:
    """Reward of a seen card by day, from the files themselves; what every reader must find."""
    reward: dict[str, list[float]] = defaultdict(list)
    for file in export_files(export):
        parquet, version = open_export(file)
        with parquet:
            for batch in parquet.iter_batches():
                for row in upgraded(batch, version).to_pylist():
                    if row["closed"] and row["displayed"] and not row["forced"]:
                        cards = zip(chain(*row["seen"]), chain(*row["reward"]), strict=True)
                        reward[file.parent.name.removeprefix("date=")] += [r for seen, r in cards if seen]
    return {day: sum(earned) / len(earned) for day, earned in reward.items() if earned}


def test_the_export_is_of_two_versions(export: Path) -> None:
    versions = set()
    for file in export_files(export):
        parquet, version = open_export(file)
        parquet.close()
        versions.add(version)
    assert versions == {2, 4}


def assert_same(found: dict[str, Any], expected: dict[str, float]) -> None:
    assert {str(day): float(rate) for day, rate in found.items()} == pytest.approx(expected, rel=1e-12)


def test_duckdb_reads_days_of_two_versions_by_name_and_cuts_days_in_the_zone_of_its_session(
    export: Path, expected: dict[str, float]
) -> None:
    duckdb = pytest.importorskip("duckdb")
    db = duckdb.connect()
    files = f"'{export}/date=*/part-*.parquet'"
    with pytest.raises(duckdb.Error, match="relevance"):  # the first file's columns are taken
        db.sql(f"SELECT count(relevance) FROM read_parquet({files})").fetchall()
    pages = f"read_parquet({files}, union_by_name = true)"
    cards = (
        f"SELECT date, unnest(flatten(seen)) AS seen, unnest(flatten(reward)) AS reward FROM {pages} "
        "WHERE closed AND displayed AND NOT forced"
    )
    found = db.sql(f"SELECT date, avg(reward) FROM ({cards}) WHERE seen GROUP BY date").fetchall()
    assert_same({str(day): value for day, value in found}, expected)
    elsewhere = {}
    for zone in ("UTC", "Pacific/Honolulu"):
        db.execute(f"SET TimeZone = '{zone}'")
        query = f"SELECT count(*) FROM {pages} WHERE CAST(decided_at AS DATE) <> date"
        elsewhere[zone] = db.sql(query).fetchall()[0][0]
    assert elsewhere["UTC"] == 0
    assert elsewhere["Pacific/Honolulu"] > 0


def test_after_a_migration_all_files_have_the_same_columns(export: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    copy = Path(shutil.copytree(export, tmp_path / "log"))
    migrate(copy)
    pages = f"read_parquet('{copy}/date=*/part-*.parquet')"
    total, moved = duckdb.connect().sql(f"SELECT count(*), count(relevance) FROM {pages}").fetchall()[0]
    assert total > moved == 0


def test_pandas_reads_pages_and_cards(export: Path, expected: dict[str, float]) -> None:
    pytest.importorskip("pandas")
    import pyarrow.dataset as ds

    log = ds.dataset(export, partitioning="hive")
    names = ["date", "decided_at", "seen", "reward"]
    used = ds.field("closed") & ds.field("displayed") & ~ds.field("forced")
    pages = log.to_table(columns=names, filter=used).to_pandas()
    assert str(pages["decided_at"].dt.tz) == "UTC"
    cards = pages.explode(["seen", "reward"]).explode(["seen", "reward"])
    rate = cards[cards["seen"].astype(bool)].groupby("date")["reward"].apply(lambda earned: earned.astype(float).mean())
    assert_same(rate.to_dict(), expected)


def test_polars_reads_days_of_two_versions(export: Path, expected: dict[str, float]) -> None:
    pl = pytest.importorskip("polars")
    files = f"{export}/date=*/part-*.parquet"
    newest = max(export_files(export))
    schema = pl.read_parquet_schema(newest)
    pages = pl.scan_parquet(files, hive_partitioning=True, missing_columns="insert", schema=schema)
    used = pages.filter(pl.col("closed") & pl.col("displayed") & ~pl.col("forced"))
    sums = used.select(
        "date",
        reward=pl.col("reward").list.eval(pl.element().list.sum()).list.sum(),
        seen=pl.col("seen").list.eval(pl.element().list.sum()).list.sum(),
    )
    rate = sums.group_by("date").agg(pl.col("reward").sum() / pl.col("seen").sum()).collect()
    assert_same({str(day): value for day, value in rate.iter_rows() if value == value}, expected)


def test_spark_merges_the_columns_of_two_versions(
    export: Path, expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed; Spark needs it")
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    try:
        pages = spark.read.option("mergeSchema", "true").parquet(str(export))
        assert pages.where("relevance IS NULL").count() == pages.count()
        zipped = f.arrays_zip(f.flatten("seen").alias("seen"), f.flatten("reward").alias("reward"))
        cards = pages.where("closed AND displayed AND NOT forced").select("date", f.explode(zipped).alias("card"))
        rate = cards.where("card.seen").groupBy("date").agg(f.avg("card.reward").alias("rate")).collect()
        assert_same({str(row["date"]): row["rate"] for row in rate}, expected)
        assert pages.where("CAST(decided_at AS DATE) <> date").count() == 0
    finally:
        spark.stop()
