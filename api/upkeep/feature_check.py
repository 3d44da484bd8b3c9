"""`bart features check`: what the log says was known at a decision, against what can be worked out anew for its moment.

A listener's history by then is made of the plays of the run's events that began before the decision, and of the
reported sessions that had arrived, not of those that began before and came later. Pages of listeners whose session was
still running are left out, since a running report is kept only as it was last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from api.hosts.running_sessions import SESSIONS_FILE, RunningSessions
from api.hosts.shared import open_shared
from api.run.runs import open_run
from api.service.listening import ListeningService, Reported
from bart.errors import DataError
from bart.types import Bools, Candidates, Context, Decision, Ints, Labels, Listener, Shelf, Strings
from recommender.events.parts import read_parts
from recommender.features.definitions import NAMES
from recommender.features.source import HistoryFeatures

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from api.run.runs import OpenRun
    from api.run.settings import Settings
    from recommender.features.history import History
    from recommender.features.tables import Histories, Plays


@dataclass(frozen=True, slots=True)
class FeatureCheck:
    """pages, values: that were compared. differences: values that are not the same; first: where, "" without any.

    left_out: sampled pages that could not be compared, by reason.
    """

    pages: int
    values: int
    differences: int
    first: str
    left_out: dict[str, int]


def check_features(root: Path, settings: Settings, most: int, rng: np.random.Generator) -> FeatureCheck:
    """Compares the features of logged pages of the active batch, `most` drawn at random or all where they are fewer.

    Raises DataError where the run has no log, a batch without features, or no page that can be compared.
    """
    run = open_run(root, settings)
    features, histories = run.ranker.features, run.store.histories
    if features is None or histories is None:
        raise DataError(f"{root} was built without features; expected a run of this version (bart build --renew)")
    past, anew = _Past.of(run, settings, histories), _published_anew(run)
    pages = values = differences = 0
    first = ""
    left_out: dict[str, int] = {}
    for decision in _sampled(run, most, rng):
        item = run.items.rows(decision.item_id.tolist())
        why = past.unknown(decision) or ("an item is not in the table" if (item < 0).any() else "")
        why = why or ("an item was published anew" if anew[item].any() else "")
        if why or decision.features is None:
            why = why or "recorded without features"
            left_out[why] = left_out.get(why, 0) + 1
            continue
        history = past.history(decision)
        arrays = {} if history is None else history.arrays
        listener = Listener(decision.user_id, decision.listener, history=arrays)
        again = features.features(listener, decision.context, Candidates(item, decision.shelf, decision.shelves))
        recorded, found = decision.features.level, again.named(decision.features.name)
        wrong = np.argwhere(recorded != found)
        pages, values, differences = pages + 1, values + recorded.size, differences + len(wrong)
        if len(wrong) and not first:
            n, k = wrong[0].tolist()
            first = (
                f"page {decision.request_id}, item {decision.item_id[n]}, {decision.features.name[k]}: level "
                f"{recorded[n, k]} is recorded, {found[n, k]} is found"
            )
    run.store.close()
    if not pages:
        why = "".join(f"; {count:,} left out: {reason}" for reason, count in left_out.items())
        raise DataError(
            f"{root}: no page of batch {run.bundle.batch_id} was compared; expected some that it served{why}"
        )
    return FeatureCheck(pages, values, differences, first, left_out)


def _published_anew(run: OpenRun) -> Bools:
    """[items] which have been other in a bundle of the batch than they are: facts, or the members of a container."""
    from api.run.versions import Versions
    from bart.bundle import open_bundle
    from bart.item_store import load_items

    now, versions = run.items, Versions(run.paths.root)
    out = np.zeros(len(now), dtype=np.bool_)
    for version in versions.list():
        if version.batch_id != run.bundle.batch_id or version.name == versions.active():
            continue
        then = load_items(open_bundle(versions.path(version.name)).folder("items"))
        n = min(len(then), len(now))
        out[:n] |= (then.vector[:n] != now.vector[:n]).any(axis=1) | (then.popularity[:n] != now.popularity[:n])
        for old, new in ((then.artists, now.artists), (then.genres, now.genres)):
            out[:n] |= _first(old)[:n] != _first(new)[:n]
        out[:n] |= [then.members[row].tolist() != now.members[row].tolist() for row in range(n)]
    return out


def _first(labels: Labels) -> Strings:
    """[n] name of each item's first label, "" where it has none."""
    return np.array([*labels.vocabulary, ""], dtype=object)[labels.first]


