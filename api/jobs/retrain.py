"""`bart retrain`: what a run learns from what came in, and whether that may serve. See docs/retraining.md."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from api.hosts.shared import left_out
from api.jobs import gates
from api.jobs.attempt import FROZEN, Attempt, Retrained, attempt
from api.jobs.evidence import gather, holdout_share, new_pages, too_few
from api.jobs.rebuild import rebuild
from api.jobs.train import continued, retrain
from api.run.clock import utc_now
from api.run.listening import Listening
from api.service.control import learning_is_frozen

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.reward.model import RewardModel


def retrain_run(
    root: Path,
    settings: Settings,
    stages: Stages,
    *,
    events: Listening | None = None,
    vectors: Literal["keep", "rebuild"] = "keep",
    now: Callable[[], datetime] | None = None,
) -> Retrained:
    """Takes in what is new, trains a candidate, and activates it where it passes its gates.

    vectors: keep those of the serving batch, or rebuild everything from the run's events. now: the clock. The result
    also stands in RUN/retrain.json. Raises BundleError where another process retrains this run, and for a run that
    cannot be read; DataError for events that cannot be read.
    """
    with attempt(root, settings, stages) as run:
        run.take_in(events, (now or utc_now)())
        if learning_is_frozen(run.paths.root):
            result = Retrained("refused", FROZEN, None, run.serving.path.name, facts=tuple(run.facts))
        else:
            result = rebuild(run) if vectors == "rebuild" else _learn(run)
        run.clear()
        return result


def _learn(run: Attempt) -> Retrained:
    """A candidate on the vectors of the serving batch."""
    paths, bundle, items, settings = run.paths, run.serving, run.items, run.settings
    tick = run.stages.stage("Looking for new pages")
    since_s = bundle.learnt_until_s
    evidence = gather(paths.log_export, items, bundle.batch_id, since_s)
    tick(1, 1, f"{evidence.pages:,} pages")
    run.facts.append(f"{evidence.pages:,} pages that the serving model has not learnt from")
    if evidence.other_batch:
        run.facts.append(f"{evidence.other_batch:,} pages left out: decided with the vectors of another batch")
    known = run.already_judged(evidence)
    if known is not None:
        return run.nothing(known)
    refused = too_few(evidence, settings)
    if refused:
        return run.conclude(None, evidence, refused=refused)

    learn_from_s, holdout = since_s, settings.retrain.holdout
    forget_until_us = max(left_out(paths, settings).erased_us.values(), default=0)
    if continued(bundle, items, settings, forget_until_us) is None:  # so it also learns what the serving model knows
        learn_from_s = None
        usable = gather(paths.log_export, items, bundle.batch_id, None).pages
        holdout = holdout_share(usable, evidence, settings)
        why = "has other settings" if continued(bundle, items, settings) is None else "learnt before an erasure"
        run.facts.append(f"the serving model {why}: learning starts from the prior, with {usable:,} pages")
    found: list[gates.Gate] = []

    def judge(model: RewardModel, folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
        from bart.learning.training import usable_pages
        from bart.reward.scorer import load_scorer
        from bart.types import PageBatch

        tick = run.stages.stage("Evaluating on the pages held out")
        since = metrics["holdout_from_s"]
        parts = new_pages(paths.log_export, items, bundle.batch_id, since)
        pages = PageBatch.concat(list(parts))
        candidate = load_scorer(folder, items).score_batch(pages)
        serving = run.serving_scores(pages)
        tick(1, 2, f"{len(pages):,} pages")
        run.judged_on(pages, since)
        rng = np.random.default_rng(settings.seed)
        kept = run.kept_scores(pages)
        compared = gates.compare(pages, candidate, serving, settings.evaluation.level, rng, kept=kept)
        found.extend(
            [
                gates.parity(model, folder, items),
                *gates.calibration(metrics["holdout"], settings),
                *gates.value(compared, settings),
            ]
        )
        tick(2, 2, f"gain {compared.gain:+.4f} ({compared.lower:+.4f} to {compared.upper:+.4f})")
        return run.told(found, compared, evidence, int(usable_pages(pages).sum()))

    draft = run.versions.draft()
    retrain(
        bundle,
        items,
        lambda: new_pages(paths.log_export, items, bundle.batch_id, learn_from_s),
        draft,
        settings,
        run.stages,
        holdout=holdout,
        judge=judge,
        forget_until_us=forget_until_us,
    )
    return run.conclude(draft, evidence, found)
