"""The reward model that scored a logged decision, as far as it is still kept."""

from __future__ import annotations

from collections.abc import Iterable

from api.run.runs import OpenRun
from api.run.versions import Versions
from bart.bundle import open_bundle
from bart.errors import BartError
from bart.home import HomeRanker
from bart.reward.scorer import load_scorer
from bart.types import Decision, PageScorer


def scorer_of(decision: Decision, run: OpenRun, arms: Iterable[HomeRanker]) -> PageScorer | None:
    """Of the rankers that serve, or of a bundle of this batch that served before; None of another batch, or where it is
    kept no longer."""
    if decision.batch_id != run.bundle.batch_id:
        return None
    serving = next((one.scorer for one in (run.ranker, *arms) if one.model_id == decision.model_id), None)
    return serving or _kept_scorer(run, decision.model_id)


def _kept_scorer(run: OpenRun, model_id: str) -> PageScorer | None:
    versions = Versions(run.paths.root)
    for version in versions.list():
        if (version.batch_id, version.model_id) == (run.bundle.batch_id, model_id):
            try:
                return load_scorer(open_bundle(versions.path(version.name)).folder("reward"), run.items)
            except (BartError, OSError):  # pruned or damaged meanwhile: the rest of the answer needs no model
                return None
    return None
