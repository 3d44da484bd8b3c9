"""How good a page the defaults of `bart train` learn, here and at an earlier commit, on demonstrations of new seeds.

Of each seed both commits make the world, the run and the log of `bart demo` (20,000 visits, of the last half every
fourth), without albums, playlists and shows, which version 0.1 did not have; each learns from its own first 10,000
pages, 5,000 and 2,500 of them, and its greedy page is valued in closed form on the others, from the logged candidates.
*Way*: (value - random page) / (page by true scores - random page). Log loss, AUC and level (mean prediction over mean
reward) are of the latest tenth of the pages, which was not learnt from.

    python -m benchmarks fresh_seeds --seeds 111 112 113 --out DIR [--rev fd6eca4]

What is done stays in DIR and is not done again. About four minutes of CPU a seed and commit; a run takes 0.2 GB.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

PAGES = (10_000, 5_000, 2_500)
EVERY = 4  # of the pages that judge
LEAST, GAIN, FEWER = 0.54, 0.13, 0.06  # what is asked of the way: on average, in each seed, and with fewer pages


def known(*names: str) -> Any:
    """The first of these modules, or attributes behind a colon, that this commit has: names of now, then of before."""
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # a package that the module needs
            continue
        if not attribute or hasattr(found, attribute):
            return getattr(found, attribute) if attribute else found
    raise SystemExit(f"fresh_seeds: this commit has none of {', '.join(names)}")


class Quiet:
    """Stages that nobody watches."""

    def stage(self, name: str) -> Any:  # noqa: ARG002
        return lambda *_: None


def settings_of(seed: int) -> Any:
    kind = known("api.run.settings:Settings", "api.settings:Settings")
    return kind.of({"seed": seed, "world": {"containers": False}}) if hasattr(kind, "of") else kind(seed=seed)


def make(seed: int, out: Path) -> None:
    """The run of a seed with its log, by the code that this process imports."""
    demo = known("api.jobs.demo", "api.demo")
    build = known("api.jobs.build:build_run", "api.build:build_run")
    runs = known("api.run.runs", "api.runs")
    serving = known("simulator.loop.serving", "simulator.serving")
    simulate_visits = known("simulator.loop.visits:simulate_visits", "simulator.visits:simulate_visits")
    world_params = known("simulator.reading.browsing:world_params", "simulator.browsing:world_params")
    delivery = known("simulator.reading.delivery:DeliveryParams", "simulator.delivery:DeliveryParams")
    log_kind = known("bart.log.decision_log:DecisionLog", "bart.decision_log:DecisionLog")
    exploration = known("bart.page.exploration:Exploration", "bart.exploration:Exploration")
    settings = settings_of(seed)
    world_rng, listening_rng, visit_rng, serve_rng = np.random.default_rng(seed).spawn(6)[:4]
    world = known("simulator.world.world:World", "simulator.world:World").make(demo.world_config(settings), world_rng)
    source, quiet = out / "source", Quiet()
    demo.simulate_files(world, listening_rng, source, quiet)
    files = (source / f"{name}.parquet" for name in ("events", "items", "playlists"))
    build(*files, out / "run", {}, settings, quiet, listeners=world.listeners(), own=True)
    shutil.rmtree(source)
    paths, n = runs.RunPaths(out / "run"), settings.world.visits
    visits = simulate_visits(world, n, visit_rng)
    window, epsilon = timedelta(hours=settings.reward.window_h), exploration.fixed(settings.world.epsilon)
    if hasattr(runs, "proof_key_of"):
        log = log_kind(paths.log, feedback_window=window, proof_key=runs.proof_key_of(settings, paths.root))
        run = runs.open_run(paths.root, settings, exploration=epsilon)
    else:
        log = log_kind(paths.log, feedback_window=window)
        run = runs.open_run(paths.root, epsilon, runs.rules_of(settings))
    seeds, behaviour, network = serve_rng.spawn(3)
    page_seed = seeds.integers(0, 2**62, size=n)
    which = np.concatenate([np.arange(n // 2), np.arange(n // 2, n, EVERY)])
    names = [f"visit-{i:07d}" for i in which.tolist()]
    with closing(log):
        served = serving._serve(
            run.ranker, run.store, world, visits, which, page_seed[which], names, world_params(settings.world.browsing),
            log, settings.page.rows, settings.page.columns, behaviour, network, delivery(),
        )  # fmt: skip
        log.close_windows(served.last_at + window * 2)
        given = {"duration_s": run.items, "reward": settings.reward.name}
        if hasattr(log, "export"):
            log.export(paths.log_export, **given)
        else:
            known("bart.log.care.export:export_log")(log, paths.log_export, **given)
    run.store.close()
    cut = demo.holdout_from(visits.at_s, 0.5)
    (out / "cut.json").write_text(json.dumps(cut.isoformat()))


def judge(seed: int, out: Path) -> list[dict[str, Any]]:
    """A row for each number of pages that is learnt from."""
    from datetime import datetime

    demo = known("api.jobs.demo", "api.demo")
    read_all = known("api.jobs.train:read_all", "api.evaluation:read_all")
    build = known("api.jobs.build", "api.build")
    training = known("bart.learning.training", "bart.training")
    model_kind = known("bart.reward.model:RewardModel", "bart.reward_model:RewardModel")
    scorer = known("bart.reward.scorer:Scorer", "bart.scorer:Scorer")
    batch_decide = known("bart.page.batch:batch_decide", "bart.page_batch:batch_decide")
    batch_appeal = known("simulator.world.appeal:batch_appeal", "simulator.appeal:batch_appeal")
    page_values = known("simulator.loop.truth:page_values", "simulator.truth:page_values")
    world_params = known("simulator.reading.browsing:world_params", "simulator.browsing:world_params")
    settings = settings_of(seed)
    bundle = known("bart.bundle:open_bundle")((out / "run" / "bundle").resolve())
    items = known("bart.item_store:load_items")(bundle.folder("items"))
    cut = datetime.fromisoformat(json.loads((out / "cut.json").read_text()))
    learnt, judged = (read_all(out / "run" / "log", items, **part) for part in ({"until": cut}, {"since": cut}))
    learnt = learnt.take(np.argsort(learnt.at_s, kind="stable"))
    world_rng = np.random.default_rng(seed).spawn(6)[0]
    world = known("simulator.world.world:World", "simulator.world:World").make(demo.world_config(settings), world_rng)
    appeal = batch_appeal(world, judged, items.item_id)
    patience = world.population.patience[world.listener_of(judged.user_id)]

    def value(score: Any, epsilon: float = 0.0, draws: int = 1) -> float:
        shape, found = judged.card.shape[1:], []
        for number in range(draws):
            rng = np.random.default_rng(number)
            _, card = batch_decide(
                judged.offset, judged.shelf, score, *shape, epsilon, epsilon, rng, raw_score=score
            )  # fmt: skip
            browsing = world_params(settings.world.browsing)
            found.append(page_values(appeal, judged.offset, card, browsing, patience=patience).mean())
        return float(np.mean(found))

    random, best = value(np.zeros(len(appeal)), 1.0, 8), value(appeal)
    prior = getattr(build, "prior_model", None)
    levels = known("api.jobs.train").feature_names(bundle) if prior else None
    config = build.reward_config(settings, items, *([levels] if prior else []))
    base = prior(settings, items, levels) if prior else model_kind.prior(config)
    rows = []
    for pages in PAGES:
        part = learnt.take(np.arange(min(pages, len(learnt))))
        asked = training.TrainingConfig(reward=config, passes=settings.reward.passes)
        found = training.train(lambda part=part: [part], items, asked, base=base)
        held = found.metrics.holdout
        way = (value(scorer.compile(found.model, items).score_batch(judged)) - random) / (best - random)
        level = held.mean_prediction / held.mean_reward
        rows.append({"pages": pages, "way": way, "log_loss": held.log_loss, "auc": held.auc, "level": level})
    return rows


def stage(tree: Path, name: str, seed: int, folder: Path) -> str:
    """Runs `make` or `judge` with the packages of a tree; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, __file__, "--stage", name, "--seeds", str(seed), "--out", str(folder)]
    return subprocess.run(command, env=environment, cwd=tree, check=True, stdout=subprocess.PIPE, text=True).stdout


