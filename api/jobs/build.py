"""From listening events to a run that can be served: vectors, listener model, index, prior scorer, listener states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from api.background.memory import release_memory
from api.hosts.shared import left_out
from api.jobs.ingest import catch_up
from api.jobs.listener_model import serving_model
from api.jobs.run_directory import carried, draft_directory, items_before, refuse_run, write_marker
from api.run.clock import stamp
from api.run.events import notes_of
from api.run.listening import Listening
from api.run.runs import RunPaths
from api.run.versions import Versions
from api.users.encoder import user_encoder
from bart.errors import DataError
from bart.types import Context, Floats32, ItemTable, Listener

if TYPE_CHECKING:
    import pyarrow as pa

    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.reward.model import RewardConfig, RewardModel
    from recommender.events.table import EventCheck
    from recommender.features.history import History
    from recommender.features.usage import Usage
    from recommender.listener.model import ListenerModel
    from recommender.sessions.sessions import Sessions
    from recommender.shelves.candidates import CandidateConfig
    from recommender.shelves.profile import Profiles
    from recommender.shelves.rules import ShelfRule

ITEM_COLUMNS = ("item_id", "title", "artist", "genre", "duration_s")  # of a mapping, what an items file may have
BY_VECTORS = ("because_you_played", "made_for_you", "mood", "outside_your_usual")  # shelves of what is near
MODEL = "model"  # of reward/: where the trainable model stands
STORED_TOGETHER = 2_000  # listeners of one transaction
ANCHOR = "anchor"  # of reward/: the model of the last retrain, kept by online learning for the next one


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built. facts and cannot_build: a line each, for people."""

    run: Path
    batch_id: str
    listeners: int
    items: int
    facts: tuple[str, ...]
    cannot_build: tuple[str, ...]
    a_listener: str = ""


def check_events(listening: Listening, settings: Settings) -> EventCheck:
    """What a file of events holds and what it lacks. Raises DataError where nothing can be read."""
    return listening.load(settings).check


def build_run(
    events: Path,
    items: Path | None,
    playlists: Path | None,
    out: Path,
    mapping: Mapping[str, str],
    settings: Settings,
    stages: Stages,
    *,
    kind: str | None = None,
    user: str | None = None,
    listeners: pa.Table | None = None,
    own: bool = False,
    renew: bool = False,
) -> BuildReport:
    """Makes the run `out` from a user's files, or renews it.

    kind: how events are read, a name of `recommender.events.importers.IMPORTERS`, told by their content where it is
    None. user: the listener of an export of one. listeners: user_id and joined_at, where the age of accounts is known.
    own: the caller made `out`, whatever stands in it. `mapping` holds for the other files too where they have those
    columns. renew: `out` may hold a run that bart build made; its bundles, log, states and files are kept (see
    `api.jobs.run_directory`). Everything is written beside and then put in place. Raises DataError for files that
    cannot be read, for an `out` that holds something, and for a run that a service serves.
    """
    from recommender.events.importers import tabular
    from recommender.shelves import items as item_files
    from recommender.vectors.sentences import check_columns

    if not own:
        refuse_run(out, "build", renew)
        for given_file in (events, items, playlists):
            if given_file is not None and Path(out).resolve() in Path(given_file).resolve().parents:
                raise DataError(f"{given_file} stands in {out}, where it would be replaced; expected another --out")
    tick = stages.stage("Reading events")
    loaded = Listening(events, kind, mapping, user, simulated=own).load(settings, as_codes=True)
    if Path(out).is_dir():
        loaded = replace(loaded, events=left_out(RunPaths(out), settings).without(loaded.events))
    tick(1, 1, f"{loaded.check.kept:,} events of {loaded.check.listeners:,} listeners")
    given = None
    if items is not None:
        rows = tabular.read_table(items)
        given = item_files.read_items(rows, _where_present(mapping, rows.column_names, ITEM_COLUMNS))
    lists = None
    if playlists is not None:
        lists = tabular.read_table(playlists)
        theirs = {name: ours for ours, name in _where_present(mapping, lists.column_names, ("item_id",)).items()}
        lists = lists.rename_columns([theirs.get(name, name) for name in lists.column_names])
        check_columns(lists)
    base = given.items if given is not None else item_files.items_of_events(loaded.item_text)
    table = item_files.complete(base, loaded.events, loaded.item_text, lists)

    with draft_directory(out) as draft:
        before = items_before(out)
        report = build_batch(draft, out, loaded.events, table, lists, listeners, settings, stages, before)
        told_of_run = carried(out, draft, settings)
    if told_of_run:
        sessions = catch_up(RunPaths(out), Versions(out).path(Versions(out).settle()), settings)
        told_of_run = (*told_of_run, f"{sessions:,} reported sessions replayed into the new states")
    told = ("titles:", "artist and genre shelves:") if given is not None else ()  # by the items file
    gaps = tuple(gap for gap in (*report.cannot_build, *loaded.check.gaps) if not gap.startswith(told))
    notes = given.notes if given is not None else ()
    facts = (*loaded.check.summary(), *report.facts, *notes, *told_of_run)
    return replace(report, facts=facts, cannot_build=gaps)


