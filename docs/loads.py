"""What a built page loads by itself. The site is to work without a network, so nothing may come from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

_BY_TAG = {
    "script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src", "audio": "src",
    "embed": "src", "object": "data", "use": "href", "image": "href",
}  # fmt: skip
_FOLLOWED = {"next", "prev", "index", "search", "canonical", "author", "copyright", "top", "up", "help", "license"}
_ELSEWHERE = re.compile(r"(https?:)?//")
_URL = re.compile(r"(?:@import\s+|url\()\s*['\"]?([^'\")\s]+)")


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and set((given.get("rel") or "").split()) <= _FOLLOWED:
            return  # a reader may follow it
        where = given.get(_BY_TAG.get(tag, ""))
        self.found += [where] if where else []
        self.found += _URL.findall(given.get("style") or "")


def loaded(page: str) -> list[str]:
    """Addresses that an HTML page loads: scripts, styles, pictures, frames."""
    reader = _Loads()
    reader.feed(page)
    return reader.found


def from_elsewhere(folder: Path) -> list[str]:
    """`file: address` of each thing that a page or a style sheet in the folder would load over the network."""
    out = []
    for file in sorted(folder.rglob("*.html")):
        out += [f"{file.relative_to(folder)}: {where}" for where in loaded(file.read_text()) if _ELSEWHERE.match(where)]
    for file in sorted(folder.rglob("*.css")):
        found = _URL.findall(file.read_text())
        out += [f"{file.relative_to(folder)}: {where}" for where in found if _ELSEWHERE.match(where)]
    return out
