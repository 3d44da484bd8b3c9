"""`bart evaluate --engine` on an exported log of pages: the kernel that scores and estimates a block; the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError

if TYPE_CHECKING:
    from api.console import Stages
    from api.evaluate_policies import Chosen
    from api.settings import Settings

BLOCK_CANDIDATES = 1_000_000  # of a block: some 500 bytes each at the peak, in every worker
REPLICATES = 400  # their spread is known to 4 %


@dataclass(frozen=True, slots=True)
class PageKernel:
    """Statistics of blocks of logged pages for several policies.

    log: the export, as every worker sees it. named: bundles and baselines with their epsilon. estimators: kinds with
    their parameters. shape: rows and columns of the largest page in the log.
    """

    log: str
    named: tuple[tuple[str, float], ...]
    estimators: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
    shape: tuple[int, int]
    since: datetime | None
    replicates: int
    seed: int
    block_candidates: int = BLOCK_CANDIDATES

    def read(self, file: Path) -> Iterator[Any]:
        """The file in blocks of about equal size, cut between row groups."""
        import pyarrow as pa

        from bart.log_files import open_export, upgraded

        parquet, version = open_export(file)
        with parquet:
            groups = parquet.metadata.num_row_groups
            place = next(i for i in range(len(parquet.schema)) if parquet.schema.column(i).path.startswith("item_id"))
            held = sum(parquet.metadata.row_group(g).column(place).num_values for g in range(groups))
            blocks = min(max(-(-held // self.block_candidates), 1), max(groups, 1))
            edges = np.linspace(0, groups, blocks + 1).astype(int)
            for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                table = parquet.read_row_groups(list(range(start, stop)), use_threads=False)
                parts = [upgraded(batch, version) for batch in table.combine_chunks().to_batches()]
                if parts:
                    yield parts[0] if len(parts) == 1 else pa.concat_batches(parts)

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        from api.evaluate_pages import decided_from
        from api.evaluate_policies import predicted
        from bart.feedback import DEFAULT_REWARD
        from bart.log_pages import page_batch
        from bart.ope.engine import Statistics
        from bart.ope.engine_pages import put_pages
        from bart.ope.pages import usable_pages
        from bart.ope.poisson_hash import hash_text

        out = Statistics()
        chosen = opened(self.log, self.named)
        item_id = pa.array(chosen.items.item_id, pa.string())
        read = page_batch(batch, chosen.items, item_id, self.shape, DEFAULT_REWARD)
        for pages in decided_from([read], self.since):
            usable, left_out = usable_pages(pages)
            out.put("pages", len(pages))
            out.put("seen", pages.seen.sum())
            out.put("streams", pages.reward[pages.seen].sum())
            for reason, count in left_out.items():
                out.put(f"left out: {reason}", count)
            if not len(usable):
                continue
            users = {user: code for code, user in enumerate(dict.fromkeys(pages.user_id))}
            hashed = hash_text(list(users))
            q_logged = predicted(pages)
            for policy in chosen.policies:
                data = policy.on(pages).logged(pages, q_logged, users)
                asked = {kind: dict(parameters) for kind, parameters in self.estimators}
                put_pages(out, policy.name, data, asked, hashed[data.user], self.replicates, self.seed)
        return out.to_arrow()


@lru_cache(maxsize=1)
def opened(log: str, named: tuple[tuple[str, float], ...]) -> Chosen:
    """The policies of a log; opened once a process."""
    from api.evaluate_policies import page_policies

    return page_policies(Path(log), named, (), None, {})


def evaluate_pages_on_engine(
    path: Path,
    policies: Sequence[str],
    settings: Settings,
    out: Path | None,
    stages: Stages,
    *,
    engine: str,
    master: str | None = None,
    workers: int | None = None,
    since: datetime | None = None,
    estimators: Sequence[str] = (),
    everything: bool = False,
    interval: str | None = None,
    level: float | None = None,
) -> dict[str, Any]:
    """Estimates of each policy on an exported log of pages, in memory that does not grow with the log.

    policies: as of `evaluation.evaluate_log`. Raises DataError or BundleError with what was expected.
    """
    from api.evaluate_pages import page_estimators
    from api.evaluation import parse_policy
    from bart.log_files import export_files
    from bart.log_pages import largest_page
    from bart.ope.choice_policies import parse_estimator
    from bart.ope.engine import run_kernel
    from bart.ope.engine_pages import EDGES, page_estimates
    from bart.ope.policies import as_row
    from bart.ope.report import write_report

    if interval not in (None, "percentile"):
        raise DataError(f"--interval is {interval!r}; expected percentile for pages with --engine")
    path = path.absolute()
    files = export_files(path) if path.is_dir() else []
    if not files:
        raise DataError(f"{path} holds no exported pages; expected date=YYYY-MM-DD/part-*.parquet")
    asked = [parse_estimator(text) for text in estimators]
    kinds = page_estimators(asked, everything)
    given: Mapping[str, Mapping[str, float]] = {each.name: each.parameters for each in asked}
    named = tuple(
        (name if name in ("popularity", "logging") else str(Path(name).absolute()), epsilon)
        for name, epsilon in ([parse_policy(text) for text in policies] or [("popularity", 0.0)])
    )
    opened(str(path), named)  # what cannot be opened is refused before a worker starts
    kernel = PageKernel(
        str(path),
        named,
        tuple((kind, tuple(given.get(name, {}).items())) for name, kind in kinds.items()),
        largest_page(files),
        since,
        REPLICATES,
        settings.seed,
    )
    tick = stages.stage("Summing up the log")
    found = run_kernel(kernel, path, engine=engine, workers=workers, master=master, on_progress=tick)
    left = {n.removeprefix("left out: "): int(found.total(n)) for n in found.names() if n.startswith("left out: ")}
    if found.total("pages") <= sum(left.values()):
        raise DataError(f"{path}: no page is left to evaluate; expected closed, displayed pages")
    level = settings.evaluation.level if level is None else level
    told = [f"{count:,} {reason}" for reason, count in left.items() if count]
    notes = (f"pages left out: {', '.join(told)}",) if told else ()
    rows = []
    for policy in opened(str(path), named).policies:
        share = found.values(f"{policy.name}/weights")
        rows.append(
            {
                "name": policy.name,
                "truth": None,
                "truth_error": None,
                "estimates": as_row(page_estimates(found, policy.name, kinds, level, notes)),
                "weights": {"edges": list(EDGES), "share": (share / max(share.sum(), 1)).tolist()},
            }
        )
    report = {
        "kind": "pages",
        "unit": "expected streams a page",
        "seed": settings.seed,
        "level": level,
        "policies": rows,
        "log": {
            "pages": int(found.total("pages")),
            "seen": int(found.total("seen")),
            "streams": found.total("streams"),
        },
        "left_out": left,
        "replay": None,
        "engine": {"name": engine, "replicates": REPLICATES},
        "configuration": settings.model_dump(exclude={"serve"}),
        "note": "A ranking of the logged candidates only: what other candidates would have earned is not in the log.",
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report
