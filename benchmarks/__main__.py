"""Runs benchmarks by name, or lists them: python -m benchmarks [name ...]; `all` runs every one that takes minutes.

Options after a single name are that benchmark's own: python -m benchmarks closed_loop --report.
The same on another commit, in turns, as ratios with intervals: python -m benchmarks against REV NAME (against.py).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.against import SLOWER, against

HERE = Path(__file__).parent
STUDIES = {
    "adaptive_logs",
    "closed_loop",
    "day",
    "demo_coverage",
    "fresh_seeds",
    "learnt_coverage",
    "half",
    "level",
    "ope_coverage",
    "page_estimators",
    "retrain_gate",
    "reward_features",
    "reward_model",
}  # hours rather than minutes, or of a run that is given: only by name


def main(names: list[str]) -> int:
    """Exit code of the worst benchmark."""
    if names[:1] == ["against"]:
        return against(names[1:])
    found = {file.stem: file for file in sorted(HERE.glob("*.py")) if not file.stem.startswith("_")}
    runnable = {name: file for name, file in found.items() if '__name__ == "__main__"' in file.read_text()}
    if not names:
        for name, file in runnable.items():
            print(f"{name:<20} {(ast.get_docstring(ast.parse(file.read_text())) or '').splitlines()[0]}")
        print(
            "\npython -m benchmarks NAME ..., all (without the long studies), or against REV NAME (ratios to a commit)"
        )
        return 0
    options: list[str] = []
    if len(names) > 1 and names[1].startswith("-"):
        names, options = names[:1], names[1:]
    chosen = [name for name in runnable if name not in STUDIES] if names == ["all"] else names
    unknown = [name for name in chosen if name not in runnable]
    if unknown:
        print(f"benchmarks: no benchmark {unknown[0]!r}; expected some of {', '.join(runnable)}", file=sys.stderr)
        return 2
    environment = {k: v for k, v in os.environ.items() if k not in SLOWER}
    worst = 0
    for name in chosen:
        print(f"\n== {name}", flush=True)
        done = subprocess.run([sys.executable, str(runnable[name]), *options], env=environment, check=False)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
