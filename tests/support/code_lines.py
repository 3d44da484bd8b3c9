"""Lines of code: what is neither blank, nor a comment, nor a docstring.

python tests/support/code_lines.py [FOLDER ...]: lines by folder (by default the four packages) and their sum.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bart", "recommender", "simulator", "api")
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(text: str) -> int:
    """How many lines of a Python source hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def of_folder(folder: Path) -> int:
    """The same of all Python files below a folder."""
    return sum(code_lines(file.read_text(encoding="utf-8")) for file in folder.rglob("*.py"))


if __name__ == "__main__":
    counts = {name: of_folder(ROOT / name) for name in sys.argv[1:] or PACKAGES}
    for name, count in counts.items():
        print(f"{count:>7,} {name}")
    print(f"{sum(counts.values()):>7,}")
