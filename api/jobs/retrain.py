"""`bart retrain`: what a run learns from what came in, and whether that may serve. See docs/retraining.md.

Nothing that serves is touched before the last step, which swaps one link. So the job can be killed at any moment and
run again: what it left unfinished is removed, what it finished is found done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from api.jobs import gates
from api.jobs.evidence import Evidence, gather, holdout_share, new_pages, too_few
from api.jobs.ingest import export_closed, hear, merge_events
from api.jobs.rebuild import DRAFTS, rebuild
from api.jobs.train import continued, retrain
from api.run.runs import RunPaths
from api.run.versions import Versions
from api.service.control import learning_is_frozen
from bart.directories import exclusive, link_tree, write_synced
from bart.errors import BundleError

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.bundle import Bundle
    from bart.reward.model import RewardModel
    from bart.types import ItemTable
    from recommender.states.states import StoredListeners

RESULT = "retrain.json"
LOCK = ".retrain.lock"
FROZEN = "learning is frozen; `bart control freeze-learning off` lets it go on"


@dataclass(frozen=True, slots=True)
class Retrained:
    """What a retraining came to. name: of the candidate, None where none was made. facts: a line each, for people."""

    status: Literal["activated", "refused", "nothing new"]
    reason: str
    name: str | None
    serving: str
    gates: tuple[gates.Gate, ...] = ()
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewEvents:
    """A file of events to take in: kind and mapping as `bart build` takes them."""

    file: Path
    kind: str
    mapping: Mapping[str, str]


def retrain_run(
    root: Path,
    settings: Settings,
    stages: Stages,
    *,
    events: NewEvents | None = None,
    vectors: Literal["keep", "rebuild"] = "keep",
    now: Callable[[], datetime] | None = None,
) -> Retrained:
    """Takes in what is new, trains a candidate, and activates it where it passes its gates.

    vectors: keep those of the serving batch, or rebuild everything from the run's events. now: the clock. The result
    also stands in RUN/retrain.json. Raises BundleError where another process retrains this run, and for a run that
    cannot be read; DataError for events that cannot be read.
    """
    from bart.bundle import open_bundle
    from bart.item_store import load_items

    versions = Versions.of(root, settings)
    paths = RunPaths(Path(root))
    busy = f"{root} is being retrained by another process; expected one at a time"
    clock = now or _now
    with exclusive(paths.root / LOCK, busy):
        versions.clean()
        for left in paths.root.glob(DRAFTS):
            shutil.rmtree(left, ignore_errors=True)
        serving = versions.settle()
        bundle = open_bundle(versions.path(serving))
        items = load_items(bundle.folder("items"))
        facts = take_in(paths, bundle, items, events, settings, stages, clock())
        if learning_is_frozen(paths.root):
            result = Retrained("refused", FROZEN, None, serving)
        elif vectors == "rebuild":
            result = rebuild(paths, versions, bundle, items, settings, stages)
        else:
            result = _learn(paths, versions, bundle, items, settings, stages)
        result = Retrained(
            result.status, result.reason, result.name, result.serving, result.gates, (*facts, *result.facts)
        )
        versions.prune()
        forget_batches(paths, versions, settings)
        return result


def take_in(
    paths: RunPaths,
    bundle: Bundle,
    items: ItemTable,
    events: NewEvents | None,
    settings: Settings,
    stages: Stages,
    at: datetime,
) -> list[str]:
    """Events and closed pages; what there was of them."""
    facts = []
    tick = stages.stage("Taking in listening")
    if events is not None:
        added = merge_events(paths, events.file, events.kind, events.mapping, settings)
        facts.append(f"{added:,} new plays in {events.file}")
    with closing(listener_store(paths, bundle, settings)) as store:
        heard = hear(paths, items, store, tick)
    tick(1, 1, f"{heard.sessions:,} sessions")
    facts.append(f"{heard.sessions:,} new sessions of {heard.listeners:,} listeners")
    if heard.unknown_plays:
        facts.append(
            f"{heard.unknown_plays:,} plays of items that the serving batch does not hold: a new batch adds them"
        )
    tick = stages.stage("Taking in feedback")
    written = export_closed(paths, items, settings, at)
    tick(1, 1, f"{written:,} pages exported")
    return facts


def _learn(
    paths: RunPaths, versions: Versions, bundle: Bundle, items: ItemTable, settings: Settings, stages: Stages
) -> Retrained:
    """A candidate on the vectors of the serving batch."""
    tick = stages.stage("Looking for new pages")
    since_s = bundle.learnt_until_s
    evidence = gather(paths.log_export, items, bundle.batch_id, since_s)
    tick(1, 1, f"{evidence.pages:,} pages")
    facts = [f"{evidence.pages:,} pages that the serving model has not learnt from"]
    if evidence.other_batch:
        facts.append(f"{evidence.other_batch:,} pages left out: decided with the vectors of another batch")
    known = already(paths, bundle, evidence, settings)
    if known is not None:
        return Retrained("nothing new", known, None, bundle.path.name, facts=tuple(facts))
    refused = too_few(evidence, settings)
    if refused:
        return conclude(paths, versions, bundle, None, refused, (), evidence, settings, facts)

    learn_from_s, holdout = since_s, settings.retrain.holdout
    if continued(bundle, items, settings) is None:  # it starts anew, so it also learns what the serving model knows
        learn_from_s = None
        usable = gather(paths.log_export, items, bundle.batch_id, None).pages
        holdout = holdout_share(usable, evidence, settings)
        facts.append(f"the serving model has other settings: learning starts from the prior, with {usable:,} pages")
    found: list[gates.Gate] = []

    def judge(model: RewardModel, folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
        from bart.learning.training import usable_pages
        from bart.reward.scorer import load_scorer
        from bart.types import PageBatch

        tick = stages.stage("Evaluating on the pages held out")
        since = metrics["holdout_from_s"]
        parts = new_pages(paths.log_export, items, bundle.batch_id, since)
        pages = PageBatch.concat(list(parts))
        candidate = load_scorer(folder, items).score_batch(pages)
        serving = load_scorer(bundle.folder("reward"), items).score_batch(pages)
        tick(1, 2, f"{len(pages):,} pages")
        rng = np.random.default_rng(settings.seed)
        compared = gates.compare(pages, candidate, serving, settings.evaluation.level, rng)
        found.extend(
            [
                gates.parity(model, folder, items),
                *gates.calibration(metrics["holdout"], settings),
                *gates.value(compared, settings),
            ]
        )
        tick(2, 2, f"gain {compared.gain:+.4f} ({compared.lower:+.4f} to {compared.upper:+.4f})")
        return told(found, compared, evidence, int(usable_pages(pages).sum()))

    draft = versions.draft()
    retrain(
        bundle,
        items,
        lambda: new_pages(paths.log_export, items, bundle.batch_id, learn_from_s),
        draft,
        settings,
        stages,
        holdout=holdout,
        judge=judge,
    )
    return conclude(paths, versions, bundle, draft, gates.reason(found), tuple(found), evidence, settings, facts)


def already(paths: RunPaths, bundle: Bundle, evidence: Evidence, settings: Settings) -> str | None:
    """Why there is nothing to do: no page, or these very pages were judged before with the same settings."""
    if evidence.pages == 0:
        return "no page has been closed since the serving model learnt"
    told = bundle.metrics.get("retrain") or {}
    if (told.get("until_s"), told.get("holdout_pages")) == (evidence.until_s, evidence.pages):
        return "no page has been closed since the serving model was judged"
    try:
        last = json.loads((paths.root / RESULT).read_text())
    except (OSError, ValueError):
        return None
    if last.get("attempt") == _attempt(bundle, evidence, settings):
        return f"the same pages were judged before; {last['status']}: {last['reason']}"
    return None


def told(found: list[gates.Gate], compared: gates.Comparison, evidence: Evidence, held_out: int) -> dict[str, Any]:
    """What stands in the candidate's manifest."""
    return {
        "passed": all(gate.passed for gate in found),
        "reason": gates.reason(found),
        "gates": gates.as_rows(found),
        "estimates": compared.as_dict(),
        "until_s": evidence.until_s,
        "pages": evidence.pages,
        "holdout_pages": held_out,
    }


