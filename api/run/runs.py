"""A run directory: where the files of one installation stand, and how a ranker is opened from it."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from api.run.clock import utc_now
from bart.errors import BundleError

if TYPE_CHECKING:
    from api.run.settings import Settings
    from bart.bundle import Bundle
    from bart.home import HomeRanker
    from bart.page.exploration import Exploration
    from bart.page.rules import Rules
    from bart.page.shown import ShownPage
    from bart.types import Context, Floats32, ItemTable
    from recommender.features.tables import Histories
    from recommender.listener.model import ListenerModel
    from recommender.states.preferences import Preferences
    from recommender.states.states import StoredListeners

_log = logging.getLogger("bart.run")


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The files of one run."""

    root: Path

    @property
    def events(self) -> Path:
        return self.root / "events.parquet"

    @property
    def items(self) -> Path:
        return self.root / "items.parquet"

    @property
    def playlists(self) -> Path:
        return self.root / "playlists.parquet"

    @property
    def log(self) -> Path:
        """The live decision log (SQLite)."""
        return self.root / "log.sqlite"

    @property
    def log_export(self) -> Path:
        """Closed pages as Parquet, by date."""
        return self.root / "log"

    @property
    def listeners(self) -> Path:
        """Listener states (SQLite)."""
        return self.root / "listeners.sqlite"

    @property
    def preferences(self) -> Path:
        """What listeners ask for (SQLite)."""
        return self.root / "preferences.sqlite"

    def user_vectors(self, batch_id: str) -> Path:
        """Vectors of the user encoder of all listeners, by batch."""
        return self.root / "users" / f"{batch_id}.parquet"

    def user_vector_files(self) -> list[Path]:
        """Those that are there."""
        return sorted((self.root / "users").glob("*.parquet"))

    @property
    def bundle(self) -> Path:
        """The active bundle: a link, see `api.run.versions` (in runs of the older layout the bundle itself)."""
        return self.root / "bundle"

    @property
    def report(self) -> Path:
        return self.root / "report.json"


class SharedListeners(Protocol):
    """A store on another host, as `api.hosts.shared` opens it."""

    def listeners(
        self,
        embedded: Path,
        model: ListenerModel,
        batch_id: str,
        cold: Floats32 | None,
        histories: Histories | None,
    ) -> StoredListeners: ...

    def preferences(self, copy: Path) -> Preferences: ...


@dataclass(frozen=True)
class OpenRun:
    """A run that was opened: its bundle, items, ranker and listeners."""

    paths: RunPaths
    bundle: Bundle
    items: ItemTable
    ranker: HomeRanker
    store: StoredListeners
    settings: Settings
    shared: SharedListeners | None = None

    def page(
        self,
        user_id: str,
        context: Context | None = None,
        rows: int | None = None,
        columns: int | None = None,
        seed: int | None = None,
    ) -> ShownPage:
        """The page that the bundle decides for a listener, not recorded: to be looked at, in a notebook as it is.

        context: when, on what device, where; now on a phone where none is given. rows, columns: by default those of the
        settings. seed: of the draw, by default another one each time; it stands in `.decision.seed`. Switches,
        experiments and sessions that run are the service's and do not count here: `bart page` heeds them.
        """
        from bart.page.shown import shown
        from bart.types import Context

        context = context or Context(utc_now(), zone_known=False)
        listener, size = self.store.listener(user_id, context), self.settings.page
        decision = self.ranker.dry().decide(
            secrets.token_hex(16),
            listener,
            context,
            size.rows if rows is None else rows,
            size.columns if columns is None else columns,
            secrets.randbits(62) if seed is None else seed,
        )
        return shown(decision, self.items, known=listener.known)


def proof_key_of(settings: Settings, root: Path) -> bytes | None:
    """The key that seals the log's closed days, None where the settings name none.

    Raises LogError for a file that is no such key, or stands in the run.
    """
    from bart.log.proof.key import read_key

    return read_key(settings.log.proof_key, root) if settings.log.proof_key else None


