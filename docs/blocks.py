"""The code blocks of a Markdown page, each with the mark that says what becomes of it when the documentation is tested.

A mark is an HTML comment on the line above a block:

    <!-- run -->               run, in the order of the page, in a folder of the page's own
    <!-- run: exits 0 or 3 --> the same for a command that may end with these codes
    <!-- file: NAME -->        written to this file; settings (bart.toml) are checked, too
    <!-- serve -->             started, and left running until the end of the page
    <!-- output -->            what the block before it prints; `...` stands for anything
    <!-- shown: WHAT -->       no code: a formula, a diagram, a layout
    <!-- not run: REASON -->   cannot run in a test; the site prints the reason under the block

A block is fenced, or indented by four spaces after an empty line. The site (conf.py) and tests/docs/test_blocks.py read
pages with this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MARKS = ("run", "file", "serve", "output", "shown", "not run")
_MARK = re.compile(r"<!-- (?P<mark>run|file|serve|output|shown|not run)(?:: (?P<note>.+?))? -->$")
_FENCE = re.compile(r"(`{3,}|~{3,})(\{?[\w-]*\}?)")
_LIST = re.compile(r"\s*([-*]|\d+\.) ")
_SHELL = re.compile(r"^(bart|make|curl|pip|python|printf|cd|redis-server|#) ?")


@dataclass(frozen=True, slots=True)
class Block:
    """line: of the first line of the block, from 1. mark: "" where there is none. language: guessed if not said."""

    line: int
    end: int
    mark: str
    note: str
    language: str
    text: str
    mark_line: int


def blocks(page: str) -> Iterator[Block]:
    """The code blocks of a page in order. Fences in braces are directives of the site, not code."""
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence:
            end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == fence[1])
            if not fence[2].startswith("{"):
                text = "\n".join(lines[number + 1 : end]) + "\n"
                yield _block(lines, number, end + 1, fence[2], text)
            number = end + 1
        elif lines[number].startswith("    ") and _begins(lines, number):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or _goes_on(lines, end)):
                end += 1
            text = "\n".join(line[4:] for line in lines[number:end]) + "\n"
            yield _block(lines, number, end, "", text)
            number = end
        else:
            number += 1


def for_site(page: str) -> str:
    """The page as the site shows it: every block fenced with its language, marks gone, reasons under their blocks."""
    out = page.splitlines()
    for block in reversed(list(blocks(page))):
        start = block.line - 1
        body = ["```" + block.language, *block.text.rstrip("\n").splitlines(), "```"]
        if block.mark == "not run":
            body += ["", f'<p class="under">Not run by the tests: {block.note}</p>', ""]
        if block.mark == "file":
            body = ["", f'<p class="over">{block.note}</p>', "", *body]
        if block.mark == "output":
            body = ["", '<p class="over">prints</p>', "", *body]
        out[start : block.end] = body
        if block.mark_line:
            out[block.mark_line - 1 : block.mark_line] = []
    return "\n".join(out) + "\n"


def _begins(lines: list[str], number: int) -> bool:
    if number == 0 or _MARK.match(lines[number - 1]):
        return True
    before = [line for line in lines[:number] if line.strip()]
    in_list = bool(before) and bool(_LIST.match(before[-1]) or before[-1].startswith("  "))
    return not lines[number - 1].strip() and not in_list


def _goes_on(lines: list[str], number: int) -> bool:
    rest = lines[number:]
    following = next((line for line in rest if line.strip()), "")
    return not lines[number].strip() and following.startswith("    ")


def _block(lines: list[str], start: int, end: int, language: str, text: str) -> Block:
    place = start - 1 if start and lines[start - 1].strip() else start - 2
    found = _MARK.match(lines[place].strip()) if place >= 0 else None
    mark, note = (found["mark"], found["note"] or "") if found else ("", "")
    language = language or _language(text, mark)
    return Block(start + 1, end, mark, note, language, text, place + 1 if found else 0)


def _language(text: str, mark: str) -> str:
    if mark in ("shown", "output"):
        return "text"
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("# ")), "")
    if first.startswith("["):
        return "toml"
    if first.startswith("{"):
        return "json"
    return "sh" if _SHELL.match(first) else "text"