def conclude(
    paths: RunPaths,
    versions: Versions,
    bundle: Bundle,
    draft: Path | None,
    refused: str,
    found: tuple[gates.Gate, ...],
    evidence: Evidence,
    settings: Settings,
    facts: list[str],
) -> Retrained:
    """Names the candidate, activates it unless it was refused, and writes down how it came out."""
    from bart.bundle import open_bundle

    serving = bundle.path.name
    name = None if draft is None else versions.add(draft)
    if name is not None and not refused and open_bundle(versions.path(name)).model_id in versions.left():
        refused = "the same model was active before and was rolled back from"
    frozen = not refused and learning_is_frozen(paths.root)  # since it began: a switch holds at once
    if frozen:
        refused = FROZEN
    if name is not None and not refused:
        try:
            name = _activate(versions, name, bundle)
        except BundleError as error:
            refused = str(error)
    status: Literal["activated", "refused"] = "refused" if refused or name is None else "activated"
    result = Retrained(status, refused or "all gates were passed", name, serving, found, tuple(facts))
    text = {
        "status": result.status,
        "reason": result.reason,
        "candidate": name,
        "serving": serving,
        "gates": gates.as_rows(list(found)),
        "evidence": asdict(evidence),
        "attempt": None if frozen else _attempt(bundle, evidence, settings),
    }
    write_synced(paths.root / RESULT, json.dumps(text, indent=1) + "\n")
    return result


