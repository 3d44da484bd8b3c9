"""A block of an exported log of pages, read, scored by every policy and summed up; and how a log is cut into blocks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.ope.comparison.evaluation import Common, Place, Question
from bart.ope.engine.sums import Part, Statistics

if TYPE_CHECKING:
    import pyarrow as pa

    from api.evaluate.policies import Chosen
    from api.run.listening import Listening
    from api.run.settings import Settings
    from bart.reward.rewards import RewardFunction
    from bart.types import PageBatch

AT_ONCE = 2_000_000  # candidates of a log that is one block: some 500 bytes each at the peak, all that is made of them
BLOCK_CANDIDATES = 500_000  # of a block of a longer log, in every worker


@dataclass(frozen=True, slots=True)
class Named:
    """Policies as the command names them.

    log: an export, as every worker sees it. folder: that relative paths start from. policies: bundles and baselines
    with their epsilon; scores: [NAME=]FILE[:epsilon]. settings: of how events are read.
    """

    log: Path
    folder: Path
    policies: tuple[tuple[str, float], ...]
    scores: tuple[str, ...] = ()
    events: Listening | None = None
    settings: Settings | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PageKernel:
    """Statistics of blocks of logged pages for several policies.

    shape: rows and columns of the largest page in the log. pages: of the log; blocks: it is cut into. reward: its name,
    and the function that workers may not know; computed anew. common: what the blocks have in common; None in the first
    pass. predicted: whether the logging policy's scores are taken for probabilities where they can be. pins: whether
    policies keep the pins; pages with some are left out where not. told: of policies done, in this process.
    """

    named: Named
    question: Question
    shape: tuple[int, int]
    since: datetime | None
    seed: int
    pages: int
    blocks: int
    reward: tuple[str, RewardFunction]
    common: Common | None = None
    predicted: bool = True
    pins: bool = True
    told: Callable[[int, int, str], None] | None = None

    def read(self, part: Part) -> Iterator[tuple[int, PageBatch]]:
        """The block, with its number."""
        from bart.log.outcomes.pages import known_before, read_file
        from bart.reward.rewards import REWARDS
        from bart.types import PageBatch

        name, function = self.reward
        REWARDS.setdefault(name, function)
        chosen, known, day, kept = opened(self.named), set[str](), None, []
        for file, bounds in zip(part.files, part.bounds, strict=True):
            if file.parent != day:
                known, day = known_before(file, bounds[0]), file.parent
            for batch in read_file(file, chosen.items, self.shape, name, known, list(range(*bounds))):
                if len(late := decided_from(batch, self.since)):
                    kept.append(late)
        if kept:
            yield part.number, kept[0] if len(kept) == 1 else PageBatch.concat(kept)

    def __call__(self, piece: tuple[int, PageBatch]) -> Any:
        from api.background.memory import release_memory
        from api.evaluate.adaptive import put_taught
        from api.evaluate.pins import without_pins
        from api.evaluate.policies import predicted
        from bart.ope.comparison.evaluation import put_block
        from bart.ope.engine.listeners import MOST

        out, chosen, (number, pages) = Statistics(), opened(self.named), piece
        if not self.pins:
            kept = without_pins(out if self.common is None else Statistics(), pages)
            if kept is None:
                return out.to_arrow()
            pages = kept
        q_logged = predicted(pages) if self.predicted else None
        counted = _counts(chosen)
        put_block(
            out,
            self.question,
            pages,
            (policy.on(pages, q_logged) for policy in chosen.policies),
            streams(self.seed, len(chosen.policies), number if self.blocks > 1 else None),
            q_logged=q_logged,
            items=chosen.items,
            place=Place(self.blocks, len(pages) / max(self.pages, len(pages)), self.pages > MOST),
            common=self.common,
            on_policy=self._on_policy(len(chosen.policies)),
        )
        if self.common is None:
            out.put(f"predicted: {q_logged is not None}", 1)
            for (name, after), before in zip(_counts(chosen).items(), counted.values(), strict=True):
                out.put(name, after - before)
            _put_positions(out, pages)
            _put_shelves(out, pages)
            put_taught(out, pages, chosen.policies)
        release_memory()
        gc.freeze()  # what is left stays, such as policies and modules: the next block is not to go through it again
        return out.to_arrow()

    def _on_policy(self, policies: int) -> Callable[[int, str], None] | None:
        told = self.told
        return None if told is None else lambda number, name: told(number, policies, name)


def opened(named: Named) -> Chosen:
    """The policies of a log; opened once a process."""
    if named != _kept.get("named"):
        _kept.update(named=named, chosen=_opened(named))
    chosen: Chosen = _kept["chosen"]
    return chosen


_kept: dict[str, Any] = {}


def forget() -> None:
    """Closes what `opened` keeps: files may be others by now."""
    _kept.clear()
    gc.unfreeze()


def _opened(named: Named) -> Chosen:
    from api.evaluate.policies import page_policies

    events, settings, told = named.events, named.settings, []

    def listened() -> pa.Table:
        assert events is not None
        assert settings is not None
        loaded = events.load(settings)
        told.extend(loaded.check.summary())
        return loaded.events

    chosen = page_policies(
        named.log, named.policies, named.scores, None if events is None else listened, folder=named.folder
    )
    chosen.told = told
    return chosen


def blocks_of(files: Sequence[Path], at_once: int, block: int) -> tuple[list[Part], int]:
    """The blocks of an export, and its pages: one where it holds at most `at_once` candidates, else of about `block`
    candidates each, cut between row groups."""
    import pyarrow.parquet as pq

    groups, pages = [], 0
    for file in files:
        with pq.ParquetFile(file) as parquet:
            place = next(
                (i for i in range(len(parquet.schema)) if parquet.schema.column(i).path.startswith("item_id")), 0
            )
            pages += parquet.metadata.num_rows
            for g in range(parquet.metadata.num_row_groups):
                groups.append((file, g, parquet.metadata.row_group(g).column(place).num_values))
    size = np.array([candidates for _, _, candidates in groups], dtype=np.int64)
    count = 1 if size.sum() <= at_once else -(-int(size.sum()) // block)
    middle = np.cumsum(size) - size / 2
    number = np.minimum((middle * count / max(size.sum(), 1)).astype(np.int64), count - 1)
    parts: list[Part] = []
    for n in np.unique(number):
        bounds: dict[Path, tuple[int, int]] = {}
        for i in np.flatnonzero(number == n):
            file, g, _ = groups[i]
            bounds[file] = (bounds.get(file, (g, g))[0], g + 1)
        parts.append(Part(tuple(bounds), int(size[number == n].sum()), tuple(bounds.values()), len(parts)))
    return parts, pages


def decided_from(batch: PageBatch, since: datetime | None) -> PageBatch:
    """The pages decided from then on."""
    if since is None:
        return batch
    keep = batch.at_s >= since.timestamp()
    return batch if keep.all() else batch.take(np.flatnonzero(keep))


def streams(seed: int, policies: int, block: int | None) -> list[np.random.Generator]:
    """One random stream a policy, then one of comparisons. block: None for a log of one block."""
    rng = np.random.default_rng(seed if block is None else [seed, block])
    own = rng.spawn(1)
    return [*rng.spawn(policies), *own]


def _counts(chosen: Chosen) -> dict[str, int]:
    """How many candidates outside scores were asked for and lacked, how many pages have vectors of another batch."""
    out: dict[str, int] = {}
    for each in chosen.scores:
        out |= {f"scores {each.name}/candidates": each.candidates, f"scores {each.name}/missing": each.missing}
    for name, one in chosen.listening.items():
        out |= {f"recomputed {name}/pages": one.pages, f"recomputed {name}/cold": one.cold_pages}
    return out


SHELF_GROUPS = 10  # bits of a listener's key: i2s has its interval from that many groups of listeners


def _put_shelves(out: Statistics, pages: PageBatch) -> None:
    from bart.ope.engine.listeners import BITS, Listeners, listener_keys
    from bart.ope.report.shelves import counts_by_shelf

    listeners = Listeners.of(listener_keys(pages.user_id, grouped=True) >> (BITS - SHELF_GROUPS))
    for rule, counts in counts_by_shelf(pages).items():
        listeners.put(out, f"shelf {rule}", counts)


def _put_positions(out: Statistics, pages: PageBatch) -> None:
    from bart.ope.report.report import add_positions

    sums: dict[str, Any] = {}
    add_positions(sums, pages)
    for key, (part, whole) in sums.items():
        out.put(f"position {key}", np.stack([part.ravel(), whole.ravel()]).ravel())