def known_now(
    root: Path, settings: Settings, user_id: str, item_id: str, at: datetime
) -> dict[str, tuple[float, float]]:
    """By feature, its value of an item for a listener now: online, by the state that serves, and offline, worked
    out anew from the run's events and the reported sessions; NaN where it is not known.

    Raises DataError for an item that the batch does not hold, and for a run without features.
    """
    run = open_run(root, settings)
    try:
        features, histories = run.ranker.features, run.store.histories
        if not isinstance(features, HistoryFeatures) or histories is None:
            raise DataError(f"{root} was built without features; expected a run of this version (bart build --renew)")
        item = run.items.rows([item_id])
        if item[0] < 0:
            raise DataError(f"item {item_id!r} is not in the batch of {root}; expected an id of its items")
        context = Context(at)
        online = run.store.listener(user_id, context)
        history = _Past.of(run, settings, histories).at(user_id, at.timestamp())
        offline = Listener(user_id, online.vector, history={} if history is None else history.arrays)
        one = Candidates(item, np.zeros(1, dtype=np.int64), (Shelf("", ""),))
        values = [features.values(listener, context, one)[0] for listener in (online, offline)]
        return {name: (float(a), float(b)) for name, a, b in zip(NAMES, *values, strict=True)}
    finally:
        run.store.close()


def _sampled(run: OpenRun, most: int, rng: np.random.Generator) -> Iterator[Decision]:
    """Decisions of the active batch, at most so many."""
    from bart.log.decision_log import DecisionLog

    if not run.paths.log.is_file():
        raise DataError(f"{run.paths.root} has no log; expected pages that were served")
    with closing(DecisionLog(run.paths.log)) as log:
        total = sum(len(stored) for stored in log.stored_pages())
        chosen = set(rng.permutation(total)[:most].tolist())
        number = 0
        for stored in log.stored_pages():
            for row in stored:
                if number in chosen:
                    decision = row.decode()
                    if decision.batch_id == run.bundle.batch_id:
                        yield decision
                number += 1


@dataclass(frozen=True, eq=False)
class _Past:
    """What was listened to, and when it was known."""

    histories: Histories
    plays: Plays
    place: dict[str, Ints]
    reported: dict[str, list[Reported]]

    @classmethod
    def of(cls, run: OpenRun, settings: Settings, histories: Histories) -> _Past:

        from recommender.features.tables import Plays

        plays = Plays.of(read_parts(run.paths.events), run.items)
        place = dict(zip(plays.user_id.tolist(), plays.by_listener(), strict=True))
        shared = open_shared(settings)
        sessions = RunningSessions(run.paths.root / SESSIONS_FILE) if shared is None else shared.sessions()
        reported: dict[str, list[Reported]] = {}
        with closing(sessions):
            for one in ListeningService(run.items, run.store, sessions).reported():
                reported.setdefault(one.user_id, []).append(one)
        return cls(histories, plays, place, reported)

    def unknown(self, decision: Decision) -> str:
        """Why the history at a decision cannot be worked out, "" where it can."""
        at_s = decision.context.at.timestamp()
        for one in self.reported.get(decision.user_id, []):
            if one.heard.at_s[0] <= at_s < one.received_s:
                return "a session was running"
            if one.received_s <= at_s and (one.late or at_s < one.received_s + 1):  # arrivals are known to the second
                return "a session came late" if one.late else "a session came within the second"
        return ""

    def history(self, decision: Decision) -> History | None:
        """The listener's history when the page was decided."""
        return self.at(decision.user_id, decision.context.at.timestamp())

    def at(self, user_id: str, at_s: float) -> History | None:
        """A listener's history by what had arrived at a moment."""
        place = self.place.get(user_id, np.empty(0, dtype=np.int64))
        place = place[self.plays.at_s[place] < at_s]
        told = [one.heard for one in self.reported.get(user_id, []) if one.received_s <= at_s]
        item = np.concatenate([self.plays.item[place], *(one.item for one in told)])
        skipped = np.concatenate([self.plays.skipped[place], *(one.skipped for one in told)])
        when = np.concatenate([self.plays.at_s[place], *(one.at_s for one in told)])
        return self.histories.after(None, item, skipped, when) if len(item) else None
