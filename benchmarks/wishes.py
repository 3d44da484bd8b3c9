"""Pages, ranks and lists of two workers while preferences and takedowns change: 0 hold what must not be shown.

    python -m benchmarks wishes [--answers 100000] [--run RUN]   on a run that it makes, or on a copy of one
    python -m benchmarks wishes --rows FILE --minutes 9          begins no part after nine minutes; goes on next time

A part is 5,000 answers to six clients: home pages, given shelves, search results and retries of 40 listeners who block
artists and items, switch explicit items off and on and are not interested, many times a second, while items are taken
down and put back. Counted are cards that stood on an answer although whatever was asked for by then forbade them, one
second after it was taken, and at once. The log must verify. One line of JSON a part; exits with 1 where one fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.served.server import small_run
from benchmarks.served.wishes import wishes

A_PART = 5_000
COUNTED = ("answers", "cards", "changes", "takedowns", "shown_wrongly_after_1_s", "shown_wrongly_at_once", "refused")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    asked = parser.parse_args()
    begun = time.monotonic()
    rows = (
        [json.loads(line) for line in asked.rows.read_text().splitlines()] if asked.rows and asked.rows.exists() else []
    )
    with tempfile.TemporaryDirectory(prefix="bart-wishes-") as folder:
        source = asked.run
        while (left := asked.answers - sum(row["answers"] for row in rows)) > 0:
            if time.monotonic() - begun > 60 * asked.minutes:
                print(f"to be continued: {left:,} answers are left", flush=True)
                break
            source = source or small_run(Path(folder) / "made")
            run = Path(shutil.copytree(source, Path(folder) / f"part-{len(rows)}", symlinks=True))
            rows.append(wishes(run, min(left, A_PART), len(rows)))
            line = json.dumps(rows[-1])
            print(line, flush=True)
            if asked.rows:
                with asked.rows.open("a") as file:
                    file.write(line + "\n")
            shutil.rmtree(run)
    print(json.dumps({"parts": len(rows), **{name: sum(row[name] for row in rows) for name in COUNTED}}))
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
