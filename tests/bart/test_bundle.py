"""A bundle is whole or refused, and replaced in one step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bart.bundle import FORMAT, MANIFEST, migrate, open_bundle, read_manifest, write_bundle
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