def _where_present(mapping: Mapping[str, str], columns: list[str], names: tuple[str, ...]) -> dict[str, str]:
    """The part of a column mapping that a second file can follow: it has their column, and not ours."""
    return {ours: name for ours, name in mapping.items() if ours in names and name in columns and ours not in columns}


def build_batch(
    draft: Path,
    out: Path,
    events: pa.Table,
    item_rows: pa.Table,
    playlists: pa.Table | None,
    listeners: pa.Table | None,
    settings: Settings,
    stages: Stages,
    before: ItemTable | None = None,
) -> BuildReport:
    """Makes the run `draft`, for the place `out`, of files that were read: a new batch, its bundle active.

    before: items of the batch that serves, where there is one: the new vectors are turned to lie near theirs, and the
    levels of features have the same bounds.
    """
    import pyarrow.parquet as pq

    from bart.bundle import open_bundle, write_bundle
    from bart.item_store import save_items
    from bart.types.caller import CALLER
    from recommender.containers.vectors import complete_vectors
    from recommender.events.parts import write_parts
    from recommender.features.definitions import NAMES
    from recommender.features.source import HistoryFeatures
    from recommender.features.tables import FeatureTables, Histories, Plays, build_tables
    from recommender.listener.model import compute_states
    from recommender.sessions.sessions import cut_sessions
    from recommender.shelves.calibration import VISITS, sampled_visits
    from recommender.shelves.candidates import build_candidates
    from recommender.shelves.items import item_table
    from recommender.shelves.profile import build_profiles
    from recommender.vectors.aligned import aligned

    to = RunPaths(draft)
    versions = Versions(draft)
    vector_rng, listener_rng, index_rng, feature_rng = np.random.default_rng(settings.seed).spawn(4)
    write_parts(events, to.events)
    pq.write_table(item_rows, to.items, compression="zstd")
    if playlists is not None:
        pq.write_table(playlists, to.playlists, compression="zstd")

    row_of = {item: row for row, item in enumerate(item_rows["item_id"].to_pylist())}
    vector, carry = _track_vectors(events, playlists, row_of, vector_rng, stages)
    vector = vector if before is None else aligned(vector, row_of, before)
    items = item_table(item_rows, vector, playlists=playlists)
    items = replace(items, vector=complete_vectors(items))  # of items without plays, and of containers

    tick = stages.stage("Cutting sessions")
    age_d = account_age_d(events, listeners)
    sessions = cut_sessions(events, row_of, items.vector, account_age_d=age_d)  # as serving sees its tracks
    tick(1, 1, f"{len(sessions):,} sessions")
    release_memory()
    popular = cold_vector(items)
    model, facts, gaps = serving_model(sessions, items.vector, popular, settings, listener_rng, stages)
    release_memory()

    tick = stages.stage("Building index and shelves")
    profiles = build_profiles(events, items)
    tick(1, 5, "profiles")
    source = build_candidates(
        items,
        events,
        index_rng,
        rules=_worth_showing(shelf_rules(settings), carry),
        config=_candidate_config(settings, len(items)),
    )
    tick(2, 5, "index and shelves")
    plays = Plays.of(events, items)
    features = HistoryFeatures(items, build_tables(plays.credited(items), len(items), feature_rng))
    histories = Histories(items, features.tables).of_plays(plays)
    tick(3, 5, "features")

    def listener(number: int, context: Context) -> Listener:
        user = str(sessions.user_id[asked[number]])
        vector, history = model.predict(state[number], context), histories[user].arrays
        return Listener(user, vector, recent=profiles.recent(user), favourite=profiles.favourite(user), history=history)

    logged = None if before is None else FeatureTables.load(RunPaths(out).bundle / "listener")
    if logged is not None:  # the levels in the run's log go on meaning the same
        features = HistoryFeatures(items, features.tables.with_bounds(logged.bound))
    else:
        until_s = int(plays.at_s.max(initial=0))
        asked = np.sort(feature_rng.permutation(sessions.n_users)[:VISITS])
        state = compute_states(model, sessions.take_users(asked))
        features = features.calibrated(sampled_visits(source, listener, len(asked), until_s, feature_rng))
    tick(4, 5, "levels")
    encoder, usages = user_encoder(events, items, features.tables, listeners, settings, stages)
    with write_bundle(
        versions.draft(), created_at=stamp(), configuration=settings.as_dict(leave_out={"serve"}), metrics=dict(facts)
    ) as folder:
        save_items(items, folder / "items")
        save_reward(prior_model(settings, items, (*NAMES, *CALLER)), items, folder / "reward")
        model.save(folder / "listener")
        features.tables.save(folder / "listener")
        if encoder is not None:
            encoder.save(folder / "listener")
        np.save(folder / "listener" / "cold_vector.npy", popular)
        source.save(folder / "index")
    name = versions.add(versions.draft())
    bundle = open_bundle(versions.path(name))
    tick(5, 5, f"{len(items):,} items")
    release_memory()

    _store_listeners(
        to, bundle.batch_id, model, sessions, profiles, histories, usages, _joined_s(listeners), items, stages
    )
    versions.activate(name, "bart build")
    write_marker(draft, "build", settings)
    lines = tuple(f"{name}: {value}" for name, value in facts.items())
    if not carry:
        lines = (*lines, f"left out: the shelves {', '.join(BY_VECTORS)}, since vectors carry nothing")
    lines = (f"{len(profiles):,} listeners, {len(sessions):,} sessions, {len(items):,} items", *lines)
    return BuildReport(out, bundle.batch_id, len(profiles), len(items), lines, gaps, str(profiles.user_id[0]))


