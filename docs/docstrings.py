"""Docstrings in plain prose as reStructuredText: nothing in them is markup but `code`."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"`+([^`]+)`+")
_OWN_LINE = re.compile(r"(Returns|Raises|Source|Yields)\b|[a-z_][\w]*(, [a-z_]\w*)*: ")
_ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
_ITEM = re.compile(r"(- |\d+\. )")


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """For `autodoc-process-docstring`: changes the lines in place."""
    del app, what, name, obj, options
    lines[:] = converted(lines)


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, given: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """For `autodoc-process-signature`: names of types as the code writes them, in unions too."""
    del app, what, name, obj, options
    plain = [None if text is None else _ALIAS.sub(r"\1", text) for text in (given, returned)]
    return plain[0], plain[1]


def converted(lines: list[str]) -> list[str]:
    """Paragraphs stay paragraphs, `name: meaning` and Returns begin one, what is indented is shown as it stands."""
    out: list[str] = []
    literal = False
    for line in lines:
        text = line.rstrip()
        if not text:
            out.append("")
            continue
        if text.startswith(" "):
            if out and out[-1] and not literal and not _in_item(out):
                out.append("")
            if not literal and not _in_item(out):
                out += ["::", ""]
                literal = True
            out.append(("    " + text) if literal else f"  {_escaped(text.strip())}")
            continue
        if literal and out[-1]:
            out.append("")
        literal = False
        if out and out[-1] and (_OWN_LINE.match(text) or _ITEM.match(text)):
            out.append("")
        out.append(_escaped(text))
    return [*out, ""]


def _in_item(out: list[str]) -> bool:
    for line in reversed(out):
        if line and not line.startswith(" "):
            return bool(_ITEM.match(line))
    return False


def _escaped(text: str) -> str:
    out, at = [], 0
    for found in _CODE.finditer(text):
        out.append(_plain(text[at : found.start()]))
        before = "\\ " if found.start() and not text[found.start() - 1].isspace() else ""
        after = "\\ " if found.end() < len(text) and not text[found.end()].isspace() else ""
        out.append(f"{before}``{found[1].strip()}``{after}")
        at = found.end()
    out.append(_plain(text[at:]))
    return "".join(out)


def _plain(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("`", "\\`")
    return re.sub(r"_(?!\w)", r"\\_", text)
