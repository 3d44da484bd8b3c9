"""A bundle: one plain directory that holds all that a server needs, and a manifest that proves it is whole.

    manifest.json   format, ids, sha256 of every file, configuration, metrics
    items/          the item table
    reward/         the reward model or scorer
    listener/       the listener model
    index/          the candidate source

`batch_id` names the items and vectors (the content of everything but reward/): vectors and listener states of
different batches must never be compared. `model_id` names the content of reward/. Both are hashes of content, so the
same inputs give the same ids. Each package reads its own folder; this module knows files only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bart.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
REWARD = "reward"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk.

    configuration: what it was made with. metrics: what was measured of it. versions: of the packages that wrote it.
    """

    path: Path
    batch_id: str
    model_id: str
    created_at: str
    configuration: Mapping[str, Any]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, str]

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
) -> Iterator[Path]:
    """Yields an empty directory to fill; on leaving, adds the manifest and puts the directory in the place of `path`.

    Nothing appears at `path` before everything is written; on an error the old bundle stays. `metrics` may be filled
    in while writing. created_at: ISO time, from the caller's clock.
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
            "batch_id": _content_id({k: v for k, v in files.items() if not k.startswith(f"{REWARD}/")}),
            "model_id": _content_id({k: v for k, v in files.items() if k.startswith(f"{REWARD}/")}),
            "created_at": created_at,
            "configuration": dict(configuration or {}),
            "metrics": dict(metrics or {}),
            "versions": _versions(),
            "files": files,
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        replace_directory(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_foreign(path: Path) -> None:
    """Raises BundleError where something stands at `path` that is not a bundle and would be lost."""
    if path.is_dir():
        if any(path.iterdir()) and not (path / MANIFEST).is_file():
            raise BundleError(f"{path} holds something other than a bundle; expected a new directory or a bundle")
    elif path.exists():
        raise BundleError(f"{path} is a file; expected a new directory or a bundle")


def open_bundle(path: Path) -> Bundle:
    """The bundle at `path`, every file checked against the manifest.

    Raises BundleError that names the file which is missing, altered or unexpected.
    """
    path = Path(path)
    manifest = read_manifest(path)
    present = {str(f.relative_to(path).as_posix()) for f in path.rglob("*") if f.is_file()} - {MANIFEST}
    for name, digest in manifest["files"].items():
        if name not in present:
            raise BundleError(f"{path}: {name} is missing; expected every file of {MANIFEST}")
        if _sha256(path / name) != digest:
            raise BundleError(f"{path}: {name} was altered or truncated; its sha256 is not that of {MANIFEST}")
    extra = sorted(present - set(manifest["files"]))
    if extra:
        raise BundleError(f"{path}: {extra[0]} is not in {MANIFEST}; expected no other files")
    return Bundle(
        path,
        *(
            manifest[key]
            for key in ("batch_id", "model_id", "created_at", "configuration", "metrics", "versions", "files")
        ),
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone, unchecked but for its format; cheap enough to poll."""
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: {MANIFEST} is missing")
    try:
        manifest = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise BundleError(f"{file} has format {found!r}; this version reads format {FORMAT}")
    missing = [
        key
        for key in ("batch_id", "model_id", "created_at", "configuration", "metrics", "versions", "files")
        if key not in manifest
    ]
    if missing:
        raise BundleError(f"{file} lacks {missing[0]!r}")
    return manifest


def replace_directory(new: Path, path: Path) -> None:
    """Puts the directory `new` in the place of `path` (same file system), by renames; `path` need not exist."""
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


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
