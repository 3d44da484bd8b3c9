"""Policies to evaluate on a log of pages: bundles, baselines, the logging policy, outside scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import BundleError, DataError
from bart.ope.policies.pages import EvaluationPolicy
from bart.types import Floats, ItemTable, PageBatch

if TYPE_CHECKING:
    import pyarrow as pa

    from api.evaluate.foreign import EarlierListening
    from bart.bundle import Bundle
    from bart.ope.inputs.scores import Scores

Score = Callable[[PageBatch], Floats]

LOGGED = -1.0  # stands for the epsilons that each page was served with


@dataclass(frozen=True, slots=True, eq=False)
class PagePolicy:
    """A policy to evaluate: how it scores candidates. score None: the logging policy. epsilon: may be `LOGGED`.

    own: `score` predicts rewards; otherwise the logging policy's model does, or nobody where `unpredicted`. before:
    gives the pages what it needs. taught_until_s: it learnt from pages before that moment.
    """

    name: str
    score: Score | None
    epsilon: float = 0.0
    own: bool = False
    unpredicted: bool = False
    before: Callable[[PageBatch], PageBatch] | None = None
    taught_until_s: int | None = None

    def on(self, pages: PageBatch, own: Floats | None) -> EvaluationPolicy:
        """The policy with its scores of the pages' candidates. own: what the logging policy's model predicts."""
        if self.score is None:
            return EvaluationPolicy(
                self.name, pages.score, pages.shelf_epsilon, pages.card_epsilon, reward=own, unpredicted=own is None
            )
        score = self.score(pages if self.before is None else self.before(pages))
        unpredicted = self.unpredicted or (not self.own and own is None)
        reward = None if self.own or unpredicted else pages.raw_score
        as_logged = self.epsilon == LOGGED
        return EvaluationPolicy(
            self.name,
            score,
            pages.shelf_epsilon if as_logged else self.epsilon,
            pages.card_epsilon if as_logged else self.epsilon,
            reward=reward,
            unpredicted=unpredicted,
        )


@dataclass(slots=True, eq=False)
class Chosen:
    """The policies, and what they need: the items of the log, scores and recomputed listeners by policy. told: of
    the events that were read."""

    policies: list[PagePolicy]
    items: ItemTable
    scores: list[Scores] = field(default_factory=list)
    listening: dict[str, EarlierListening] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def page_policies(
    log: Path,
    named: Sequence[tuple[str, float]],
    scores: Sequence[str],
    events: Callable[[], pa.Table] | None,
    folder: Path = Path(),
) -> Chosen:
    """The logging policy, then bundles and baselines with their epsilon, then scores given as [NAME=]FILE[:epsilon].

    events: the event table, read where a bundle of another batch needs it. folder: that relative paths start from.
    Raises BundleError for such a bundle where there are no events to compute vectors from.
    """
    from bart.bundle import open_bundle
    from bart.item_store import load_items
    from bart.reward.baselines import PopularityScorer
    from bart.reward.scorer import load_scorer

    bundles = {name: open_bundle(folder / name) for name, _ in named if name not in ("popularity", "logging")}
    logged = set(batches_in(log)) if bundles else set()
    foreign = {name for name, bundle in bundles.items() if logged - {bundle.batch_id}}
    if foreign and events is None:
        _refuse(log, bundles[sorted(foreign)[0]], logged)
    own = next((bundle for name, bundle in bundles.items() if name not in foreign), None) or _beside(log, bundles)
    items = load_items(own.folder("items"))
    out = Chosen([PagePolicy("logging", None)], items)
    for name, epsilon in named:
        if name == "logging":
            continue
        if name == "popularity":
            called = titled("popularity", epsilon)
            out.policies.append(PagePolicy(called, PopularityScorer(items).score_batch, epsilon))
            continue
        called, bundle = titled(name, epsilon, always=True), bundles[name]
        before = None
        theirs = items
        if name in foreign and events is not None:
            from api.evaluate.foreign import earlier_listening, rows_in

            theirs = load_items(bundle.folder("items"))
            if name not in out.listening:
                out.listening[name] = earlier_listening(bundle, theirs, events())
            before = foreign_pages(rows_in(items, theirs), out.listening[name])
        scorer = load_scorer(bundle.folder("reward"), theirs)
        taught = bundle.taught_until_s
        out.policies.append(
            PagePolicy(called, scorer.score_batch, epsilon, own=True, before=before, taught_until_s=taught)
        )
    for text in scores:
        name, epsilon, found = open_scores(text, folder)
        out.scores.append(found)
        called = titled(name, epsilon)
        out.policies.append(PagePolicy(called, scored_by(found, items), epsilon, unpredicted=True))
    names = [policy.name for policy in out.policies]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"policy {name!r} is named twice; expected different policies (or --scores NAME=FILE)")
    return out


def parse_policy(text: str, option: str = "--policy") -> tuple[str, float]:
    """Name (a bundle's path, or popularity) and epsilon, 0 where none is given; `LOGGED` for NAME:logged."""
    name, colon, rate = text.rpartition(":")
    if not colon:
        return text, 0.0
    if rate == "logged":
        return name, LOGGED
    try:
        epsilon = float(rate)
    except ValueError:
        return text, 0.0  # a colon of the path
    if not 0 <= epsilon <= 1:
        raise DataError(f"{option} {text!r} has epsilon {epsilon}; expected a number in [0, 1]")
    return name, epsilon


def titled(name: str, epsilon: float, always: bool = False) -> str:
    """What a policy is called in a report; an epsilon of 0 is named only where asked for."""
    if epsilon == LOGGED:
        return f"{name}, epsilon as logged"
    return f"{name}, epsilon {epsilon:g}" if epsilon or always else name


def open_scores(text: str, folder: Path = Path()) -> tuple[str, float, Scores]:
    """Name, epsilon and scores of [NAME=]FILE[:epsilon]."""
    from bart.ope.inputs.scores import read_scores

    rest, epsilon = parse_policy(text, "--scores")
    name, equals, file = rest.partition("=")
    if not equals or (folder / rest).exists():
        name, file = Path(rest).stem, rest
    return name, epsilon, read_scores(name, folder / file)


def batches_in(log: Path) -> tuple[str, ...]:
    """Batch ids that the records of an exported log name, read file by file."""
    import pyarrow.parquet as pq

    found: set[str] = set()
    for file in sorted(log.glob("date=*/*.parquet")):
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(100_000, columns=["batch_id"]):
                found.update(batch.column(0).unique().to_pylist())
    return tuple(sorted(found - {""}))


def scored_by(scores: Scores, items: ItemTable) -> Score:
    """How outside scores rank the candidates of a batch whose items are rows of `items`."""
    ids = np.append(items.item_id.astype(object), "")

    def score(pages: PageBatch) -> Floats:
        return scores.of(pages.request_id, pages.offset, ids[pages.item])

    return score


def foreign_pages(rows: Any, listening: EarlierListening) -> Callable[[PageBatch], PageBatch]:
    """How pages look to a bundle of another batch: its own item rows, and vectors by its own listener model."""

    def before(pages: PageBatch) -> PageBatch:
        return listening.on(replace(pages, item=rows[pages.item]))

    return before


def _beside(log: Path, bundles: Mapping[str, Bundle]) -> Bundle:
    """The bundle of the run that the log stands in; else any of those named."""
    from bart.bundle import open_bundle

    beside = log.parent / "bundle"
    if beside.is_dir():
        return open_bundle(beside)
    if bundles:
        return next(iter(bundles.values()))
    raise DataError(f"{beside} does not exist; name the bundle that served {log} with --policy")


def _refuse(log: Path, bundle: Bundle, logged: set[str]) -> None:
    other = sorted(logged - {bundle.batch_id})[0]
    raise BundleError(
        f"{log} was written with batch {other}, {bundle.path} is of batch {bundle.batch_id}: vectors of different "
        "batches cannot be compared; expected a bundle of the log's own batch, or --events to compute vectors from"
    )


def predicted(pages: PageBatch) -> Floats | None:
    """The logging policy's scores where they are probabilities of a reward."""
    score = pages.raw_score
    return score if not len(score) or (score.min() >= 0 and score.max() <= 1) else None