def study(side: str, tree: Path, seeds: list[int], out: Path) -> None:
    """What is missing of one side."""
    for seed in seeds:
        folder, rows = out / f"{side}{seed}", out / f"{side}{seed}.json"
        if rows.is_file():
            continue
        if not (folder / "cut.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            stage(tree, "make", seed, folder)
        rows.write_text(stage(tree, "judge", seed, folder))
        print(f"{side} {seed}: done", file=sys.stderr, flush=True)


def report(seeds: list[int], out: Path) -> None:
    """A line a seed and number of pages, then means and what was asked."""
    print("| seed | pages | way before | way now | more | log loss | AUC | level now |")
    print("|---|---|---|---|---|---|---|---|")
    more: dict[int, list[tuple[float, float]]] = {pages: [] for pages in PAGES}
    for seed in seeds:
        both = [json.loads((out / f"{side}{seed}.json").read_text()) for side in ("before", "now")]
        for before, now in zip(*both, strict=True):
            gain = now["way"] - before["way"]
            more[now["pages"]].append((now["way"], gain))
            print(
                f"| {seed} | {now['pages']:,} | {before['way']:.3f} | {now['way']:.3f} | {gain:+.3f} | "
                f"{before['log_loss']:.4f}, {now['log_loss']:.4f} | {before['auc']:.3f}, {now['auc']:.3f} | "
                f"{now['level']:.2f} |"
            )
    for pages, found in more.items():
        ways, gains = np.array(found).T
        asked = f"way {LEAST}, each {GAIN:+}" if pages == max(PAGES) else f"each {FEWER:+}"
        told = f"way {ways.mean():.3f}, gain {gains.mean():+.3f}, least {gains.min():+.3f}"
        print(f"{pages:,} pages: {told} (asked: {asked})")


@contextmanager
def _tree(rev: str, needed: bool) -> Any:
    from benchmarks.against import worktree

    with worktree(rev) if needed else nullcontext(Path()) as tree:
        yield tree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rev", default="fd6eca4")
    parser.add_argument("--stage", choices=["make", "judge"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage == "make":
        make(asked.seeds[0], asked.out)
    elif asked.stage == "judge":
        print(json.dumps(judge(asked.seeds[0], asked.out)))
    else:
        out = asked.out.resolve()
        out.mkdir(parents=True, exist_ok=True)
        here = Path(__file__).resolve().parent.parent
        missing = any(not (out / f"before{seed}.json").is_file() for seed in asked.seeds)
        with _tree(asked.rev, missing) as before:
            study("before", before, asked.seeds, out)
        study("now", here, asked.seeds, out)
        report(asked.seeds, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
