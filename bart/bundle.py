"""A bundle: one plain directory that holds all that a server needs, and a manifest that proves it is whole.

    manifest.json   format, ids, sha256 of every file, configuration, metrics
    items/          the item table
    reward/         the reward model or scorer
    listener/       the listener model
    index/          the candidate source

`batch_id` names the items and vectors (the content of everything but reward/): vectors and listener states of
different batches must never be compared. `model_id` names the content of reward/. Both are hashes of content, so the
same inputs give the same ids. A folder of reward/ that holds a file `content.sha256` is named by that: its other files
may differ though the model is the same. Each package reads its own folder; this module knows files only.

Format 2 (the present one) also says what the reward model was learnt from: `parent`, the model that it went on from,
and `learnt_until_s`. Format 1 is read as it stands; `migrate` rewrites it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bart.directories import link_tree, replace_directory, sync_tree
from bart.errors import BundleError

FORMAT = 2
MANIFEST = "manifest.json"
REWARD = "reward"
CONTENT = "content.sha256"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk.

    configuration: what it was made with. metrics: what was measured of it. versions: of the packages that wrote it.
    parent: model id that the reward model went on from, None for a new one. learnt_until_s: the reward model has learnt
    from no page decided at or after this moment (seconds UTC); None where it has learnt from none, or is not known.
    """

    path: Path
    batch_id: str
    model_id: str
    created_at: str
    configuration: Mapping[str, Any]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, str]
    parent: str | None = None
    learnt_until_s: int | None = None

    @property
    def taught_until_s(self) -> int | None:
        """The same with what it learnt online since then, provisionally."""
        known = (self.metrics.get("online") or {}).get("until_s", self.learnt_until_s)
        return None if known is None else int(known)

    @property
    def made_at(self) -> datetime:
        """When it was made."""
        return made_at(self.created_at)

    def folder(self, name: str) -> Path:
        """Path of one package's folder."""
        return self.path / name


