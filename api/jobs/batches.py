"""Batches: all that lives in one vector space (item vectors, listener model, index, states), exchanged as one.

A new batch is built beside the one that serves, with a reward model that learnt on its vectors. States are made from
all events of the run and then taught the sessions that were reported to the service and are in no event. Activation
lets the new batch catch up and swaps one link; until then, and after a return, the other batch serves, with the
sessions that came meanwhile. So what arrives within the day and what is built at night meet in one state.

Source: Fazelnia et al., "Generalized User Representations for Large-Scale Recommendations and Downstream Tasks"
(RecSys 2025), section 3: a batch id for each update, downstream models retrained in step, vectors compared only within
a batch, the legacy batch in production during an update.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from api.jobs import gates
from api.jobs.attempt import alone, attempt
from api.jobs.evidence import gather, too_few
from api.jobs.ingest import catch_up
from api.jobs.rebuild import built_beside, learn_beside
from api.run.clock import utc_now
from api.run.runs import RunPaths
from api.run.versions import Activation, Versions, gate_of
from api.users.everybody import encode_batch
from bart.bundle import read_manifest
from bart.errors import BundleError

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings

WHY = "bart batch"


@dataclass(frozen=True, slots=True)
class Built:
    """What building came to. name: of the new bundle, None where the events give the vectors that serve already.

    judged: whether there were pages enough to judge it; refused: by which gate, "" where it passed or was not judged.
    """

    name: str | None
    batch_id: str
    judged: bool
    refused: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a run. bundles: their names, the oldest first. listeners: with a state in it, on this host.

    active: it serves; back: `rollback` returns to it.
    """

    batch_id: str
    bundles: tuple[str, ...]
    listeners: int
    active: bool
    back: bool


@dataclass(frozen=True, slots=True)
class Flip:
    """A batch that was made active. replayed: sessions that its states had to catch up with."""

    done: Activation
    batch_id: str
    replayed: int


def build(root: Path, settings: Settings, stages: Stages, *, now: Callable[[], datetime] | None = None) -> Built:
    """Builds a batch from all events of the run beside the one that serves; it is not activated.

    With pages enough to be judged, its reward model learns from them and the gates' verdict stands in its manifest;
    else it begins with the prior. Raises BundleError where another process builds or retrains this run.
    """
    from recommender.states.states import carry_batches

    with attempt(root, settings, stages) as run:
        paths, versions, serving, facts = run.paths, run.versions, run.serving, run.facts
        run.take_in(None, (now or utc_now)())
        evidence = gather(paths.log_export, run.items, serving.batch_id, serving.learnt_until_s)
        unjudged = too_few(evidence, settings)
        with built_beside(run) as beside:
            if beside is None:
                return Built(None, serving.batch_id, False, "", tuple(facts))
            written, found = versions.draft(), []
            if unjudged:
                shutil.copytree(beside.bundle.path, written)
                facts.append(f"not judged, and its reward model is the prior: {unjudged}")
            else:
                found = learn_beside(run, beside, written, evidence)
            carry_batches(beside.run.listeners, paths.listeners)
        name = _same(versions, written)
        if name is None:
            name = versions.add(written)
        else:
            facts.append(f"the same as {name}, which was built before and is kept")
            shutil.rmtree(written)
        replayed = catch_up(paths, versions.path(name), settings)
        facts.append(f"{replayed:,} reported sessions replayed into the new states")
        run.clear()
        facts += encode_batch(paths.root, settings, stages, versions.path(name))
        batch_id = read_manifest(versions.path(name))["batch_id"]
        return Built(name, batch_id, not unjudged, gates.reason(found), tuple(facts))


def activate(root: Path, settings: Settings, which: str | None = None, *, force: bool = False) -> Flip:
    """Lets a batch catch up and makes it the active one.

    which: a batch id or the name of a bundle; by default the newest batch that does not serve. force: also one that a
    gate refused. Raises BundleError where there is none, or where it serves already.
    """
    with alone(root, settings) as (paths, versions):
        active = versions.settle()
        name = _chosen(versions, active, which, force)
        replayed = catch_up(paths, versions.path(name), settings)
        done = versions.activate(name, f"{WHY} activate", expected=active, force=force)
    return Flip(done, _batch_of(versions, name), replayed)


def rollback(root: Path, settings: Settings) -> Flip:
    """Returns to the batch that served before, once it has caught up. Raises BundleError where there is none."""
    with alone(root, settings) as (paths, versions):
        active = versions.settle()
        name = versions.before_batch()
        if name is None:
            raise BundleError(f"{root}: no other batch was active before {_batch_of(versions, active)}")
        replayed = catch_up(paths, versions.path(name), settings)
        done = versions.rollback(f"{WHY} rollback", to=name)
    return Flip(done, _batch_of(versions, name), replayed)


def batches(root: Path) -> tuple[Batch, ...]:
    """The batches of a run, in the order of their oldest bundles."""
    from recommender.states.states import count_listeners

    versions = Versions(root)
    versions.repair()
    back = versions.before_batch()
    names: dict[str, list[str]] = {}
    active = ""
    for version in versions.list():
        names.setdefault(version.batch_id, []).append(version.name)
        active = version.batch_id if version.active else active
    count = count_listeners(RunPaths(Path(root)).listeners)
    return tuple(
        Batch(batch_id, tuple(bundles), count.get(batch_id, 0), batch_id == active, back in bundles)
        for batch_id, bundles in names.items()
    )


def _chosen(versions: Versions, active: str, which: str | None, force: bool) -> str:
    """Name of the bundle to activate."""
    here = _batch_of(versions, active)
    others = [version for version in versions.list() if version.batch_id != here]
    if which is None:
        found = [version for version in others if force or not version.refused]
        if others and not found:
            raise BundleError(
                f"{versions.root}: {others[-1].name} was refused by its gate, and so was any other batch; expected one"
                " that passed (--force takes the newest all the same)"
            )
        if not found:
            raise BundleError(f"{versions.root} has no other batch to activate; expected one made by bart batch build")
        return found[-1].name
    if which == here or any(version.name == which and version.batch_id == here for version in versions.list()):
        raise BundleError(f"{which} is of batch {here}, which serves already; bart bundle activate changes its bundles")
    of_batch = [version for version in others if which in (version.batch_id, version.name)]
    if not of_batch:
        known = ", ".join(dict.fromkeys(version.batch_id for version in others)) or "none"
        raise BundleError(f"{versions.root} has no batch {which!r:.80}; expected one of {known}")
    passed = [version for version in of_batch if not version.refused]
    return (passed or of_batch)[-1].name


def _same(versions: Versions, draft: Path) -> str | None:
    """The newest bundle with the vectors, the reward model and the verdict of a draft; None where there is none."""
    made = read_manifest(draft)
    passed = gate_of(made["metrics"]).get("passed")
    same = [
        version.name
        for version in versions.list()
        if (version.batch_id, version.model_id) == (made["batch_id"], made["model_id"])
        and version.gate.get("passed") == passed
    ]
    return same[-1] if same else None


def _batch_of(versions: Versions, name: str) -> str:
    return next(version.batch_id for version in versions.list() if version.name == name)
