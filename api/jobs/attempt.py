"""One attempt to learn, as `bart retrain`, a rebuild and `bart batch` share it: alone, from what serves and what
came in, to a candidate that is activated or refused. See docs/retraining.md.

Nothing that serves is touched before the last step, which swaps one link. So the job can be killed at any moment and
run again: what it left unfinished is removed, what it finished is found done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from api.evaluate.adaptive import FEW, adaptive_facts
from api.hosts.shared import listener_store, open_shared
from api.jobs import gates
from api.jobs.evidence import Evidence
from api.jobs.ingest import export_closed, hear, merge_events
from api.jobs.train import pages_between
from api.run.clock import utc_now
from api.run.listening import Listening
from api.run.runs import RunPaths
from api.run.versions import RESULT, Versions, gate_of
from api.service.control import learning_is_frozen
from bart.bundle import Bundle, open_bundle, write_bundle
from bart.directories import exclusive, given_back, link_tree, write_synced
from bart.errors import BundleError
from bart.item_store import load_items
from bart.log.outcomes.exploration import RECENT_D, exploration_success
from bart.ope.report.estimand import NEXT_PAGE

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.types import Floats, ItemTable, PageBatch

LOCK = ".retrain.lock"
DRAFTS = ".rebuild-*"
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


@dataclass(frozen=True, eq=False)
class Attempt:
    """A run while one process learns from it: the bundle that serves, its items, and what is told to people so far.

    best: the kept bundle that is worth most on the pages held out, once that is known.
    """

    paths: RunPaths
    versions: Versions
    serving: Bundle
    items: ItemTable
    settings: Settings
    stages: Stages
    facts: list[str] = field(default_factory=list)
    best: list[str] = field(default_factory=list)

    def take_in(self, events: Listening | None, at: datetime) -> None:
        """Events and closed pages; the facts say what there was of them."""
        paths, items, facts = self.paths, self.items, self.facts
        tick = self.stages.stage("Taking in listening")
        added = 0
        if events is not None:
            added, told = merge_events(paths, events, self.settings)
            facts += [f"{added:,} new plays in {events.path}", *told]
        with closing(listener_store(paths, self.serving, self.settings)) as store:
            heard = hear(paths, items, store, tick)
        tick(1, 1, f"{heard.sessions:,} sessions")
        facts.append(f"{heard.sessions:,} new sessions of {heard.listeners:,} listeners")
        if added > heard.plays:
            facts.append(
                f"{added - heard.plays:,} of the new plays began before what the states know: --vectors rebuild "
                "hears them"
            )
        if heard.unknown_plays:
            facts.append(
                f"{heard.unknown_plays:,} plays of items that the serving batch does not hold: a new batch adds them"
            )
        tick = self.stages.stage("Taking in feedback")
        written = export_closed(paths, items, self.settings, at)
        tick(1, 1, f"{written:,} pages exported")
        if paths.log_export.is_dir():
            since = at - timedelta(days=RECENT_D)
            success = exploration_success(pages_between(paths.log_export, items, since=since))
            with closing(listener_store(paths, self.serving, self.settings)) as store:
                for user, share in success.items():
                    store.explored(user, share)

    def nothing(self, reason: str) -> Retrained:
        """The outcome where there is nothing new to learn from."""
        return Retrained("nothing new", reason, None, self.serving.path.name, facts=tuple(self.facts))

    def already_judged(self, evidence: Evidence) -> str | None:
        """Why there is nothing to do: no page, or these very pages were judged before with the same settings."""
        if evidence.pages == 0:
            return "no page has been closed since the serving model learnt"
        told = gate_of(self.serving.metrics)
        if (told.get("until_s"), told.get("holdout_pages")) == (evidence.until_s, evidence.pages):
            return "no page has been closed since the serving model was judged"
        try:
            last = json.loads((self.paths.root / RESULT).read_text())
        except (OSError, ValueError):
            return None
        if last.get("attempt") == self._fingerprint(evidence):
            return f"the same pages were judged before; {last['status']}: {last['reason']}"
        return None

    def conclude(
        self, draft: Path | None, evidence: Evidence, found: list[gates.Gate] | None = None, refused: str = ""
    ) -> Retrained:
        """Names the candidate, activates it unless a gate or `refused` stands against it, writes down the outcome."""
        found = found or []
        refused = refused or gates.reason(found)
        versions, serving = self.versions, self.serving.path.name
        name = None if draft is None else versions.add(draft)
        if name is not None and not refused and open_bundle(versions.path(name)).model_id in versions.left():
            refused = "the same model was active before and was rolled back from"
        frozen = not refused and learning_is_frozen(self.paths.root)  # since it began: a switch holds at once
        if frozen:
            refused = FROZEN
        if name is not None and not refused:
            try:
                name = self._activate(name)
            except BundleError as error:
                refused = str(error)
        status: Literal["activated", "refused"] = "refused" if refused or name is None else "activated"
        result = Retrained(status, refused or "all gates were passed", name, serving, tuple(found), tuple(self.facts))
        text = {
            "status": result.status,
            "reason": result.reason,
            "candidate": name,
            "serving": serving,
            "gates": gates.as_rows(found),
            "evidence": asdict(evidence),
            "attempt": None if frozen else self._fingerprint(evidence),
            "best": self.best[-1] if self.best else self.versions.best(),
        }
        write_synced(self.paths.root / RESULT, json.dumps(text, indent=1) + "\n")
        return result

    def _activate(self, name: str, attempts: int = 3) -> str:
        """Makes a candidate the active bundle, where the one it was judged against still is; its name.

        Where items were published meanwhile, the bundle that serves now has the same vectors and the same reward model
        with more items: the candidate's model is then activated with those. Raises BundleError where another one became
        active.
        """
        versions, serving = self.versions, self.serving
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

    def kept_scores(self, pages: PageBatch) -> dict[str, Floats]:
        """Scores of the candidates of pages of the serving batch by each bundle of it that served in the last weeks, by
        name; the one that serves, those that somebody rolled back from and those that learnt from these very pages
        apart."""
        from bart.reward.scorer import load_scorer

        since = utc_now() - timedelta(weeks=self.settings.retrain.weeks)
        names = self.versions.served(self.serving.batch_id, since) - {self.serving.path.name}
        bundles = [open_bundle(self.versions.path(name)) for name in sorted(names)]
        others = [bundle for bundle in bundles if bundle.model_id != self.serving.model_id]
        fresh = [each for each in others if (pages.at_s < (each.taught_until_s or 0)).mean() <= FEW]
        if len(fresh) < len(others):
            self.facts.append(f"{len(others) - len(fresh)} kept bundles learnt from the pages that judge: left out")
        return {
            bundle.path.name: load_scorer(bundle.folder("reward"), self.items).score_batch(pages) for bundle in fresh
        }

    def judged_on(self, pages: PageBatch, since_s: int | None) -> None:
        """Says of the pages that judge which models served them, whether what serves learnt from them online, and what
        an estimate on them is one of."""
        since = None if since_s is None else datetime.fromtimestamp(since_s, tz=timezone.utc)
        self.facts.append(str(adaptive_facts(self.paths.log_export, since, self.paths.root)["line"]))
        if count := self._learnt_online_from(pages):
            name, of = self.serving.path.name, f"{count:,} of the {len(pages):,} pages that judge"
            self.facts.append(
                f"{name} learnt online from {of}: what they earned stands for it, since each was served before it was"
                " learnt from"
                if count > FEW * len(pages)
                else f"{name} learnt online from {of}, too few to matter"
            )
        self.facts.append(NEXT_PAGE)

    def serving_scores(self, pages: PageBatch) -> Floats:
        """Scores of the candidates of pages by the bundle that serves. Where it learnt online from these very pages,
        those by which they were served: estimated on pages that it learnt from, it would look better than it is."""
        from bart.reward.scorer import load_scorer

        if self._learnt_online_from(pages) > FEW * len(pages):
            return pages.raw_score
        return load_scorer(self.serving.folder("reward"), self.items).score_batch(pages)

    def _learnt_online_from(self, pages: PageBatch) -> int:
        until_s = self.serving.taught_until_s
        return 0 if until_s is None else int((pages.at_s < until_s).sum())

    def told(
        self, found: list[gates.Gate], compared: gates.Comparison, evidence: Evidence, held_out: int
    ) -> dict[str, Any]:
        """What stands in the candidate's manifest; which kept bundle is the best is kept for the outcome, too."""
        self.best.append(self.serving.path.name if compared.best is None else compared.best.name)
        return {
            "passed": all(gate.passed for gate in found),
            "reason": gates.reason(found),
            "gates": gates.as_rows(found),
            "estimates": compared.as_dict(),
            "until_s": evidence.until_s,
            "pages": evidence.pages,
            "holdout_pages": held_out,
        }

    def _fingerprint(self, evidence: Evidence) -> str:
        """The same for the same pages, serving model and settings: then the outcome would be the same."""
        settings = self.settings.as_dict()
        asked = {name: settings[name] for name in ("seed", "retrain", "reward", "evaluation")}
        known = [self.serving.model_id, self.serving.batch_id, asdict(evidence), asked]
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def clear(self) -> None:
        """Drops bundles beyond those that are kept, and the listeners of batches of which none is kept."""
        from recommender.states.states import drop_batches, stored_batches

        Versions.of(self.paths.root, self.settings).prune()  # which knows the best one of this attempt
        if self.versions.damaged():  # of which batch, nobody can tell
            return
        kept = {version.batch_id for version in self.versions.list()}
        gone = stored_batches(self.paths.listeners) - kept
        if gone:
            drop_batches(self.paths.listeners, gone)
        shared = open_shared(self.settings)
        if shared is not None:
            with closing(shared):
                shared.keep_batches(kept)


@contextmanager
def alone(root: Path, settings: Settings) -> Iterator[tuple[RunPaths, Versions]]:
    """The run, for one process at a time. Raises BundleError where another process retrains it."""
    versions, paths = Versions.of(root, settings), RunPaths(Path(root))
    with exclusive(paths.root / LOCK, f"{root} is being retrained by another process; expected one at a time"):
        given_back(paths.events)
        yield paths, versions


@contextmanager
def attempt(root: Path, settings: Settings, stages: Stages) -> Iterator[Attempt]:
    """Begins to learn, alone; what an earlier attempt left unfinished is removed. Raises BundleError as `alone`."""
    with alone(root, settings) as (paths, versions):
        versions.clean()
        for left in paths.root.glob(DRAFTS):
            shutil.rmtree(left, ignore_errors=True)
        serving = open_bundle(versions.path(versions.settle()))
        yield Attempt(paths, versions, serving, load_items(serving.folder("items")), settings, stages)