@contextmanager
def write_bundle(
    path: Path,
    *,
    created_at: str,
    configuration: Mapping[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    parent: str | None = None,
    learnt_until_s: int | None = None,
    extends: str | None = None,
) -> Iterator[Path]:
    """Yields an empty directory to fill; on leaving, adds the manifest and puts the directory in the place of `path`.

    Nothing appears at `path` before everything is written and synced; on an error the old bundle stays. `metrics` may
    be filled in while writing. created_at: ISO time, from the caller's clock. extends: id of the batch whose rows and
    vectors this one keeps, with more items after them: it is the same batch. The rest as in `Bundle`.
    """
    path = Path(path)
    refuse_foreign(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        files = {
            str(file.relative_to(draft).as_posix()): _sha256(file)
            for file in sorted(draft.rglob("*"))
            if file.is_file()
        }
        if not files:
            raise BundleError(f"{path}: nothing was written; expected items/, reward/, listener/, index/")
        manifest = {
            "format": FORMAT,
            "batch_id": extends or _batch_id(files),
            "model_id": _model_id(files),
            "extends": extends,
            "created_at": created_at,
            "configuration": dict(configuration or {}),
            "metrics": dict(metrics or {}),
            "versions": _versions(),
            "files": files,
            "parent": parent,
            "learnt_until_s": learnt_until_s,
        }
        _put_in_place(draft, manifest, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_foreign(path: Path) -> None:
    """Raises BundleError where something stands at `path` that is not a bundle and would be lost."""
    if path.is_symlink():
        raise BundleError(f"{path} is a link to a bundle; expected a new directory or a bundle")
    if path.is_dir():
        if any(path.iterdir()) and not (path / MANIFEST).is_file():
            raise BundleError(f"{path} holds something other than a bundle; expected a new directory or a bundle")
    elif path.exists():
        raise BundleError(f"{path} is a file; expected a new directory or a bundle")


def open_bundle(path: Path) -> Bundle:
    """The bundle at `path`, every file checked against the manifest.

    Raises BundleError that names the file which is missing, altered, unexpected or a link out of the bundle.
    """
    path = Path(path)
    manifest = read_manifest(path)
    _refuse_links_out(path)
    present = {str(f.relative_to(path).as_posix()) for f in path.rglob("*") if f.is_file()} - {MANIFEST}
    for name, digest in manifest["files"].items():
        if name not in present:
            raise BundleError(f"{path}: {name} is missing; expected every file of {MANIFEST}")
        if _sha256(path / name) != digest:
            raise BundleError(f"{path}: {name} was altered or truncated; its sha256 is not that of {MANIFEST}")
    extra = sorted(present - set(manifest["files"]))
    if extra:
        raise BundleError(f"{path}: {extra[0]} is not in {MANIFEST}; expected no other files")
    return Bundle(path, *(manifest[key] for key in _FIELDS))


def verify_bundle(path: Path, content_of: Callable[[Path], str]) -> Bundle:
    """`open_bundle`, with both ids recomputed; raises BundleError where one does not follow from the files.

    content_of: the content id of what a folder of reward/ holds, worked out anew.
    """
    bundle = open_bundle(path)
    for folder in sorted(_named_by_content(bundle.files)):
        found, noted = content_of(bundle.path / folder), (bundle.path / folder / CONTENT).read_text().strip()
        if found != noted:
            raise BundleError(
                f"{path}: {folder}/{CONTENT} names {noted[:16]!r}; what stands beside it is {found[:16]!r}"
            )
    extends = _stored_manifest(bundle.path).get("extends", bundle.batch_id)  # older manifests do not tell
    expected = {"batch_id": extends or _batch_id(bundle.files), "model_id": _model_id(bundle.files)}
    for name, recomputed in expected.items():
        if getattr(bundle, name) != recomputed:
            raise BundleError(f"{path}: {name} is {getattr(bundle, name)}; expected {recomputed}, which its files give")
    return bundle


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone, with the fields of the present format; unchecked but for its form, cheap enough to poll."""
    manifest = _stored_manifest(path)
    for version in range(manifest["format"], FORMAT):
        manifest = _UPGRADES[version](manifest)
    for key, (expected, fits) in _FIELDS.items():
        if key not in manifest:
            raise BundleError(f"{Path(path) / MANIFEST} lacks {key!r}")
        if not fits(manifest[key]):
            raise BundleError(f"{Path(path) / MANIFEST}: {key} is {manifest[key]!r:.80}; expected {expected}")
    return manifest


def migrate(path: Path) -> tuple[int, int]:
    """Rewrites a bundle of an older format as the present one, in its place; the formats before and after.

    The new directory is made beside and takes the name when it is whole. Ids and files stay as they are. Where `path`
    is a link, what it points to is rewritten. Raises BundleError for a damaged bundle and for an unknown format.
    """
    path = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    before = int(_stored_manifest(path)["format"])
    open_bundle(path)
    if before == FORMAT:
        return before, before
    draft = path.with_name(f".{path.name}.new-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        link_tree(path, draft)
        (draft / MANIFEST).unlink()  # before it is written: a hard link would change the old one too
        _put_in_place(draft, read_manifest(path), path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return before, FORMAT


def _put_in_place(draft: Path, manifest: Mapping[str, Any], path: Path) -> None:
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    sync_tree(draft)  # before the name: after a power cut it must not stand for empty files
    replace_directory(draft, path)


def _stored_manifest(path: Path) -> dict[str, Any]:
    """The manifest as it stands. Raises BundleError where it cannot be read or is of an unknown format."""
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: {MANIFEST} is missing")
    try:
        manifest = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:  # also of bytes that are no text, and of numbers of many digits
        raise BundleError(f"{file} is not JSON: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(found, int) or not (found == FORMAT or found in _UPGRADES):
        newer = isinstance(found, int) and found > FORMAT
        hint = "; a newer version of this software wrote it: update" if newer else ""
        raise BundleError(f"{file} has format {found!r}; this version reads formats {min(_UPGRADES)} to {FORMAT}{hint}")
    return dict(manifest)


def _from_1(manifest: dict[str, Any]) -> dict[str, Any]:
    """Format 1 told in its metrics alone from when on pages had been held out, and not what a model went on from."""
    metrics = manifest.get("metrics")
    reward = metrics.get("reward") if isinstance(metrics, dict) else None
    until = reward.get("holdout_from_s") if isinstance(reward, dict) else None
    return {**manifest, "format": 2, "parent": None, "learnt_until_s": until}


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()


def made_at(text: str) -> datetime:
    """The time that a manifest names; Python 3.10 does not read Z."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and made_at(value).tzinfo is not None
    except ValueError:
        return False


def _is_text_table(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) and (name + text).isprintable() for name, text in value.items()
    )


_LAST_S = 253_402_300_799  # of the year 9999

# field: what is expected of it, in words and as a check
_FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "batch_id": ("an id", _is_id),
    "model_id": ("an id", _is_id),
    "created_at": ("a time in ISO 8601 with its zone", _is_time),
    "configuration": ("an object", lambda value: isinstance(value, dict)),
    "metrics": ("an object", lambda value: isinstance(value, dict)),
    "versions": ("an object of texts", _is_text_table),
    "files": ("an object of texts", _is_text_table),
    "parent": ("an id or null", lambda value: value is None or _is_id(value)),
    "learnt_until_s": (
        "a whole number or null, seconds from 1970",
        lambda value: value is None or (type(value) is int and 0 <= value <= _LAST_S),
    ),
}

# format: what makes a manifest of the next one
_UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def _batch_id(files: Mapping[str, str]) -> str:
    return _content_id({name: digest for name, digest in files.items() if not name.startswith(f"{REWARD}/")})


def _model_id(files: Mapping[str, str]) -> str:
    named = _named_by_content(files)
    return _content_id(
        {
            name: digest
            for name, digest in files.items()
            if name.startswith(f"{REWARD}/") and (name.endswith(f"/{CONTENT}") or name.rpartition("/")[0] not in named)
        }
    )


def _named_by_content(files: Mapping[str, str]) -> set[str]:
    """Folders of reward/ whose content has a name of its own."""
    return {name.rpartition("/")[0] for name in files if name.startswith(f"{REWARD}/") and name.endswith(f"/{CONTENT}")}


def _refuse_links_out(path: Path) -> None:
    """Raises BundleError where a link in the bundle leads out of it: what it points to is not the bundle's."""
    root = path.resolve()
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            one = Path(folder, name)
            if one.is_symlink() and not one.resolve().is_relative_to(root):
                raise BundleError(f"{path}: {one.relative_to(path).as_posix()} is a link that leaves the bundle")


def _content_id(files: Mapping[str, str]) -> str:
    text = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream: Any) -> str:
    # hashlib.file_digest is newer than Python 3.10
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    out = {}
    for package in ("bart-home", "vowpal-wabbit-next", "numpy", "torch", "faiss-cpu"):
        try:
            out[package] = version(package)
        except PackageNotFoundError:  # a part that this process does not have
            continue
    return out
