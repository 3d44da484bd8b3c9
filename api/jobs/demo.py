"""The main job from end to end in a simulated world, and its evaluation beside the truth."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.background.memory import release_memory
from api.evaluate.adaptive import adaptive_facts
from api.jobs.build import build_run
from api.jobs.run_directory import draft_directory, refuse_run, write_marker
from api.jobs.train import pages_between, read_all, retrain
from api.run.runs import OpenRun, RunPaths, open_run, proof_key_of
from api.run.versions import Versions
from bart.errors import DataError

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.types import Ints, PageBatch
    from simulator.world.config import WorldConfig

NEW_MODEL_EPSILONS = (0.0, 0.05, 0.2)


def run_demo(out: Path, settings: Settings, stages: Stages) -> dict[str, Any]:
    """Makes the run `out` and returns its report (also out/report.json).

    Raises DataError where `out` holds something other than an earlier demonstration.
    """
    from bart.log.care.export import export_log
    from bart.log.care.verify import verify
    from bart.log.decision_log import DecisionLog
    from bart.ope.report.estimand import PAGES
    from bart.ope.report.report import write_report
    from bart.page.exploration import Exploration
    from simulator.loop.loop import serve_visits
    from simulator.loop.visits import simulate_visits
    from simulator.reading.browsing import world_params
    from simulator.world.world import World

    browsing = world_params(settings.world.browsing)
    refuse_run(out, "demo")
    world_rng, listening_rng, visit_rng, serve_rng, evaluation_rng, truth_rng = np.random.default_rng(
        settings.seed
    ).spawn(6)

    with draft_directory(out) as draft:
        paths = RunPaths(draft)
        tick = stages.stage("Making a world")
        asked = settings.world
        world = World.make(world_config(settings, containers=True), world_rng)
        tick(1, 1, f"{asked.tracks:,} tracks, {asked.listeners:,} listeners")
        source = draft / "source"
        simulate_files(world, listening_rng, source, stages)
        build_run(
            source / "events.parquet",
            source / "items.parquet",
            source / "playlists.parquet",
            draft,
            {},
            settings,
            stages,
            listeners=world.listeners(),
            own=True,
        )
        shutil.rmtree(source)
        release_memory()

        visits = simulate_visits(world, asked.visits, visit_rng)
        window = timedelta(hours=settings.reward.window_h)
        with closing(DecisionLog(paths.log, feedback_window=window, proof_key=proof_key_of(settings, out))) as log:
            run = open_run(draft, settings, exploration=Exploration.fixed(asked.epsilon))
            tick = stages.stage("Serving home pages")
            served = serve_visits(
                run.ranker, run.store, world, visits, browsing, log,
                settings.page.rows, settings.page.columns, serve_rng, on_progress=tick,
            )  # fmt: skip
            log.close_windows(served.last_at + timedelta(hours=settings.reward.window_h) * 2)
            tick = stages.stage("Checking the log by replay")
            replay = verify(paths.log)
            tick(1, 1, f"{replay.records:,} records, {replay.problem_count} mismatches")
            tick = stages.stage("Exporting the log")
            export_log(log, paths.log_export, duration_s=run.items, reward=settings.reward.name)
            tick(1, 1)
        run.store.close()

        cut = holdout_from(visits.at_s, settings.evaluation.holdout)
        versions = Versions(draft)
        metrics = retrain(
            run.bundle,
            run.items,
            lambda: pages_between(paths.log_export, run.items, until=cut),
            versions.draft(),
            settings,
            stages,
        )
        versions.activate(versions.add(versions.draft()), "bart demo")
        release_memory()
        test_pages = read_all(paths.log_export, run.items, since=cut)
        renewed = open_run(draft, settings, exploration=Exploration.fixed(asked.epsilon))
        rows = _evaluate(renewed, world, test_pages, settings, evaluation_rng, truth_rng, stages)
        renewed.store.close()

        report = {
            "seed": settings.seed,
            "policies": rows,
            "log": {"pages": served.pages, "seen": served.seen, "streams": served.streams},
            "replay": {"checked": replay.records, "mismatches": replay.problem_count},
            "evaluated_pages": len(test_pages),
            "evaluated_from": cut.isoformat(),
            "training": metrics,
            "configuration": settings.as_dict(leave_out={"serve"}),
            "batch_id": renewed.bundle.batch_id,
            "model_id": renewed.bundle.model_id,
            "adaptive": adaptive_facts(paths.log_export, cut, draft),
            "note": PAGES,
        }
        write_report(report, draft, pages=test_pages, items=renewed.items)
        write_marker(draft, "demo", settings)
    return report


def simulate_files(
    world: Any, rng: np.random.Generator, directory: Path, stages: Stages, *, plain: bool = False
) -> None:
    """Writes events, items and playlists of a world as Parquet, in the layout that `bart build` reads.

    plain: events without what follows from the zone and the items (offsets, durations).
    """
    import pyarrow.parquet as pq

    from simulator.world.event_batches import FOLLOWING
    from simulator.world.listening import simulate_events

    directory.mkdir(parents=True, exist_ok=True)
    tick = stages.stage("Listening for some weeks")
    days = world.config.days
    writer = None
    plays = 0

    def show(share: float) -> None:
        tick(round(share * days), days, f"{plays:,} plays")

    try:
        for events in simulate_events(world, rng, show):
            batch = events.drop_columns(list(FOLLOWING)) if plain else events
            writer = writer or pq.ParquetWriter(directory / "events.parquet", batch.schema, compression="zstd")
            writer.write_batch(batch)
            plays += len(batch)
    finally:
        if writer is not None:
            writer.close()
    pq.write_table(world.items(), directory / "items.parquet", compression="zstd")
    pq.write_table(world.playlists(), directory / "playlists.parquet", compression="zstd")


def simulate_to(out: Path, settings: Settings, stages: Stages) -> dict[Path, int]:
    """Writes `out` (events) and items.parquet and playlists.parquet beside it; rows by file."""
    import pyarrow.parquet as pq

    from simulator.world.world import World

    if out.suffix != ".parquet":
        raise DataError(f"{out} does not end in .parquet; expected the event file to write")
    beside = [out.with_name(name) for name in ("items.parquet", "playlists.parquet")]
    for path in beside:
        if path.exists() and not out.exists():
            raise DataError(f"{path} exists without {out.name}; expected a directory without items and playlists")
    world_rng, listening_rng, *_ = np.random.default_rng(settings.seed).spawn(6)
    tick = stages.stage("Making a world")
    world = World.make(world_config(settings), world_rng)
    tick(1, 1, f"{settings.world.tracks:,} tracks, {settings.world.listeners:,} listeners")
    draft = out.with_name(f".{out.name}.new")
    try:
        simulate_files(world, listening_rng, draft, stages, plain=True)
        to = {"events": out, "items": out.with_name("items.parquet"), "playlists": out.with_name("playlists.parquet")}
        for name, path in to.items():
            (draft / f"{name}.parquet").replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {path: pq.ParquetFile(path).metadata.num_rows for path in to.values()}


def world_config(settings: Settings, *, containers: bool = False) -> WorldConfig:
    """The configuration of the simulated world that the settings ask for.

    containers: whether it has albums, playlists and shows where the settings do not say.
    """
    from simulator.world.config import ContainerConfig, Effects, WorldConfig

    asked = settings.world
    with_containers = containers if asked.containers is None else asked.containers
    return WorldConfig(
        n_listeners=asked.listeners,
        days=asked.days,
        n_tracks=asked.tracks,
        n_playlists=asked.playlists,
        effects=Effects.without(asked.off),
        containers=ContainerConfig.beside(asked.tracks) if with_containers else None,
    )


def holdout_from(at_s: Ints, share: float) -> datetime:
    """The moment that parts the earlier visits, to learn from, from the latest `share` of them, to judge by.

    at_s: [n] ascending, seconds UTC. No model is judged by what it has seen. Raises DataError where a part is empty.
    """
    cut = int(at_s[len(at_s) - max(1, round(share * len(at_s)))])
    if cut <= int(at_s[0]):
        raise DataError(f"{len(at_s)} visits cannot be split with a holdout of {share}; expected more visits")
    return datetime.fromtimestamp(cut, tz=timezone.utc)


def _evaluate(
    renewed: OpenRun,
    world: Any,
    pages: PageBatch,
    settings: Settings,
    rng: np.random.Generator,
    truth_rng: np.random.Generator,
    stages: Stages,
) -> list[dict[str, Any]]:
    """One row a policy: estimates from the log beside the simulator's truth."""
    from bart.ope.comparison.evaluation import evaluate_policies
    from bart.ope.policies.pages import EvaluationPolicy
    from bart.reward.baselines import PopularityScorer
    from simulator.loop.truth import true_value
    from simulator.reading.browsing import world_params
    from simulator.world.appeal import batch_appeal

    tick = stages.stage("Off-policy evaluation")
    tick(0, 1, "scoring logged candidates")
    new = renewed.ranker.scorer.score_batch(pages)
    popular = PopularityScorer(renewed.items).score_batch(pages)
    epsilon = settings.world.epsilon
    policies = [
        EvaluationPolicy("popularity", popular, 0.0, 0.0, reward=new),
        EvaluationPolicy("logging", pages.score, pages.shelf_epsilon, pages.card_epsilon, reward=new),
        *(EvaluationPolicy(f"new model, epsilon {e:g}", new, e, e) for e in sorted({*NEW_MODEL_EPSILONS, epsilon})),
    ]
    estimated = evaluate_policies(
        pages, policies, level=settings.evaluation.level, rng=rng, q_logged=pages.raw_score, on_progress=tick
    )
    tick = stages.stage("Asking the simulator for the truth")
    appeal = batch_appeal(world, pages, renewed.items.item_id)
    patience = world.population.patience[world.listener_of(pages.user_id)]
    browsing = world_params(settings.world.browsing)
    rows: list[dict[str, Any]] = []
    for number, (found, stream) in enumerate(zip(estimated, truth_rng.spawn(len(estimated)), strict=True)):
        policy = found.policy
        truth, error = true_value(
            pages, appeal, policy.score, policy.shelf_epsilon, policy.card_epsilon, browsing, stream, patience=patience
        )
        rows.append({**found.as_row(), "truth": truth, "truth_error": error})
        tick(number + 1, len(estimated), policy.name)
    return rows
