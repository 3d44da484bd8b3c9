"""Experiments: which arm a listener is in, and the ranker of each arm.

A listener stays in an arm as long as the experiment has the same name, salt and shares: the arm is a salted hash of the
user id, so that nothing is stored and every worker agrees. The arm is recorded with each decision. All arms serve the
batch that is active: their bundles may differ in the reward model, not in the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from api.run.settings import ArmSettings, ExperimentSettings
from bart.bundle import open_bundle
from bart.errors import BundleError
from bart.page.exploration import Exploration
from bart.reward.baselines import PopularityScorer
from bart.reward.scorer import load_scorer

if TYPE_CHECKING:
    from api.run.runs import OpenRun
    from bart.home import HomeRanker

POPULARITY = "popularity"  # stands for the model where popularity scores


@dataclass(frozen=True, slots=True)
class Experiment:
    """The arms of one experiment. ends: upper end of each arm's part of [0, 1), in order; beyond the last one nobody
    takes part."""

    name: str = ""
    salt: str = ""
    ends: tuple[tuple[float, str], ...] = ()
    rankers: Mapping[str, HomeRanker] = field(default_factory=dict)

    def arm(self, user_id: str) -> str:
        """Name of the listener's arm; empty for who does not take part."""
        if not self.ends:
            return ""
        place = place_of(user_id, self.name, self.salt)
        for end, name in self.ends:
            if place < end:
                return name
        return ""

    def label(self, arm: str) -> str:
        """What is recorded: experiment and arm."""
        return f"{self.name}:{arm}" if arm else ""


def place_of(user_id: str, name: str, salt: str) -> float:
    """Where a listener falls in [0, 1): uniform over users, independent between experiments and salts."""
    digest = blake2b(f"{name}\0{user_id}".encode(), key=salt.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def open_experiment(settings: ExperimentSettings, run: OpenRun) -> Experiment:
    """The experiment that the settings ask for, its bundles opened.

    Raises BundleError for a bundle that the run does not have, or of another batch.
    """
    ends, total = [], 0.0
    for name, arm in settings.arms.items():
        total += arm.share
        ends.append((min(total, 1.0) if total < 1 - 1e-9 else 1.0, name))
    rankers = {name: _ranker(name, arm, run) for name, arm in settings.arms.items()}
    return Experiment(settings.name, settings.salt, tuple(ends), rankers)


def _ranker(name: str, arm: ArmSettings, run: OpenRun) -> HomeRanker:
    from api.run.versions import Versions

    ranker = run.ranker
    if arm.epsilon is not None:
        ranker = replace(ranker, exploration=Exploration.fixed(arm.epsilon))
    if arm.scorer == POPULARITY:
        return replace(ranker, scorer=PopularityScorer(run.items), model_id=POPULARITY)
    if arm.bundle is None:
        return ranker
    bundle = open_bundle(Versions(run.paths.root).path(arm.bundle))
    if bundle.batch_id != run.bundle.batch_id:
        raise BundleError(
            f"arm {name!r}: {arm.bundle} is of batch {bundle.batch_id}, batch {run.bundle.batch_id} is active: vectors "
            "of different batches cannot be compared; expected a bundle of the active batch"
        )
    return replace(ranker, scorer=load_scorer(bundle.folder("reward"), run.items), model_id=bundle.model_id)
