"""Covers come from the hosts of the settings and from the run's own folder, and from nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_png import png

from api.run.settings import load_settings
from api.service.service import open_service
from api.wire.covers import Covers, file_name
from bart.errors import DataError
from bart.item_store import items_from_arrow, items_to_arrow
from recommender.shelves.items import complete, item_table, read_items

HOST = "i.example.com"


@pytest.mark.parametrize(
    ("image", "address"),
    [
        (f"https://{HOST}/a.jpg?x=1", f"https://{HOST}/a.jpg?x=1"),
        (f"https://{HOST.upper()}/a", f"https://{HOST.upper()}/a"),
        ("https://other.example.com/a.jpg", None),
        (f"https://{HOST}.evil.com/a.jpg", None),
        (f"https://user@{HOST}/a.jpg", None),
        (f"https://{HOST}:444/a.jpg", None),
        (f"http://{HOST}/a.jpg", None),
        (f"//{HOST}/a.jpg", None),
        ("javascript:alert(1)", None),
        ("data:image/png;base64,AA", None),
        ("a b/c.png", "/covers/a%20b/c.png"),
        ("covers/c.PNG", "/covers/c.PNG"),
        ("../service.key", None),
        ("a/../../x.png", None),
        ("/etc/x.png", None),
        ("a\\..\\x.png", None),
        (".hidden.png", None),
        ("log.sqlite", None),
        ("x.svg", None),
        ("covers", None),
        ("https://[", None),
        ("", None),
        (None, None),
    ],
)
def test_only_what_may_be_fetched_has_an_address(image: str | None, address: str | None) -> None:
    assert Covers.of([HOST]).allowed(image) == address


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return read_items(pa.Table.from_pylist(rows)).items


def test_an_item_without_a_cover_has_that_of_its_album() -> None:
    rows: list[dict[str, Any]] = [
        {"item_id": "a", "type": "album", "image": "a.png", "album": None},
        {"item_id": "t1", "type": "track", "image": None, "album": "a"},
        {"item_id": "t2", "type": "track", "image": "t2.png", "album": "a"},
        {"item_id": "t3", "type": "track", "image": "not allowed", "album": None},
    ]
    events = pa.table({"item_id": pa.array([], pa.string()), "listened_s": pa.array([], pa.float64()),
                       "skipped": pa.array([], pa.bool_())})  # fmt: skip
    items = item_table(complete(table(rows), events))
    found = {items.item_id[row]: Covers().address(items, row) for row in range(len(items))}
    assert found == {"a": "/covers/a.png", "t1": "/covers/a.png", "t2": "/covers/t2.png", "t3": None}


def test_covers_come_back_from_the_item_table_and_tables_without_are_as_before() -> None:
    bare = item_table(table([{"item_id": "x"}, {"item_id": "y"}]))
    assert bare.image is None
    assert "image" not in items_to_arrow(bare).column_names
    some = replace(bare, image=np.array(["x.png", ""], dtype=object))
    assert items_from_arrow(items_to_arrow(some)).image.tolist() == ["x.png", ""]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="image has 1 entries; expected 2"):
        replace(bare, image=np.array(["x.png"], dtype=object))


def test_a_catalogue_of_an_earlier_version_is_completed(tmp_path: Path) -> None:
    old = table([{"item_id": "x", "title": "X"}]).drop_columns(["image", "album", "show"])
    pq.write_table(old, tmp_path / "items.parquet")
    events = pa.table({"item_id": ["x"], "listened_s": [40.0], "skipped": [False]})
    assert complete(pq.read_table(tmp_path / "items.parquet"), events)["image"].to_pylist() == [None]


def test_covers_of_the_run_are_served_and_nothing_beside_them(small_run: Path, client_of: Callable[..., Any]) -> None:
    folder = small_run / "covers" / "deep"
    folder.mkdir(parents=True)
    (folder / "a b.png").write_bytes(png())
    (folder / "notes.txt").write_text("mine")
    (folder / "out.png").symlink_to(small_run / "service.key")
    settings = load_settings({"serve": {"image_hosts": [HOST]}})
    with open_service(small_run, settings) as service:
        items = service.run.items
        image = np.array([""] * len(items), dtype=object)
        image[:2] = ["deep/a b.png", f"https://{HOST}/1.jpg"]
        with_covers = replace(service, run=replace(service.run, items=replace(items, image=image)))
        writer = type(service.writer)(with_covers.run.items, service.writer.covers)
        assert writer.facts(str(items.item_id[0]))["image"] == "/covers/deep/a%20b.png"
        assert writer.facts(str(items.item_id[1]))["image"] == f"https://{HOST}/1.jpg"
        assert "image" not in writer.facts(str(items.item_id[2]))
        with client_of(service, headers={}) as client:
            answer = client.get("/covers/deep/a%20b.png")
            assert (answer.status_code, answer.content) == (200, png())
            assert answer.headers["content-type"] == "image/png"
            for path in (
                "deep/notes.txt",
                "deep/out.png",
                "none.png",
                "%2e%2e/service.key",
                "../service.key",
                "deep",
                "",
            ):
                assert client.get(f"/covers/{path}").status_code == 404, path
            policy = client.get("/").headers["content-security-policy"]
            assert f"img-src 'self' data: https://{HOST};" in policy


def test_a_setting_names_hosts_and_no_addresses() -> None:
    for wrong in ("https://i.example.com", "*.example.com", "a b", "x;script-src *", ""):
        with pytest.raises(DataError, match="image_hosts"):
            load_settings({"serve": {"image_hosts": [wrong]}})


def test_a_name_below_the_folder_stays_below_it() -> None:
    assert file_name("covers/covers/x.png") == "covers/x.png"
    assert file_name("x") is None


def test_a_published_item_has_its_cover_and_the_others_keep_theirs() -> None:
    from api.upkeep.item_tables import ItemBody, extended
    from api.upkeep.item_updates import _body_of_table

    before = item_table(table([{"item_id": "x", "image": "x.png"}, {"item_id": "y"}]))
    told = ItemBody(title="Z", image="z.png")
    after = extended(before, {"z": told})
    assert after.image is not None
    assert dict(zip(after.item_id.tolist(), after.image.tolist(), strict=True)) == {"x": "x.png", "y": "", "z": "z.png"}
    assert _body_of_table(after, after.row_of["z"], told) == told
    bare = item_table(table([{"item_id": "x"}]))
    assert extended(bare, {"y": ItemBody()}).image is None
