"""Counterfactual training of the reward model from logged pages, in a stream.

A card is a datum when it was seen, drawn (not pinned), and stands on a page that was displayed, is closed and was not
forced. Pages are read once to find the time of the holdout (and once more to weigh), once a pass, and once to measure:
memory holds one batch, 16 bytes a page, 32 bytes a held-out card and 4 bytes a weight.

Source: McInerney et al., "Explore, Exploit, and Explain" (RecSys 2018). The reward model learns there from all logged
actions under importance weights; here the weighting is a choice and off by default.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bart.errors import SchemaMismatch
from bart.learning.importance import WEIGHTINGS, SeenCards, WeightScale
from bart.learning.level import Level
from bart.learning.metrics import HoldoutMetrics, holdout_metrics
from bart.learning.value import HeldOutPages, StreamRate
from bart.reward.features import Examples, ItemFeatures, build_examples
from bart.reward.model import RewardConfig, RewardModel
from bart.types import Bools, Floats, Ints, ItemTable, PageBatch

_LEVEL_CARDS = 50_000  # that a level is found on: its error is then about 1.5 %
_CHUNK = 20_000  # examples built at a time: 10 MB of features


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a reward model is trained.

    reward: the model. weighting: "none", "conditional" or "exposure" (see importance). cap: largest weight, None for no
    absolute cap. cap_percentile: weights above this percentile are cut to it, None for no such cap. passes: over the
    training pages. holdout: share of the pages, the latest, that are kept out of training and measured on.
    """

    reward: RewardConfig = field(default_factory=RewardConfig)
    weighting: str = "none"
    cap: float | None = None
    cap_percentile: float | None = 99.0
    passes: int = 4
    holdout: float = 0.1

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is {self.weighting!r}; expected one of {', '.join(WEIGHTINGS)}")
        WeightScale(self.cap, self.cap_percentile)
        if self.passes < 1:
            raise ValueError(f"passes is {self.passes}; expected at least 1")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}; expected a share in [0, 1)")

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them."""
        return {**asdict(self), "reward": self.reward.as_dict()}


@dataclass(slots=True)
class Counts:
    """What the log held and what became of it.

    Pages: all, forced, never displayed, still open, used, of these held out. Cards of the used pages: seen, of them
    pinned, of them not in the item table; the rest are data, in training or in the holdout.
    """

    pages: int = 0
    forced_pages: int = 0
    undisplayed_pages: int = 0
    open_pages: int = 0
    used_pages: int = 0
    holdout_pages: int = 0
    seen_cards: int = 0
    pinned_cards: int = 0
    unknown_cards: int = 0
    training_cards: int = 0
    holdout_cards: int = 0


@dataclass(frozen=True, slots=True)
class TrainingMetrics:
    """What a training run saw and reached. weight_*: of the training cards, after cap and division by the mean.

    stream_rate: expected rewards a page on the held-out pages (None without, `without_stream_rate` says why).
    """

    counts: Counts
    mean_reward: float
    weight_cap: float | None
    largest_weight: float
    effective_sample_size: float
    holdout_from_s: int | None
    holdout: HoldoutMetrics | None
    stream_rate: StreamRate | None = None
    without_stream_rate: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them."""
        holdout = self.holdout.as_dict() if self.holdout else None
        rate = self.stream_rate.as_dict() if self.stream_rate else None
        return {**asdict(self), "holdout": holdout, "stream_rate": rate}


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The trained model and what was measured on the way."""

    model: RewardModel
    metrics: TrainingMetrics


def train(
    batches: Callable[[], Iterable[PageBatch]],
    items: ItemTable,
    config: TrainingConfig | None = None,
    *,
    base: RewardModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """A reward model learnt from logged pages and its metrics on the held-out last ones.

    batches: gives the pages anew at every call, in any order but always the same. base: a model to go on from, left as
    it is; its configuration must be `config.reward`. A model of adaptive steps that has learnt nothing finds its level
    before it takes them (`bart.learning.level`). progress: called with examples done and to do.
    Raises ValueError where nothing is left to learn from, SupportError for propensities that cannot be weighted.
    """
    config = config or TrainingConfig()
    if base is not None and base.config.schema != config.reward.schema:
        raise SchemaMismatch("the base model has another feature schema than the one asked for")
    if base is not None and base.config != config.reward:
        raise ValueError("the base model has another configuration than the one asked for")
    features = ItemFeatures(config.reward.schema, items)
    counts = Counts()
    cut, scale, raw_weight = _scan(batches, config, counts)
    total = counts.training_cards * config.passes + counts.holdout_cards
    model = base.copy() if base is not None else RewardModel(config.reward)
    if not model.n_learned and model.follows_level:
        _find_level(model, features, batches, cut, counts)
    sums = np.zeros(3)  # weight, squared weight, reward
    done = 0

    def tick(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, total)

    for number in range(config.passes):
        if number:
            model.end_pass()
        at = 0
        for batch, cards in _chunks(batches, cut):
            reward = batch.reward[cards.page, cards.row, cards.column]
            weight = None
            if len(raw_weight):
                weight = scale.apply(raw_weight[at : at + len(cards)].astype(np.float64))
            at += len(cards)
            model.learn(card_examples(features, batch, cards), reward, weight)
            if number == 0:
                w = np.ones(len(cards)) if weight is None else weight
                sums += (w.sum(), (w * w).sum(), reward.sum())
            tick(len(cards))
    holdout, held = _measure(model, items, batches, cut, counts, tick)
    rate = held.estimate()
    metrics = TrainingMetrics(
        counts=counts,
        mean_reward=float(sums[2] / counts.training_cards),
        weight_cap=None if config.weighting == "none" else scale.cap,
        largest_weight=scale.largest,
        effective_sample_size=float(sums[0] ** 2 / sums[1]),
        holdout_from_s=cut if counts.holdout_cards else None,
        holdout=holdout,
        stream_rate=rate,
        without_stream_rate=held.without,
    )
    return TrainingResult(model, metrics)


def usable_pages(batch: PageBatch) -> Bools:
    """[b] pages that are data: displayed, closed, not forced."""
    return batch.displayed & batch.closed & ~batch.forced


def seen_cards(batch: PageBatch, pages: Bools | None = None) -> SeenCards:
    """The cards of a batch that are data: on usable pages (and in `pages` [b]), seen, not pinned, in the item table."""
    use = usable_pages(batch) if pages is None else usable_pages(batch) & pages
    page, row, column = np.nonzero(batch.seen & ~batch.pinned & (batch.card >= 0) & use[:, None, None])
    candidate = batch.offset[page] + batch.card[page, row, column]
    cards = SeenCards(page, row, column, candidate)
    return cards.part(batch.item[candidate] >= 0)


def card_examples(features: ItemFeatures, batch: PageBatch, cards: SeenCards, first_slot: bool = False) -> Examples:
    """Features of logged cards, each at its slot or, if so asked, all at the first."""
    low, high = (int(cards.page[0]), int(cards.page[-1]) + 1) if len(cards) else (0, 0)
    row, column = (np.zeros_like(cards.row), np.zeros_like(cards.row)) if first_slot else (cards.row, cards.column)
    return build_examples(
        features,
        at_s=batch.at_s[low:high],
        hour=batch.hour[low:high],
        weekday=batch.weekday[low:high],
        device=batch.device[low:high],
        listener=batch.listener[low:high],
        page=cards.page - low,
        item=batch.item[cards.candidate],
        rule=batch.rule[batch.shelf_offset[cards.page] + batch.row_shelf[cards.page, cards.row]],
        row=row,
        column=column,
        features=None if batch.features is None else batch.features.take(cards.candidate),
        user_id=batch.user_id[low:high],
    )


def _scan(
    batches: Callable[[], Iterable[PageBatch]], config: TrainingConfig, counts: Counts
) -> tuple[int, WeightScale, Floats]:
    """Time from which pages are held out, the scale of the weights of the earlier cards, and these; fills `counts`."""
    at_s, n_cards = array("q"), array("q")
    for batch in batches():
        _count(batch, counts)
        use = usable_pages(batch)
        at_s.extend(batch.at_s[use].tolist())
        n_cards.extend(np.bincount(seen_cards(batch).page, minlength=len(batch))[use].tolist())
    times, sizes = np.array(at_s, dtype=np.int64), np.array(n_cards, dtype=np.int64)
    n_holdout = int(np.ceil(config.holdout * len(times))) if config.holdout else 0
    cut = int(np.iinfo(np.int64).max)
    if 0 < n_holdout < len(times):
        cut = int(np.partition(times, len(times) - n_holdout)[len(times) - n_holdout])
    counts.holdout_pages = int((times >= cut).sum())
    counts.holdout_cards = int(sizes[times >= cut].sum())
    counts.training_cards = int(sizes[times < cut].sum())
    if not counts.training_cards:
        raise ValueError(
            f"no seen card to learn from: {counts.pages} pages, of them {counts.forced_pages} forced,"
            f" {counts.undisplayed_pages} not displayed, {counts.open_pages} open;"
            f" {counts.holdout_cards} cards held out"
        )
    scale = WeightScale(config.cap, config.cap_percentile)
    if config.weighting == "none":
        scale.add(np.ones(1))
        return cut, scale, np.empty(0)
    kept = array("f")  # in single precision: a weight costs as much as the card's example to learn from
    for batch, cards in _whole_batches(batches, cut):
        weight = WEIGHTINGS[config.weighting](batch, cards).astype(np.float32)
        kept.frombytes(weight.tobytes())
        scale.add(weight.astype(np.float64))
    return cut, scale, np.array(kept, dtype=np.float32)


def _find_level(
    model: RewardModel,
    features: ItemFeatures,
    batches: Callable[[], Iterable[PageBatch]],
    cut: int,
    counts: Counts,
) -> None:
    """Shifts a model's predictions to what was earned on the cards to learn from, or an even part of them."""
    every = -(-counts.training_cards // _LEVEL_CARDS)
    prediction, reward = [], []
    for batch, cards in _chunks(batches, cut):
        part = cards.part(slice(None, None, every))
        prediction.append(model.predict(card_examples(features, batch, part)))
        reward.append(batch.reward[part.page, part.row, part.column])
    model.shift(Level(0).shift(np.concatenate(prediction), np.concatenate(reward)))


def _count(batch: PageBatch, counts: Counts) -> None:
    use = usable_pages(batch)
    counts.pages += len(batch)
    counts.forced_pages += int(batch.forced.sum())
    counts.undisplayed_pages += int((~batch.displayed & ~batch.forced).sum())
    counts.open_pages += int((batch.displayed & ~batch.closed & ~batch.forced).sum())
    counts.used_pages += int(use.sum())
    page, row, column = np.nonzero(batch.seen & (batch.card >= 0) & use[:, None, None])
    pinned = batch.pinned[page, row, column]
    item = batch.item[batch.offset[page] + batch.card[page, row, column]]
    counts.seen_cards += len(page)
    counts.pinned_cards += int(pinned.sum())
    counts.unknown_cards += int((~pinned & (item < 0)).sum())


def _chunks(batches: Callable[[], Iterable[PageBatch]], cut: int) -> Iterator[tuple[PageBatch, SeenCards]]:
    """The seen cards of pages before the cut, some thousands at a time."""
    for batch, cards in _whole_batches(batches, cut):
        for start in range(0, len(cards), _CHUNK):
            yield batch, cards.part(slice(start, start + _CHUNK))


def _whole_batches(batches: Callable[[], Iterable[PageBatch]], cut: int) -> Iterator[tuple[PageBatch, SeenCards]]:
    """The seen cards of pages before the cut, a batch at a time: what weighing costs depends on the batch."""
    for batch in batches():
        cards = seen_cards(batch, batch.at_s < cut)
        if len(cards):
            yield batch, cards


def _measure(
    model: RewardModel,
    items: ItemTable,
    batches: Callable[[], Iterable[PageBatch]],
    cut: int,
    counts: Counts,
    tick: Callable[[int], None],
) -> tuple[HoldoutMetrics | None, HeldOutPages]:
    """Metrics of the held-out cards by the compiled scorer, and what their pages say of the value; read in one go."""
    from bart.reward.scorer import Scorer  # numba loads only where something is scored

    held = HeldOutPages(counts.holdout_pages)
    if not counts.holdout_cards:
        return None, held
    scorer = Scorer.compile(model, items)
    reward: list[Floats] = []
    prediction: list[Floats] = []
    at_first_slot: list[Floats] = []
    page: list[Ints] = []
    n_pages = 0
    for batch in batches():
        out = usable_pages(batch) & (batch.at_s >= cut)
        if not out.any():
            continue
        pages = batch.take(np.flatnonzero(out))
        score = scorer.score_batch(pages)  # at the first slot
        chosen = held.choose(pages, np.arange(len(pages)))
        if chosen is not None:
            held.add(chosen, score if len(chosen) == len(pages) else scorer.score_batch(chosen))
        cards = seen_cards(pages)
        reward.append(pages.reward[cards.page, cards.row, cards.column])
        at_first_slot.append(score[cards.candidate])
        prediction.append(scorer.at_slots(score[cards.candidate], cards.row, cards.column))
        page.append(cards.page + n_pages)
        tick(len(cards))
        n_pages += len(pages)
    columns = np.concatenate(reward), np.concatenate(prediction), np.concatenate(at_first_slot), np.concatenate(page)
    return holdout_metrics(*columns), held
