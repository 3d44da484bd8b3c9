"""Where the cover of an item is fetched from: a configured host, or the run's own folder; from nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit

from bart.types import ITEM_TYPES, ItemTable

FOLDER = "covers"  # of the run
KINDS = {".avif": "image/avif", ".gif": "image/gif", ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".png": "image/png",
         ".webp": "image/webp"}  # by ending; no SVG, which can hold scripts  # fmt: skip
_LENDING = tuple(ITEM_TYPES.index(name) for name in ("album", "show"))


@dataclass(frozen=True)
class Covers:
    """hosts: from which covers may come by HTTPS, as the settings name them."""

    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hosts: Collection[str]) -> Covers:
        return cls(frozenset(hosts))

    def address(self, items: ItemTable, row: int) -> str | None:
        """Of an item's own cover, or of the album's or show's that holds it; None where there is none to show."""
        if items.image is None:
            return None
        own = self.allowed(items.image[row])
        if own is not None:
            return own
        lenders = (holder for holder in items.held_by[row].tolist() if items.type[holder] in _LENDING)
        return next(filter(None, (self.allowed(items.image[holder]) for holder in lenders)), None)

    def fact(self, items: ItemTable, row: int) -> dict[str, str]:
        """`image` of an item that has a cover to show, nothing of another one."""
        address = self.address(items, row)
        return {} if address is None else {"image": address}

    def allowed(self, image: str | None) -> str | None:
        """The address of an `image` as the page may fetch it; None for what may not be fetched, or is no image."""
        if not image:
            return None
        try:
            parts = urlsplit(image)
        except ValueError:
            return None
        if parts.scheme == "https":
            return image if parts.netloc.lower() in self.hosts else None
        if parts.scheme or parts.netloc:
            return None
        name = file_name(image)
        return None if name is None else f"/{FOLDER}/{quote(name)}"


NO_COVERS = Covers()


def file_name(path: str) -> str | None:
    """The name of a file below the folder of covers, which the path may name itself; None for what leaves it."""
    pure = PurePosixPath(path)
    parts = pure.parts[1:] if pure.parts[:1] == (FOLDER,) else pure.parts
    if not parts or pure.is_absolute() or any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return None
    return "/".join(parts) if pure.suffix.lower() in KINDS else None


def source_policy(hosts: Collection[str]) -> str:
    """What a content security policy says of images."""
    return " ".join(["'self'", "data:", *(f"https://{host}" for host in sorted(hosts))])
