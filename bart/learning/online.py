"""Learning between retrains: a model that learns from joined feedback beside the compiled scorer that serves.

What serves never changes in place. At a limited rate what was learnt is compiled into a new scorer, has to pass a gate,
and is handed on to be put in the place of the old one by one assignment; a request holds one ranker from its start to
its end, so no page and no record mixes two models. What does not pass is dropped, and learning starts again from the
model that serves.

The level of the predictions is followed apart from the steps (`bart.learning.level`), by which a new run, whose model
is a guess, promises what is earned after some hundred pages; it may be all that is learnt (`steps`).

The gate: the compiled scores are the model's own; on the cards learnt since the last publication, each predicted before
it was learnt from (progressive validation: Blum, Kalai and Langford, COLT 1999), the learner does not order the cards
of a page worse than the serving model, its log loss is not worse by more than a bound, and the mean prediction agrees
with the mean reward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bart.errors import BundleError
from bart.learning.level import Level
from bart.learning.metrics import pairs_in_order
from bart.learning.training import card_examples, seen_cards
from bart.reward.features import ItemFeatures
from bart.reward.model import RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, ItemTable, PageBatch

_CHUNK = 10_000  # examples built at a time
_TINY = 1e-12
WEIGHT = 20.0  # passes that a card counts for


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """How often what was learnt may be published, and what it must show.

    min_s, min_examples: seconds and cards between two publications, at least. max_behind: standard errors by which the
    learner may order the cards of a page worse than the serving model. max_loss: nats a card by which the
    progressive log loss may exceed that of the serving model. max_bias: distance of mean prediction over mean reward
    from 1, beyond three standard errors. checks: predictions compared at each compilation. steps: learn, or follow the
    level alone; then nothing but the order could be worse, which stays, so that there is no gate but the compilation's.
    """

    min_s: float = 60.0
    min_examples: int = 200
    max_behind: float = 2.0
    max_loss: float = 0.01
    max_bias: float = 0.5
    checks: int = 256
    steps: bool = True

    def __post_init__(self) -> None:
        if not self.min_s >= 0:
            raise ValueError(f"min_s is {self.min_s}; expected seconds >= 0")
        if self.min_examples < 1:
            raise ValueError(f"min_examples is {self.min_examples}; expected at least 1")
        if not self.max_loss >= 0 or not self.max_bias > 0:
            raise ValueError(f"max_loss, max_bias are {self.max_loss}, {self.max_bias}; expected >= 0 and > 0")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate saw: cards learnt since the last publication, each predicted before it was learnt from.

    log_loss of the learner, serving_log_loss of the model that served meanwhile, on the same cards (nats). in_order: of
    pairs of a streamed and another card of one page, the share that the learner orders right; serving_in_order: that
    the serving model does; NaN without pairs. in_order_error: standard error of their difference, by page.
    """

    n_cards: int
    log_loss: float
    serving_log_loss: float
    mean_reward: float
    mean_prediction: float
    standard_error: float  # of mean_reward - mean_prediction, were the predictions right
    n_pages: int = 0  # of the cards
    in_order: float = float("nan")
    serving_in_order: float = float("nan")
    in_order_error: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Publication:
    """A model that passed: a copy of its own, its compiled scorer, and what the gate saw."""

    model: RewardModel
    scorer: Scorer
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call of `learn`. published: a new model serves. refused: why not, where that was tried."""

    n_cards: int
    published: bool = False
    refused: str = ""


class OnlineLearner:
    """Owns a copy of the serving model, learns on it, and publishes; for one thread.

    model: the reward model that serves. publish: puts a publication in place; it may raise BundleError to refuse it.
    at_s: the time, in seconds of any clock that does not go back. level_cards: that the level of the model was found
    on where it has learnt from none of them. frozen: while it is True nothing is learnt.
    """

    def __init__(
        self,
        model: RewardModel,
        items: ItemTable,
        publish: Callable[[Publication], None],
        at_s: float,
        config: OnlineConfig | None = None,
        level_cards: int = 0,
    ) -> None:
        self.config = config or OnlineConfig()
        self.frozen = False
        self.n_published = 0
        self.level_cards = level_cards
        self._items = items
        self._features = ItemFeatures(model.schema, items)
        self._publish = publish
        self._tried_s = at_s
        self._serving = model.copy()
        self._start_again()

    @property
    def waiting(self) -> int:
        """Cards learnt since the last publication."""
        return self._n

    def learn(self, batch: PageBatch, at_s: float, publish: bool = True) -> Outcome:
        """Learns from joined pages, each of which must come once, and publishes where that is due (and `publish`).

        Cards count as in training: seen, drawn and not pinned, known items, on pages displayed, closed and not forced.
        """
        if self.frozen:
            return Outcome(0)
        cards = seen_cards(batch)
        for start in range(0, len(cards), _CHUNK):
            part = cards.part(slice(start, start + _CHUNK))
            examples = card_examples(self._features, batch, part)
            reward = batch.reward[part.page, part.row, part.column]
            prediction = self._model.predict(examples)
            self._n += len(part)
            serving = self._serving.predict(examples)
            self._loss += _loss(reward, prediction)
            self._serving_loss += _loss(reward, serving)
            (own, every), (others, _) = (pairs_in_order(reward, p, part.page) for p in (prediction, serving))
            self._pairs.append(np.stack([own, others, every]))
            self._reward += float(reward.sum())
            self._prediction += float(prediction.sum())
            self._variance += float((prediction * (1.0 - prediction)).sum())
            if self._model.follows_level:
                self._model.shift(self._level.shift(prediction, reward))
            if self.config.steps:
                # A card comes once here and should show at the next visits; coin betting has no rate to raise.
                weight = np.full(len(part), WEIGHT) if self._model.follows_level else None
                self._model.learn(examples, reward, weight)
        self._n_pages += len(np.unique(cards.page))
        return replace(self.publish_if_due(at_s) if publish else Outcome(0), n_cards=len(cards))

    def due(self, at_s: float) -> bool:
        """Whether enough time has passed and enough was learnt for a publication."""
        enough = at_s - self._tried_s >= self.config.min_s and self._n >= self.config.min_examples
        return enough and not self.frozen

    def publish_if_due(self, at_s: float) -> Outcome:
        """Compiles, judges and publishes, where that is due."""
        if not self.due(at_s):
            return Outcome(0)
        self._tried_s = at_s
        evidence = self._evidence()
        refused = judge(evidence, self.config) if self.config.steps else ""
        if not refused:
            try:
                model = self._model.copy()
                self._publish(Publication(model, Scorer.compile(model, self._items, self.config.checks), evidence))
            except BundleError as error:
                refused = str(error)
            else:
                self._serving = model
                self.n_published += 1
                self.level_cards += self._n
        self._start_again()
        return Outcome(0, published=not refused, refused=refused)

    def _start_again(self) -> None:
        """From the model that serves: what was learnt and not published is dropped."""
        self._model = self._serving.copy()
        self._level = Level(max(self._model.n_learned, self.level_cards))
        self._n = self._n_pages = 0
        self._pairs: list[Floats] = []  # [3, pages]: in order by learner and serving model, and all
        self._loss = self._serving_loss = self._reward = self._prediction = self._variance = 0.0

    def _evidence(self) -> Evidence:
        n = self._n
        own, others, every = np.concatenate(self._pairs, axis=1)
        total = float(every.sum())
        ahead = float((own - others).sum() / total) if total else 0.0
        return Evidence(
            n_cards=n,
            log_loss=self._loss / n,
            serving_log_loss=self._serving_loss / n,
            mean_reward=self._reward / n,
            mean_prediction=self._prediction / n,
            standard_error=float(np.sqrt(self._variance)) / n,
            n_pages=self._n_pages,
            in_order=float(own.sum()) / total if total else float("nan"),
            serving_in_order=float(others.sum()) / total if total else float("nan"),
            in_order_error=float(np.sqrt(((own - others - ahead * every) ** 2).sum())) / total if total else 0.0,
        )


def judge(evidence: Evidence, config: OnlineConfig) -> str:
    """Why a model may not serve, "" where it may."""
    behind = evidence.serving_in_order - evidence.in_order
    if behind > config.max_behind * evidence.in_order_error:
        return (
            f"{evidence.in_order:.4f} of the pairs of {evidence.n_pages:,} pages are in order, by the serving model "
            f"{evidence.serving_in_order:.4f}; expected at most {config.max_behind * evidence.in_order_error:.4f} fewer"
        )
    worse = evidence.log_loss - evidence.serving_log_loss
    if not worse <= config.max_loss:
        return (
            f"log loss {evidence.log_loss:.4f} on {evidence.n_cards:,} new cards, the serving model's "
            f"{evidence.serving_log_loss:.4f}; expected at most {config.max_loss:g} more"
        )
    off = abs(evidence.mean_prediction - evidence.mean_reward)
    if not off <= config.max_bias * evidence.mean_reward + 3.0 * evidence.standard_error:
        return (
            f"mean prediction {evidence.mean_prediction:.4f} on {evidence.n_cards:,} new cards, mean reward "
            f"{evidence.mean_reward:.4f}; expected at most {config.max_bias:.0%} apart"
        )
    return ""


def _loss(reward: Floats, prediction: Floats) -> float:
    p = np.clip(prediction, _TINY, 1.0 - _TINY)
    return float(-(reward * np.log(p) + (1.0 - reward) * np.log1p(-p)).sum())
