"""Reference text made from the code itself, as Markdown: commands, HTTP calls, settings, columns, public names.

    python docs/generated.py            writes it into the pages (make reference)
    python docs/generated.py --check    says which pages are behind the code; exit 1 where one is

A page holds what was made between two marks, so that it reads where it lies:

    <!-- generated: commands -->
    ...
    <!-- end -->

MAKERS is the table of what can be asked for. tests/docs/test_site.py holds that no page is behind.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

from generators import changes, commands, formats, house, http, python, settings  # noqa: E402

MAKERS: dict[str, Callable[..., str]] = {
    "commands": commands.commands,
    "http_calls": http.http_calls,
    "http_bodies": http.http_bodies,
    "settings": settings.settings,
    "business_rules": settings.business_rules,
    "columns": formats.columns,
    "record": formats.record,
    "constant": formats.constant,
    "names": formats.names,
    "public": python.public,
    "house": house.house,
    "way": house.way,
    "changes": changes.changes,
}
_PLACE = re.compile(
    r"(?P<mark><!-- generated: (?P<maker>\w+)(?: (?P<place>[\w.:,/ ]+?))? -->)(?P<text>.*?)<!-- end -->", re.DOTALL
)
_CHECKOUT = re.compile(r"\[`?([^\]`]+)`?\]\((?:\.\./)+(?:bart|recommender|simulator|api|tests|[A-Z_]+\.md)[^)]*\)")


def version() -> str:
    """The installed version of the package."""
    return installed("bart-home")


def fill(page: str) -> str:
    """The page with everything generated in its place, made anew; KeyError for a name that nothing makes."""
    return _PLACE.sub(lambda found: f"{found['mark']}{_made(found)}<!-- end -->", page)


def for_site(page: str) -> str:
    """The page as the site has it: public names with their docstrings in full, files of the checkout by their names."""
    page = _PLACE.sub(
        lambda found: python.in_full(found["place"]) if found["maker"] == "public" else found["text"], page
    )
    return _CHECKOUT.sub(r"`\1`", page)


def pages() -> Iterator[Path]:
    """The pages that hold something generated."""
    for file in [DOCS.parent / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]:
        if "_build" not in file.parts and "<!-- generated:" in file.read_text():
            yield file


def main(arguments: list[str]) -> int:
    """Writes the pages that are behind the code, or names them."""
    code = 0
    for file in pages():
        name, before = file.relative_to(DOCS.parent), file.read_text()
        try:
            text = fill(before)
        except (AttributeError, ImportError, ValueError) as error:  # it names what moved: a person knows where to
            print(f"{name}: {error}")
            code = 1
            continue
        if text != before and "--check" in arguments:
            print(f"{name} is behind the code: make reference")
            code = 1
        elif text != before:
            file.write_text(text)
            print(f"{name} written")
    return code


def _made(found: re.Match[str]) -> str:
    text = MAKERS[found["maker"]](*([found["place"]] if found["place"] else []))
    return f"\n\n{text.strip()}\n\n" if "\n" in text else text  # a word stays in its sentence


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