def exploration_of(settings: Settings) -> Exploration:
    """The exploration rates that the settings ask for."""
    from bart.page.exploration import SURFACES, Exploration

    asked = settings.exploration
    one = asked.epsilon  # one rate for all surfaces has neither table nor bounds
    return Exploration(
        table={} if one is not None else {**SURFACES, **asked.surfaces},
        default=0.20 if one is None else one,
        adapt=asked.adapt and one is None,
        lowest=asked.lowest if one is None else 0.0,
        highest=asked.highest if one is None else 1.0,
        greedy_rows=asked.greedy_rows,
        greedy_positions=asked.greedy_positions,
    )


def rules_of(settings: Settings) -> Rules:
    """The business rules that the settings ask for. Raises ValueError for entries that rules do not know."""
    from bart.page.rules import Rules

    return Rules.from_mapping(settings.rules)


def open_run(
    root: Path | str,
    settings: Settings | None = None,
    *,
    exploration: Exploration | None = None,
    shared: SharedListeners | None = None,
    folder: Path | None = None,
) -> OpenRun:
    """Opens the bundle of a run, checked, and makes the one ranker of it.

    settings: those of ./bart.toml and of the environment where none are given. exploration: instead of theirs. shared:
    where listener states stand instead of RUN/listeners.sqlite, see docs/several_hosts.md. folder: of a bundle
    that is not the active one.
    Raises BundleError where the run or a part of it is missing, altered or does not belong to the rest.
    """
    import pyarrow as pa

    from api.run.settings import load_settings
    from api.run.versions import Versions
    from bart.bundle import open_bundle
    from bart.home import HomeRanker
    from bart.item_store import load_items
    from bart.reward.scorer import load_scorer
    from recommender.features.source import open_features
    from recommender.shelves.candidates import ShelfCandidates
    from recommender.states.preferences import SqlitePreferences
    from recommender.states.states import SqliteListenerStore, load_listener_model
    from recommender.users.vectors import open_users

    settings = load_settings() if settings is None else settings
    paths = RunPaths(Path(root))
    if not paths.root.is_dir():
        raise BundleError(f"{paths.root} does not exist; expected a run made by bart demo or bart build")
    if not paths.listeners.is_file():
        raise BundleError(f"{paths.listeners} is missing; expected the listener states that bart build writes")
    Versions(paths.root).repair()
    bundle = open_bundle((folder or paths.bundle).resolve())  # once: an activation meanwhile must not mix two bundles
    items = load_items(bundle.folder("items"))
    features, histories = open_features(bundle.folder("listener"), items)
    ranker = HomeRanker(
        source=ShelfCandidates.load(bundle.folder("index"), items),
        items=items,
        scorer=load_scorer(bundle.folder("reward"), items),
        exploration=exploration or exploration_of(settings),
        rules=rules_of(settings),
        batch_id=bundle.batch_id,
        model_id=bundle.model_id,
        features=features,
    )
    for entry in ranker.rules.without_effect(items):
        _log.warning("rules: %s does nothing, since this run has no such item, artist or genre", entry)
    model = load_listener_model(bundle.folder("listener"))
    cold = np.load(bundle.folder("listener") / "cold_vector.npy", allow_pickle=False)
    store: StoredListeners
    if shared is None:
        durable = settings.serve.durable
        store = SqliteListenerStore(
            paths.listeners, model, bundle.batch_id, cold_vector=cold, durable=durable, histories=histories
        )
    else:
        store = shared.listeners(paths.listeners, model, bundle.batch_id, cold, histories)
    store.users = open_users(bundle.folder("listener"), items, bundle.batch_id)
    store.preferences = (
        SqlitePreferences(paths.preferences) if shared is None else shared.preferences(paths.preferences)
    )
    pa.default_memory_pool().release_unused()  # Arrow keeps what its tables took: more than all that a worker needs
    return OpenRun(paths, bundle, items, ranker, store, settings, shared)