def _candidate_config(settings: Settings, items: int) -> CandidateConfig:
    """How shelves are filled; a listener of one or two items sees these rather than nothing."""
    from recommender.shelves.candidates import CandidateConfig

    usual = CandidateConfig(per_shelf=settings.page.per_shelf)
    return replace(usual, least=min(usual.least, items))


def shelf_rules(settings: Settings) -> dict[str, ShelfRule]:
    """The built-in and installed shelf rules and the editorial lists of the settings. DataError for a name taken."""
    from recommender.shelves.rules import EditorialList, ShelfRule, installed_rules

    rules = installed_rules()
    for name, one in settings.shelves.editorial.items():
        if name in rules:
            raise DataError(f"shelves.editorial.{name} is the name of a rule; expected a name of its own")
        rules[name] = ShelfRule(EditorialList(name, one.title, one.item_ids, one.explanation), one.specificity)
    return rules


def reward_config(settings: Settings, items: ItemTable, levels: Sequence[str]) -> RewardConfig:
    """The reward model that the settings ask for. levels: names of the candidates' features in the batch."""
    from bart.reward.features import FeatureSchema
    from bart.reward.identity import IDS
    from bart.reward.model import LEARNING_RATE, RewardConfig

    schema = FeatureSchema(
        dimension=items.dimension, order=settings.reward.order, levels=tuple(levels), ids=IDS if levels else ()
    )
    rate = settings.reward.learning_rate or LEARNING_RATE  # unset, as configurations before version 0.2 have it
    return RewardConfig(schema, learning_rate=rate)


def prior_model(settings: Settings, items: ItemTable, levels: Sequence[str]) -> RewardModel:
    """What serves until pages are reported, and what learning starts from."""
    from bart.reward.model import RewardModel, prior_intercept

    return RewardModel.prior(reward_config(settings, items, levels), prior_intercept(settings.reward.base_rate))


def save_reward(model: RewardModel, items: ItemTable, folder: Path) -> None:
    """Writes reward/: the compiled tables to serve by, and the model itself to go on learning from."""
    from bart.reward.scorer import Scorer

    Scorer.compile(model, items).save(folder)
    model.save(folder / MODEL)


def cold_vector(items: ItemTable) -> Floats32:
    """The vector of a listener of whom nothing is known: the unit mean of item vectors, weighted by popularity."""
    mean = (items.vector * (items.popularity * items.stands_alone)[:, None]).sum(axis=0)
    norm = float(np.linalg.norm(mean))
    return np.asarray(mean / norm if norm > 0 else mean, dtype=np.float32)