def _activate(versions: Versions, name: str, serving: Bundle, attempts: int = 3) -> str:
    """Makes a candidate the active bundle, where `serving` still is; its name.

    Where items were published meanwhile, the bundle that serves now has the same vectors and the same reward model with
    more items: the candidate's model is then activated with those. Raises BundleError where another one became active.
    """
    from bart.bundle import open_bundle, write_bundle

    expected = serving.path.name
    for attempt in range(attempts):
        try:
            versions.activate(name, "bart retrain", expected=expected)
            break
        except BundleError:
            active = versions.active()
            if active is None or active == expected or attempt == attempts - 1:
                raise
            now_serving = open_bundle(versions.path(active))
            if (now_serving.batch_id, now_serving.model_id) != (serving.batch_id, serving.model_id):
                raise
        candidate = open_bundle(versions.path(name))
        draft = versions.draft()
        with write_bundle(
            draft,
            created_at=candidate.created_at,
            configuration=candidate.configuration,
            metrics=dict(candidate.metrics),
            parent=candidate.parent,
            learnt_until_s=candidate.learnt_until_s,
            extends=candidate.batch_id,
        ) as folder:
            for part in ("items", "listener", "index"):
                link_tree(now_serving.folder(part), folder / part)
            link_tree(candidate.folder("reward"), folder / "reward")
        name, expected = versions.add(draft), active
    return name


def _attempt(bundle: Bundle, evidence: Evidence, settings: Settings) -> str:
    """The same for the same pages, serving model and settings: then the outcome would be the same."""
    asked = settings.model_dump(include={"seed", "retrain", "reward", "evaluation"})
    text = json.dumps([bundle.model_id, bundle.batch_id, asdict(evidence), asked], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def listener_store(paths: RunPaths, bundle: Bundle, settings: Settings | None = None) -> StoredListeners:
    """The listeners of the bundle's batch; where the settings name a shared store, those that are there."""
    from api.hosts.shared import listener_store as open_store
    from recommender.states.states import load_listener_model

    return open_store(settings, paths.listeners, load_listener_model(bundle.folder("listener")), bundle.batch_id)


def forget_batches(paths: RunPaths, versions: Versions, settings: Settings) -> None:
    """Drops the listeners of batches of which no bundle is kept."""
    from api.hosts.shared import open_shared
    from recommender.states.states import drop_batches, stored_batches

    kept = {version.batch_id for version in versions.list()}
    gone = stored_batches(paths.listeners) - kept
    if gone:
        drop_batches(paths.listeners, gone)
    shared = open_shared(settings)
    if shared is not None:
        with closing(shared):
            shared.keep_batches(kept)


def _now() -> datetime:
    return datetime.now(timezone.utc)
