"""CPU time of a home page here over that at another commit: two services asked in turn, block by block.

    python -m benchmarks turns --rev REV [--blocks 16] [--per-shelf 25] [--plain]

Each side is a process of its own with the run that its code makes (`benchmarks/service.py`), pages of 10 x 10 through
the application without sockets. While one is asked the other waits, so that both meet the same noise a second apart:
that tells a few hundredths where whole runs (`against`) tell tenths. Printed: medians, and the geometric mean of the
blocks' ratios (medians of a block, its first requests left out) with Student's 95 % interval on their logarithms.
--plain: without features of listening history, on both sides as far as they have any.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK, WARM = 60, 10  # requests of a block; the first of them find caches that the other side has filled
FIRST = 150  # requests that go before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rev", required=True)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--per-shelf", type=int, default=25)
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_args()

    from benchmarks.against import ROOT, ratio, worktree

    with worktree(asked.rev) as other, side(other, asked) as there, side(ROOT, asked) as here:
        sides = (there, here)
        for one in sides:
            block(one, FIRST)
        found: list[tuple[float, float]] = []
        for number in range(asked.blocks):
            took = {place: block(sides[place], BLOCK) for place in ((0, 1) if number % 2 else (1, 0))}
            found.append((took[0], took[1]))
    theirs, ours = (statistics.median(values) for values in zip(*found, strict=True))
    print(f"a page of 10 x 10, CPU: {asked.rev} {theirs:.3f} ms, here {ours:.3f} ms")
    print(f"here over {asked.rev}, {len(found)} blocks of {BLOCK} in turns: {ratio(found)}")
    return 0


@contextmanager
def side(tree: Path, asked: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """The process that answers for one commit."""
    with tempfile.TemporaryDirectory(prefix="bart-turns-") as folder:
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--answer", str(tree), folder, str(asked.per_shelf)]
        command += ["plain"] * asked.plain
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=tree)
        try:
            yield process
        finally:
            process.communicate()  # its input ends, so it does


def block(process: subprocess.Popen[str], requests: int) -> float:
    """Median CPU milliseconds of a request, of some."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(requests, file=process.stdin, flush=True)
    return statistics.median(json.loads(process.stdout.readline())[WARM:])


def answer(tree: str, folder: str, per_shelf: int, plain: bool) -> None:
    """Makes a run and answers: for each number that is read, so many requests, and their CPU milliseconds."""
    sys.path[:1] = [f"{tree}/benchmarks", tree]  # in the place of this file's own folder

    import service
    import uvloop

    async def asked(opened: object) -> None:
        app = service.create_app(opened)
        users = opened.listeners()  # type: ignore[attr-defined]
        bodies = [json.dumps({"user_id": user, "tz": "Europe/Stockholm"}).encode() for user in users]
        number = 0
        async with app.router.lifespan_context(app):
            for line in sys.stdin:
                took = []
                for _ in range(int(line)):
                    begun = time.process_time_ns()
                    await service.post(app, bodies[number % len(bodies)])
                    took.append((time.process_time_ns() - begun) / 1e6)
                    number += 1
                    await asyncio.sleep(0)
                print(json.dumps(took), flush=True)

    known = inspect.signature(service.make_run).parameters
    run = service.make_run(Path(folder), per_shelf, **({"plain": plain} if "plain" in known else {}))
    with service.settled(service.open_service(run, service.settings_for(per_shelf))) as opened:
        uvloop.run(asked(opened))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--answer"]:
        answer(sys.argv[2], sys.argv[3], int(sys.argv[4]), "plain" in sys.argv[5:])
        sys.exit(0)
    sys.exit(main())