def _track_vectors(
    events: pa.Table,
    playlists: pa.Table | None,
    row_of: Mapping[str, int],
    rng: np.random.Generator,
    stages: Stages,
) -> tuple[Floats32, bool]:
    """The vectors, and whether items met enough others in what they were learnt from."""
    from recommender.events.check import vectors_carry
    from recommender.vectors.sentences import sentences_of_events, sentences_of_playlists
    from recommender.vectors.track import train_track_vectors

    tick = stages.stage("Training track vectors")
    if playlists is not None:
        sentences = sentences_of_playlists(playlists, row_of)
    else:
        sentences = sentences_of_events(events, row_of)
    tick(0, 1, f"{len(sentences):,} {'playlists' if playlists is not None else 'sequences of plays'}")
    vector = train_track_vectors(sentences, len(row_of), seed=int(rng.integers(2**31 - 1)))
    tick(1, 1, f"{int(vector.any(axis=1).sum()):,} tracks")
    inner = np.ones(len(sentences.row), dtype=bool)
    inner[sentences.offset[:-1][sentences.offset[:-1] < len(inner)]] = False  # the first of each sentence
    pairs = int(np.count_nonzero(inner[1:] & (np.diff(sentences.row) != 0)))
    return vector, vectors_carry(pairs, len(np.unique(sentences.row)))


def _worth_showing(rules: dict[str, ShelfRule], carry: bool) -> dict[str, ShelfRule]:
    """The rules without those that show what is near by vectors, where vectors carry nothing."""
    return rules if carry else {name: rule for name, rule in rules.items() if name not in BY_VECTORS}


def _store_listeners(
    to: RunPaths,
    batch_id: str,
    model: ListenerModel,
    sessions: Sessions,
    profiles: Profiles,
    histories: Mapping[str, History],
    usages: Mapping[str, Usage],
    joined_s: Mapping[str, int],
    items: ItemTable,
    stages: Stages,
) -> None:
    """Computes states and writes them, some listeners at once: all of them would take 13 kB each."""
    from recommender.listener.model import compute_states
    from recommender.states.favourites import vector_of_liked
    from recommender.states.states import ListenerRow, SqliteListenerStore
    from recommender.states.store import NO_USAGE

    tick = stages.stage("Storing listener states")
    store = SqliteListenerStore(to.listeners, model, batch_id, cold_vector=cold_vector(items))
    heard = {user: number for number, user in enumerate(sessions.user_id.tolist())}
    new, cold = model.initial(np.array([np.nan]))[0], cold_vector(items)

    def rows(users: Sequence[str]) -> Iterator[ListenerRow]:
        numbers = np.array([heard[user] for user in users if user in heard], dtype=np.int64)
        state = dict(zip(numbers.tolist(), compute_states(model, sessions.take_users(numbers)), strict=True))
        for user in users:
            liked = profiles.favourite(user)
            yield ListenerRow(
                user_id=user,
                state=state[heard[user]] if user in heard else new,
                recent=profiles.recent(user),
                favourite=liked,
                made_at_s=joined_s.get(user, profiles.first_at(user)),
                diversity=profiles.diversity(user),
                start=None if user in heard else vector_of_liked(items.vector[liked], cold),
                history=histories.get(user),
                usage=usages.get(user, NO_USAGE),
            )

    everybody = profiles.user_id.tolist()
    for first in range(0, len(everybody), STORED_TOGETHER):
        done = store.put_many(rows(everybody[first : first + STORED_TOGETHER]))
        tick(first + done, len(everybody))
    store.note_parts_heard(notes_of(to.events, (), items))
    store.close()


def _joined_s(listeners: pa.Table | None) -> dict[str, int]:
    if listeners is None:
        return {}
    joined = listeners["joined_at"].to_pylist()
    return {
        user: int(datetime(at.year, at.month, at.day, tzinfo=timezone.utc).timestamp())
        for user, at in zip(listeners["user_id"].to_pylist(), joined, strict=True)
    }


def account_age_d(events: pa.Table, listeners: pa.Table | None) -> dict[str, float] | None:
    """Days from joining to the first event."""
    joined = _joined_s(listeners)
    if not joined:
        return None
    first = events.group_by("user_id").aggregate([("started_at", "min")])
    return {
        user: max(0.0, (at.timestamp() - joined[user]) / 86400)
        for user, at in zip(first["user_id"].to_pylist(), first["started_at_min"].to_pylist(), strict=True)
        if user in joined
    }
