"""First paint, weight and requests of the pages of a service that runs: python benchmarks/first_paint.py LINK.

LINK: as `bart serve` prints it, with the key.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LOADS = 8
READY = {
    "/": "document.querySelectorAll('.card').length > 5",
    "/operate": "document.body?.dataset.ready === 'yes'",
    "/simulate": "document.body?.dataset.ready === 'yes'",
}
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
LARGEST = (
    "new Promise(done => new PerformanceObserver(list => done(list.getEntries().at(-1).startTime))"
    ".observe({type: 'largest-contentful-paint', buffered: true}))"
)
FETCHED = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
BYTES = f"{FETCHED}.filter(e => !e.name.endsWith('/report')).reduce((sum, e) => sum + e.decodedBodySize, 0)"


def main(link: str) -> None:
    """Loads each page some times with an empty cache and prints medians."""
    address, _, fragment = link.partition("#")
    spec = importlib.util.spec_from_file_location(
        "chromium", Path(__file__).resolve().parent.parent / "tests/support/chromium.py"
    )
    assert spec is not None
    assert spec.loader is not None
    chromium: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chromium)
    with tempfile.TemporaryDirectory() as profile, chromium.browser(Path(profile)) as tab:
        for path, ready in READY.items():
            paint, largest = [], []
            for _ in range(LOADS):
                tab.empty_cache()
                tab.open("about:blank")
                tab.open(f"{address.rstrip('/')}{path}#{fragment}")
                tab.wait(ready)
                time.sleep(0.4)  # until what was asked for last is on the screen
                paint.append(tab.run(PAINT))
                largest.append(tab.run(LARGEST))
            print(
                f"{path:<10} first contentful paint {statistics.median(paint):.0f} ms ({min(paint):.0f} to "
                f"{max(paint):.0f}), largest {statistics.median(largest):.0f} ms, {tab.run(BYTES):,} bytes, "
                f"{tab.run(f'{FETCHED}.length')} requests"
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
