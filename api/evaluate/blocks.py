"""Page logs for `bart evaluate`: read in blocks of bounded size, scored by every policy, estimated, pooled.

Of each page a few numbers an estimator and policy stay in memory (see `bart.ope.policies.pooled`); its candidates live
as long as the block that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.evaluate.policies import PagePolicy, predicted
from bart.errors import DataError
from bart.ope.policies.pages import PAGE_REPORT, as_row, evaluate_policies
from bart.types import ItemTable, PageBatch

if TYPE_CHECKING:
    from api.run.progress import Tick
    from bart.ope.comparison.comparison import PolicyComparison
    from bart.ope.policies.choices import Asked

BLOCK_CANDIDATES = 2_000_000  # of a block: some 500 bytes each at the peak, everything that is made of them included
WEIGHT_EDGES = (0, 0.1, 0.3, 1, 3, 10, 30, 100, 1_000)


@dataclass(slots=True)
class LogFacts:
    """What the blocks held. left_out: pages by reason; positions: sums that `position_facts` divides."""

    pages: int = 0
    seen: int = 0
    streams: float = 0.0
    left_out: dict[str, int] = field(default_factory=dict)
    positions: dict[str, Any] = field(default_factory=dict)

    def add(self, pages: PageBatch) -> None:
        from bart.ope.records.from_batch import usable_pages
        from bart.ope.report.report import add_positions

        self.pages += len(pages)
        self.seen += int(pages.seen.sum())
        self.streams += float(pages.reward[pages.seen].sum())
        for reason, count in usable_pages(pages)[1].items():
            self.left_out[reason] = self.left_out.get(reason, 0) + count
        add_positions(self.positions, pages)


def page_estimators(asked: Sequence[Asked], everything: bool) -> dict[str, str]:
    """Estimators by the names they have in the report. Raises DataError for an unknown one."""
    from bart.ope.estimators.pages import PAGE_ESTIMATORS

    if everything:
        others = {name: name for name in PAGE_ESTIMATORS if name not in PAGE_REPORT.values()}
        return {**PAGE_REPORT, **others}
    if not asked:
        return dict(PAGE_REPORT)
    out = {}
    for each in asked:
        kind = each.name if each.name in PAGE_ESTIMATORS else PAGE_REPORT.get(each.name)
        if kind is None:
            known = ", ".join([*PAGE_ESTIMATORS, *(n for n in PAGE_REPORT if n not in PAGE_ESTIMATORS)])
            raise DataError(f"--estimator {each.name!r} is not known for pages; expected one of {known}")
        out[each.name] = kind
    return out


def evaluate_blocks(
    blocks: Iterator[PageBatch],
    expected: int,
    policies: Sequence[PagePolicy],
    estimators: Mapping[str, str],
    parameters: Mapping[str, Mapping[str, Any]],
    *,
    items: ItemTable,
    interval: str | None,
    level: float,
    rng: np.random.Generator,
    tick: Tick,
    scored: Callable[[], None],
    empty: str,
) -> tuple[list[dict[str, Any]], LogFacts, dict[str, Any]]:
    """Rows of the report, what the log holds, and parts of the report that compare the policies.

    expected: number of blocks. scored: called when all candidates of a log of one block were scored. empty: what to say
    of a log without pages. Raises DataError where no page can be evaluated.
    """
    from bart.ope.comparison.comparison import PolicyComparison

    own = rng.spawn(1)[0]
    compared = PolicyComparison(items, level=level)
    facts = LogFacts()
    first = next(blocks, None)
    if first is None:
        raise DataError(empty)
    if expected == 1:
        pages = first
        facts.add(pages)
        q_logged = predicted(pages)
        _refuse_empty(facts)
        wanted = [policy.on(pages) for policy in policies]
        scored()
        compared.start(pages, q_logged, rng=own)
        evaluated = evaluate_policies(
            pages,
            wanted,
            level=level,
            rng=rng,
            q_logged=q_logged,
            estimators=estimators,
            parameters=parameters,
            interval=interval,
            inspect=lambda policy, data, _: compared.add(policy.name, data),
            on_progress=tick,
        )
        found = [row.as_row() for row in evaluated]
        return found, facts, compared.report(own, main_verdicts(found))
    every = chain([first], blocks)
    del first
    rows = _pooled(every, expected, policies, estimators, parameters, interval, level, rng, tick, facts, compared, own)
    return rows, facts, compared.report(own, main_verdicts(rows))


def main_verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict of each policy's main estimate."""
    from bart.ope.report.text import main_estimate

    return {row["name"]: main_estimate(row)[1]["verdict"] for row in rows}


