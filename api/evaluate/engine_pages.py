"""`bart evaluate --engine` on an exported log of pages: the kernel that scores and estimates a block; the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError

if TYPE_CHECKING:
    from api.evaluate.policies import Chosen
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.ope.engine.exposure import Shared
    from bart.ope.engine.exposure_fit import Pooled
    from bart.ope.engine.sums import Statistics
    from bart.ope.policies.pages import EvaluationPolicy

BLOCK_CANDIDATES = 1_000_000  # of a block: some 500 bytes each at the peak, in every worker
REPLICATES = 400  # their spread is known to 4 %


@dataclass(frozen=True, slots=True)
class PageKernel:
    """Statistics of blocks of logged pages for several policies.

    log: the export, as every worker sees it. named: bundles and baselines with their epsilon. estimators: kinds with
    their parameters. shape: rows and columns of the largest page in the log. at: parameters of the exposure kinds by
    policy, which are all that is summed up then; none in the first pass. predicted: whether the logging policy's scores
    are taken for probabilities where they can be. reward: by name, computed anew.
    """

    log: str
    named: tuple[tuple[str, float], ...]
    estimators: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
    shape: tuple[int, int]
    since: datetime | None
    replicates: int
    seed: int
    block_candidates: int = BLOCK_CANDIDATES
    at: tuple[tuple[str, Shared], ...] = ()
    predicted: bool = True
    reward: str = "streamed_30s"

    def read(self, file: Path) -> Iterator[Any]:
        """The file in blocks of about equal size, cut between row groups."""
        import pyarrow as pa

        from bart.log.store.files import open_export, upgraded

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

        from api.evaluate.blocks import decided_from
        from bart.log.outcomes.pages import page_batch
        from bart.ope.engine.pages import put_pages, put_pooled
        from bart.ope.engine.sums import Statistics
        from bart.ope.intervals.poisson_hash import hash_text
        from bart.ope.records.from_batch import usable_pages

        out = Statistics()
        chosen = opened(self.log, self.named)
        item_id = pa.array(chosen.items.item_id, pa.string())
        read = page_batch(batch, chosen.items, item_id, self.shape, self.reward)
        for pages in decided_from([read], self.since):
            usable, left_out = usable_pages(pages)
            if not self.at:
                out.put("pages", len(pages))
                out.put("seen", pages.seen.sum())
                out.put("streams", pages.reward[pages.seen].sum())
                for reason, count in left_out.items():
                    out.put(f"left out: {reason}", count)
            if not len(usable):
                continue
            users = {user: code for code, user in enumerate(dict.fromkeys(pages.user_id))}
            hashed = hash_text(list(users))
            asked = {kind: dict(parameters) for kind, parameters in self.estimators}
            for policy in chosen.policies:
                wanted, q_logged = self._predictions(policy.own, policy.on(pages), pages)
                data = wanted.logged(pages, q_logged, users)
                user, drawn = hashed[data.user], (self.replicates, self.seed)
                if not self.at:
                    put_pages(out, policy.name, data, asked, user, *drawn)
                    continue
                here = {shared.cap: shared for name, shared in self.at if name == policy.name}
                put_pooled(out, policy.name, data, asked, here, user, *drawn)
        return out.to_arrow()

    def _predictions(self, own: bool, policy: EvaluationPolicy, pages: Any) -> tuple[EvaluationPolicy, Any]:
        """The policy, and what the logging policy's model predicts for the candidates, where anybody may read it."""
        from api.evaluate.policies import predicted

        if self.predicted:
            return policy, predicted(pages)
        return (policy if own else replace(policy, reward=None, unpredicted=True)), None


@lru_cache(maxsize=1)
def opened(log: str, named: tuple[tuple[str, float], ...]) -> Chosen:
    """The policies of a log; opened once a process."""
    from api.evaluate.policies import page_policies

    return page_policies(Path(log), named, (), None)


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
    block_candidates: int = BLOCK_CANDIDATES,
) -> dict[str, Any]:
    """Estimates of each policy on an exported log of pages, in memory that does not grow with the log.

    policies: as of `evaluation.evaluate_log`. block_candidates: at most about so many are held at
    once. Raises DataError or BundleError with what was expected.
    """
    from api.evaluate.blocks import page_estimators
    from api.evaluate.policies import parse_policy
    from bart.log.outcomes.pages import largest_page, recorded_reward
    from bart.log.store.files import export_files
    from bart.ope.engine.pages import EDGES, page_estimates
    from bart.ope.engine.run import kept_engine, run_kernel
    from bart.ope.policies.choices import parse_estimator
    from bart.ope.policies.pages import as_row
    from bart.ope.report.report import write_report

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
        block_candidates,
        reward=recorded_reward(path),
    )

    def run(kernel: PageKernel, stage: str) -> Statistics:
        tick = stages.stage(stage)
        return run_kernel(kernel, path, engine=engine, workers=workers, master=master, on_progress=tick)

    names = [policy.name for policy in opened(str(path), named).policies]
    with kept_engine(engine, master):
        found = run(kernel, "Summing up the log")
        left = {n.removeprefix("left out: "): int(found.total(n)) for n in found.names() if n.startswith("left out: ")}
        if found.total("pages") <= sum(left.values()):
            raise DataError(f"{path}: no page is left to evaluate; expected closed, displayed pages")
        found, fits = _fitted(kernel, found, names, run)
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
                "estimates": as_row(page_estimates(found, policy.name, kinds, level, notes, fits.get(policy.name))),
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
        "configuration": settings.as_dict(leave_out={"serve"}),
        "note": "A ranking of the logged candidates only: what other candidates would have earned is not in the log.",
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report


def _fitted(
    kernel: PageKernel, found: Statistics, policies: Sequence[str], run: Callable[[PageKernel, str], Statistics]
) -> tuple[Statistics, dict[str, dict[str, Pooled]]]:
    """The statistics with those of the exposure kinds, whose parameters are fitted to the whole log, and their fits by
    policy and kind."""
    from bart.ope.engine.exposure_fit import PASSES, SETTLED, starts
    from bart.ope.engine.pages import caps_of, page_fits

    asked = {kind: dict(parameters) for kind, parameters in kernel.estimators}
    caps = caps_of(asked)
    if not caps:
        return found, {}
    at = starts(found, policies, caps)
    if at is None:  # scores are probabilities in some blocks only: nobody reads them
        kernel = replace(kernel, predicted=False)
        found = run(kernel, "Summing up the log without the logging policy's predictions")
        at = starts(found, policies, caps)
    if at is None:
        raise DataError("blocks of the log differ in what predicts rewards; expected the same for all")
    for number in range(1, PASSES + 1):
        fitting = replace(kernel, at=tuple((policy, shared) for (policy, _), shared in at.items()))
        seen = run(fitting, f"Fitting exposures, pass {number}")
        fits = {policy: page_fits(seen, policy, asked, {cap: at[policy, cap] for cap in caps}) for policy in policies}
        every = [(kind, fit) for each in fits.values() for kind, fit in each.items() if kind != "cascade_dr"]
        off = max((fit.off(kind) for kind, fit in every), default=0.0)
        if off <= SETTLED:
            break
        at = {(policy, cap): shared.moved(_of_cap(fits[policy], cap).step) for (policy, cap), shared in at.items()}
    found.add(seen)
    return found, fits


def _of_cap(fits: Mapping[str, Pooled], cap: float) -> Pooled:
    return next(fit for fit in fits.values() if fit.at.cap == cap)
