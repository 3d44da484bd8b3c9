"""Fixtures that several files share. Heavy imports stay inside: most tests need none of them."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from kernels import compile_together
from once import made_once

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # what a test says does not depend on how busy the machine is
GENRES = ("soul", "folk", "techno", "jazz")

if "PYTEST_XDIST_WORKER" in os.environ:
    compile_together()  # before tests are collected: that would compile everything in every process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end no process waits for another's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def built_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run made from a user's own files: 30 listeners, 40 items. Copy it before writing to it."""
    return made_once(tmp_path_factory, "built", _build) / "run"


def _build(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from api.jobs.build import build_run
    from api.run.progress import Quiet
    from api.run.settings import load_settings

    rng = np.random.default_rng(7)
    n_items, n_users = 40, 30
    genre = np.arange(n_items) % len(GENRES)
    user, item, started = [], [], []
    for u in range(n_users):
        at = np.datetime64("2024-05-01T08:00:00", "us") + np.timedelta64(int(rng.integers(86_400)), "s")
        for play in range(60):
            own = rng.random() < 0.8
            among = np.flatnonzero(genre == u % len(GENRES)) if own else np.arange(n_items)
            user.append(f"listener-{u:02d}")
            item.append(f"item-{int(rng.choice(among)):02d}")
            started.append(at)
            at += np.timedelta64(200 if play % 8 else 40_000, "s")
    events = pa.table(
        {
            "user_id": user,
            "item_id": item,
            "started_at": pa.array(np.array(started), pa.timestamp("us", "UTC")),
            "listened_s": rng.choice([8.0, 190.0], len(user), p=[0.25, 0.75]),
            "device": [("mobile", "desktop")[i % 2] for i in range(len(user))],
        }
    )
    items = pa.table(
        {
            "item_id": [f"item-{i:02d}" for i in range(n_items)],
            "title": [f"Song {i}" for i in range(n_items)],
            "artist_ids": [[f"Artist {i % 10}"] for i in range(n_items)],
            "genres": [[GENRES[g]] for g in genre],
            "duration_s": [190.0] * n_items,
        }
    )
    pq.write_table(events, folder / "events.parquet")
    pq.write_table(items, folder / "items.parquet")
    small = load_settings({"page": {"rows": 4, "columns": 5, "per_shelf": 12}})
    build_run(folder / "events.parquet", folder / "items.parquet", None, folder / "run", {}, small, Quiet())


@pytest.fixture(scope="session")
def demo_settings() -> Callable[..., Any]:
    """The settings of `demo_run`, with other ones of its world."""
    from api.run.settings import load_settings

    def settings(seed: int = 4, **world: int) -> Any:
        small = {"listeners": 110, "days": 24, "tracks": 900, "playlists": 600, "visits": 1200}
        page, listener = {"rows": 4, "columns": 4, "per_shelf": 12}, {"epochs": 1, "hidden": 16}
        parts = {"page": page, "listener": listener, "world": {**small, **world}, "evaluation": {"holdout": 0.7}}
        return load_settings({"seed": seed, **parts})

    return settings


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory, demo_settings: Callable[..., Any]) -> Path:
    """A small demonstration with a log of 1,200 visits. Copy it (links as links) before writing to it."""
    from api.jobs.demo import run_demo
    from api.run.progress import Quiet

    made = made_once(tmp_path_factory, "demo", lambda folder: run_demo(folder / "run", demo_settings(), Quiet()))
    return made / "run"


@pytest.fixture(scope="session")
def chromium() -> Any:
    """The module that drives a browser; tests that need one are skipped where it is not installed."""
    import chromium as module

    if not module.CHROMIUM.exists():
        pytest.skip(f"{module.CHROMIUM} is not installed (apt-get install chromium)")
    return module


@pytest.fixture(scope="session")
def tab(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One tab of a browser, for all tests."""
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for what the browser showed: BART_PICTURES, where it outlasts the tests, or a temporary one."""
    kept = os.environ.get("BART_PICTURES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def small_run(built_run: Path, tmp_path: Path) -> Path:
    """A copy of `built_run` of one's own."""
    return Path(shutil.copytree(built_run, tmp_path / "run", symlinks=True))


@pytest.fixture(scope="session")
def client_of() -> Callable[..., Any]:
    """Makes a client of a service, in this process, with the key that was made for the run; headers={}: without."""
    with warnings.catch_warnings():
        # Newer Starlette would rather have httpx2 and says so when it is imported; httpx serves as well.
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient

    from api.http.app import create_app
    from api.run.keys import admin_key, has_administrator

    def make(service: Any, **options: Any) -> Any:
        key = admin_key(service.run.paths.root, service.settings.serve)
        made = {} if has_administrator(service.settings.serve) else {"x-api-key": key}
        where = {"base_url": "http://127.0.0.1:8000", "client": ("127.0.0.1", 50_000), "headers": made, **options}
        return TestClient(create_app(service), **where)

    return make
