"""A bundle is whole or refused, and replaced in one step."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bart.bundle import CONTENT, FORMAT, MANIFEST, migrate, open_bundle, read_manifest, verify_bundle, write_bundle
from bart.errors import BundleError

NOW = "2026-01-01T00:00:00+00:00"


def make(path: Path, reward: str = "weights", items: str = "table") -> None:
    with write_bundle(path, created_at=NOW, configuration={"seed": 1}) as draft:
        for folder, text in (("items", items), ("reward", reward), ("listener", "model"), ("index", "faiss")):
            (draft / folder).mkdir()
            (draft / folder / "data").write_text(text)


def test_a_bundle_reads_back_what_was_written(tmp_path: Path) -> None:
    make(tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.configuration == {"seed": 1}
    assert set(bundle.files) == {"items/data", "reward/data", "listener/data", "index/data"}
    assert bundle.folder("reward").joinpath("data").read_text() == "weights"


def test_ids_are_of_the_content(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    make(tmp_path / "c", reward="other weights")
    make(tmp_path / "d", items="other table")
    a, b, c, d = (open_bundle(tmp_path / name) for name in "abcd")
    assert (a.batch_id, a.model_id) == (b.batch_id, b.model_id)
    assert a.batch_id == c.batch_id
    assert a.model_id != c.model_id
    assert a.batch_id != d.batch_id


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "reward" / "data").write_text("weighty"), "reward/data was altered"),
        (lambda p: (p / "items" / "data").unlink(), "items/data is missing"),
        (lambda p: (p / "index" / "more").write_text("x"), "index/more is not in manifest.json"),
        (lambda p: (p / MANIFEST).unlink(), "manifest.json is missing"),
        (lambda p: (p / MANIFEST).write_text("{"), "is not JSON"),
        (lambda p: (p / MANIFEST).write_text('{"format": 99}'), "has format 99; this version reads formats 1 to 2"),
        (lambda p: (p / MANIFEST).write_text('{"format": 99}'), "a newer version of this software wrote it: update"),
        (lambda p: (p / MANIFEST).write_text('{"format": "1"}'), "has format '1'"),
        (lambda p: (p / MANIFEST).write_text(json.dumps({"format": 1})), "lacks 'batch_id'"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, message: str) -> None:
    make(tmp_path / "bundle")
    damage(tmp_path / "bundle")  # type: ignore[operator]
    with pytest.raises(BundleError, match=message):
        open_bundle(tmp_path / "bundle")


def test_a_failed_write_leaves_the_old_bundle(tmp_path: Path) -> None:
    make(tmp_path / "bundle")
    before = open_bundle(tmp_path / "bundle").model_id
    with pytest.raises(RuntimeError, match="half-way"), write_bundle(tmp_path / "bundle", created_at=NOW) as draft:
        (draft / "reward").mkdir()
        raise RuntimeError("half-way")
    assert open_bundle(tmp_path / "bundle").model_id == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_an_empty_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nothing was written"), write_bundle(tmp_path / "bundle", created_at=NOW):
        pass


def test_a_bundle_is_not_written_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.sqlite").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("run", "file"):
        with pytest.raises(BundleError, match="expected a new directory or a bundle"):
            make(tmp_path / name)
    assert (tmp_path / "run" / "log.sqlite").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"


def as_format_1(path: Path, until_s: int | None) -> None:
    """Leaves the manifest as the first version of this software wrote it."""
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["parent"], manifest["learnt_until_s"]
    manifest["format"] = 1
    manifest["metrics"] = {} if until_s is None else {"reward": {"holdout_from_s": until_s}}
    (path / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("until_s", [None, 1_741_859_986])
def test_a_bundle_of_the_first_format_is_read_and_migrated(tmp_path: Path, until_s: int | None) -> None:
    path = tmp_path / "bundle"
    make(path)
    now = open_bundle(path)
    as_format_1(path, until_s)
    before = open_bundle(path)
    assert (before.batch_id, before.model_id, before.files) == (now.batch_id, now.model_id, now.files)
    assert (before.parent, before.learnt_until_s) == (None, until_s)
    assert migrate(path) == (1, FORMAT)
    assert json.loads((path / MANIFEST).read_text())["format"] == FORMAT
    assert open_bundle(path) == before
    assert migrate(path) == (FORMAT, FORMAT)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_migrating_through_a_link_leaves_the_link(tmp_path: Path) -> None:
    make(tmp_path / "one")
    as_format_1(tmp_path / "one", 5)
    (tmp_path / "bundle").symlink_to("one")
    assert migrate(tmp_path / "bundle") == (1, FORMAT)
    assert (tmp_path / "bundle").is_symlink()
    assert open_bundle(tmp_path / "bundle").learnt_until_s == 5


def test_what_cannot_be_migrated_stays_as_it_is(tmp_path: Path) -> None:
    make(tmp_path / "bundle")
    as_format_1(tmp_path / "bundle", None)
    (tmp_path / "bundle" / "reward" / "data").write_text("altered")
    with pytest.raises(BundleError, match="reward/data was altered"):
        migrate(tmp_path / "bundle")
    (tmp_path / "bundle" / MANIFEST).write_text('{"format": 3}')
    with pytest.raises(BundleError, match="format 3; this version reads formats 1 to 2; a newer version"):
        migrate(tmp_path / "bundle")
    assert json.loads((tmp_path / "bundle" / MANIFEST).read_text()) == {"format": 3}


def test_a_link_is_not_written_over(tmp_path: Path) -> None:
    make(tmp_path / "one")
    (tmp_path / "bundle").symlink_to("one")
    with pytest.raises(BundleError, match="is a link to a bundle"):
        make(tmp_path / "bundle", reward="other")
    assert read_manifest(tmp_path / "bundle")["model_id"] == read_manifest(tmp_path / "one")["model_id"]


def changed(path: Path, **fields: object) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, **fields}))


def text_of(folder: Path) -> str:
    return (folder / "data").read_text()


def make_named(path: Path, counters: str, **options: object) -> None:
    """A bundle whose model says of itself what it is, beside a file that also holds other things."""
    with write_bundle(path, created_at=NOW, **options) as draft:  # type: ignore[arg-type]
        (draft / "items").mkdir()
        (draft / "items" / "data").write_text("table")
        (draft / "reward" / "model").mkdir(parents=True)
        (draft / "reward" / "model" / "data").write_text("weights")
        (draft / "reward" / "model" / "counters").write_text(counters)
        (draft / "reward" / "model" / CONTENT).write_text("weights\n")


def test_a_model_that_says_what_it_is_has_one_id_whatever_else_its_files_hold(tmp_path: Path) -> None:
    make_named(tmp_path / "a", "3 predictions")
    make_named(tmp_path / "b", "4 predictions")
    a, b = open_bundle(tmp_path / "a"), open_bundle(tmp_path / "b")
    assert a.files != b.files
    assert a.model_id == b.model_id
    assert verify_bundle(tmp_path / "a", text_of) == a


def test_ids_that_do_not_follow_from_the_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    make_named(path, "")
    for name in ("model_id", "batch_id"):
        right = json.loads((path / MANIFEST).read_text())[name]
        changed(path, **{name: "0123456789abcdef"})
        with pytest.raises(BundleError, match=f"{name} is 0123456789abcdef; expected {right}"):
            verify_bundle(path, text_of)
        changed(path, **{name: right})
    with pytest.raises(BundleError, match="reward/model/content.sha256 names 'weights'; what stands beside it is 'no"):
        verify_bundle(path, lambda _: "not the weights")


def test_a_batch_that_was_extended_keeps_its_id(tmp_path: Path) -> None:
    make_named(tmp_path / "bundle", "", extends="0123456789abcdef")
    assert verify_bundle(tmp_path / "bundle", text_of).batch_id == "0123456789abcdef"
    changed(tmp_path / "bundle", batch_id="fedcba9876543210")
    with pytest.raises(BundleError, match="batch_id is fedcba9876543210; expected 0123456789abcdef"):
        verify_bundle(tmp_path / "bundle", text_of)


def test_a_link_that_leaves_the_bundle_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "bundle")
    inside, outside = tmp_path / "bundle" / "reward" / "data", tmp_path / "outside"
    outside.write_text(inside.read_text())
    inside.unlink()
    inside.symlink_to(outside)
    with pytest.raises(BundleError, match="reward/data is a link that leaves the bundle"):
        open_bundle(tmp_path / "bundle")
    inside.unlink()
    inside.write_text("weights")
    (tmp_path / "bundle" / "more").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="more is a link that leaves the bundle"):
        open_bundle(tmp_path / "bundle")


def test_when_a_bundle_was_made_is_a_time(tmp_path: Path) -> None:
    make(tmp_path / "bundle")
    changed(tmp_path / "bundle", created_at="2026-01-01T01:00:00Z")
    assert open_bundle(tmp_path / "bundle").made_at == datetime(2026, 1, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"format": ' + "9" * 5_000 + "}", "\ufeff{}", "", "{"])
def test_what_is_no_manifest_at_all_is_one_line(tmp_path: Path, text: str) -> None:
    make(tmp_path / "bundle")
    (tmp_path / "bundle" / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="is not JSON|has format") as told:
        open_bundle(tmp_path / "bundle")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"files": ["items/data"]}, "files is .*; expected an object of texts"),
        ({"files": {"items/data": 7}}, "files is .*; expected an object of texts"),
        ({"model_id": 7}, "model_id is 7; expected an id"),
        ({"batch_id": ""}, "batch_id is ''; expected an id"),
        ({"created_at": "yesterday"}, "created_at is 'yesterday'; expected a time in ISO 8601"),
        ({"metrics": None}, "metrics is None; expected an object"),
        ({"configuration": []}, r"configuration is \[\]; expected an object"),
        ({"versions": {"numpy": 2}}, "versions is .*; expected an object of texts"),
        ({"parent": 3}, "parent is 3; expected an id or null"),
        ({"learnt_until_s": "now"}, "learnt_until_s is 'now'; expected a whole number or null"),
        ({"learnt_until_s": 10**30}, "learnt_until_s is 1000.*; expected a whole number or null"),
        ({"created_at": "2026-01-01T00:00:00"}, "created_at is .*; expected a time in ISO 8601 with its zone"),
        ({"model_id": "\ud800"}, "model_id is '.ud800'; expected an id"),
        ({"batch_id": "a\nb"}, "batch_id is 'a.nb'; expected an id"),
    ],
)
def test_a_malformed_manifest_is_one_line(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    make(tmp_path / "bundle")
    changed(tmp_path / "bundle", **fields)
    with pytest.raises(BundleError, match=message) as told:
        open_bundle(tmp_path / "bundle")
    assert "\n" not in str(told.value)