def _pooled(
    blocks: Iterable[PageBatch],
    expected: int,
    policies: Sequence[PagePolicy],
    estimators: Mapping[str, str],
    parameters: Mapping[str, Mapping[str, Any]],
    interval: str | None,
    level: float,
    rng: np.random.Generator,
    tick: Tick,
    facts: LogFacts,
    compared: PolicyComparison,
    own: np.random.Generator,
) -> list[dict[str, Any]]:
    from api.background.memory import release_memory
    from bart.ope.policies.pooled import PooledPages
    from bart.ope.weights.pages import marginal_weight

    by_kind = {kind: dict(parameters.get(name, {})) for name, kind in estimators.items()}
    pools = [PooledPages(tuple(by_kind), stream, expected, by_kind) for stream in rng.spawn(len(policies))]
    weights = [np.zeros(len(WEIGHT_EDGES)) for _ in policies]
    users: dict[str, int] = {}
    for number, pages in enumerate(blocks):
        facts.add(pages)
        for user in pages.user_id:
            users.setdefault(user, len(users))
        if _all_left_out(pages):
            continue
        q_logged = predicted(pages)
        compared.start(pages, q_logged, users, own)
        for policy, pool, classes in zip(policies, pools, weights, strict=True):
            tick(number, expected, policy.name)
            data = policy.on(pages).logged(pages, q_logged, users)
            pool.add(data)
            compared.add(policy.name, data)
            classes += np.histogram(marginal_weight(data)[data.order >= 0], [*WEIGHT_EDGES, np.inf])[0]
            del data
        del pages
        release_memory()
    left = _refuse_empty(facts)
    notes = (f"pages left out: {', '.join(left)}",) if left else ()
    rows = []
    for policy, pool, classes in zip(policies, pools, weights, strict=True):
        found = pool.estimates(level, interval, notes)
        rows.append(
            {
                "name": policy.name,
                "truth": None,
                "truth_error": None,
                "estimates": as_row({name: found[kind] for name, kind in estimators.items()}),
                "weights": {"edges": list(WEIGHT_EDGES), "share": (classes / max(classes.sum(), 1)).tolist()},
            }
        )
    return rows


def read_blocks(batches: Iterable[PageBatch], pages: int, blocks: int, tick: Tick) -> Iterator[PageBatch]:
    """The pages of a log as `blocks` blocks of about equal size. pages: how many the log is known to hold at most."""
    share = max(-(-pages // blocks), 1)
    parts: list[PageBatch] = []
    held = done = 0
    for batch in batches:
        parts.append(batch)
        held += len(batch)
        done += len(batch)
        tick(done, pages, f"{done:,} pages")
        if held >= share and blocks > 1:
            yield PageBatch.concat(parts)
            parts, held = [], 0
    if parts:
        yield PageBatch.concat(parts)


def size_of(log: Path) -> tuple[int, int]:
    """Pages and candidates of an exported log, from the footers of its files."""
    import pyarrow.parquet as pq

    pages = candidates = 0
    for file in sorted(log.glob("date=*/*.parquet")):
        with pq.ParquetFile(file) as parquet:
            place = next(
                (i for i in range(len(parquet.schema)) if parquet.schema.column(i).path.startswith("item_id")), 0
            )
            pages += parquet.metadata.num_rows
            for group in range(parquet.metadata.num_row_groups):
                candidates += parquet.metadata.row_group(group).column(place).num_values
    return pages, candidates


def decided_from(batches: Iterable[PageBatch], since: datetime | None) -> Iterator[PageBatch]:
    """The pages decided from then on."""
    for batch in batches:
        keep = np.ones(len(batch), dtype=np.bool_) if since is None else batch.at_s >= since.timestamp()
        if keep.any():
            yield batch if keep.all() else batch.take(np.flatnonzero(keep))


def _refuse_empty(facts: LogFacts) -> list[str]:
    """What was left out, in words; DataError where that is everything."""
    left = [f"{count:,} {reason}" for reason, count in facts.left_out.items() if count]
    if facts.pages == sum(facts.left_out.values()):
        raise DataError(f"no page is left to evaluate ({', '.join(left)}); expected at least one")
    return left


def _all_left_out(pages: PageBatch) -> bool:
    from bart.ope.records.from_batch import usable_pages

    return not len(usable_pages(pages)[0])
