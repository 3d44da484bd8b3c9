"""The whole evaluation of listener models on an event table: Table 2, and on request Tables 3, 4 and the figures.

Writes into a directory what recommender/study/report.py and recommender/study/plots.py describe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recommender.listener.data import listening_data
from recommender.listener.training import Progress
from recommender.study.ablations import ablations
from recommender.study.evaluation import EvaluationConfig, evaluate_sessions
from recommender.study.exploratory import exploratory, relative_gain
from recommender.study.paper_tables import PAPER_TABLE_2
from recommender.study.plots import draw_all
from recommender.study.report import tables_as_text, write_results

if TYPE_CHECKING:
    import pyarrow as pa

Tick = Callable[..., None]
FIGURE_5 = ("cosine", "mrr@50", "map@100", "recall@10@100")


def run_evaluation(
    events: pa.Table,
    out: Path,
    config: EvaluationConfig,
    *,
    tracks: Path | None = None,
    playlists: Path | None = None,
    seed: int = 1,
    ablate: bool = False,
    explore: bool = True,
    stage: Callable[[str], Tick] | None = None,
    told: Sequence[str] = (),
) -> str:
    """Evaluates into `out` and returns the tables as text.

    tracks, playlists: as in `listening_data`. ablate: also Tables 3 and 4. explore: also Figures 1 to 3 and 5. stage:
    begins a named stage, returns its tick(done, total, note). told: how the events were read and what was left out of
    them, which the tables say too.
    """
    begin = stage or (lambda _: _silent)
    started = time.perf_counter(), time.process_time()
    vector_rng, model_rng, ablation_rng, explore_rng = np.random.default_rng(seed).spawn(4)
    data = listening_data(
        events, rng=vector_rng, tracks=tracks, playlists=playlists,
        hidden_d=config.test_d + config.validation_d, on_stage=begin,
    )  # fmt: skip
    ticks = _Ticks(begin)
    found = evaluate_sessions(data.sessions, data.vector, config, rng=model_rng, on_progress=ticks)
    run: dict[str, Any] = {
        "seed": seed,
        "events": list(told),
        "hidden": config.hidden,
        "vectors_from": data.vectors_from,
        **{
            key: found[key]
            for key in (
                "sizes",
                "p_values",
                "intervals",
                "by_seed",
                "seed_deviation",
                "repeats_without_vector",
                "tuning",
                "contexts",
                "validation",
            )
        },
        "model_cpu_s": ticks.cpu_s,
        "configuration": asdict(config),
    }
    if ablate:
        run |= ablations(data.sessions, data.vector, config, rng=ablation_rng, on_progress=ticks)
    figures: dict[str, Any] = {}
    if explore:
        begin("Exploring contexts")
        figures = exploratory(data.sessions, data.vector, explore_rng)
        if {"CoSeRNN", "JODIE"} <= set(found["contexts"]):
            figures["figure5"] = relative_gain(found["contexts"], FIGURE_5)
    run["figures"] = figures
    run["seconds"] = {"wall": time.perf_counter() - started[0], "cpu": time.process_time() - started[1]}
    out.mkdir(parents=True, exist_ok=True)
    write_results(out, found["table2"], run)
    draw_all({"table2": found["table2"], "paper": PAPER_TABLE_2, **figures}, out)
    return tables_as_text(found["table2"], run)


class _Ticks:
    """Turns the progress of models into stages: one for each network, none for what takes no time."""

    def __init__(self, begin: Callable[[str], Tick]) -> None:
        self._begin, self._of, self._tick = begin, "", _silent
        self._since = time.process_time()
        self.cpu_s: dict[str, float] = {}

    def __call__(self, name: str, progress: Progress | None) -> None:
        if progress is None:
            now = time.process_time()
            self.cpu_s[name] = round(now - self._since, 2)
            self._of, self._since = "", now
            return
        if name != self._of:
            self._of, self._tick = name, self._begin(f"Training {name}")
        self._tick(progress.done, progress.total, progress.note)


def _silent(done: int, total: int, note: str = "") -> None:
    """Progress for nobody."""
