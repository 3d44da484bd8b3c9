"""Estimates against the truth: bias, error, coverage and the choice among close policies, by estimator.

One log of a simulated world after the other: the logging policy serves its visits, every policy of `SCORERS` is
estimated from what was seen, and its true value over fresh listeners of the same world is known (fresh.py), beside the
one on the very visits of the log. All figures are relative to the former.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from bart.ope.estimators.page_estimate import estimate_with_spread
from bart.ope.estimators.pages import PAGE_ESTIMATORS
from bart.ope.intervals.pages import Spread, replicates
from bart.ope.records.estimate import Estimate
from bart.types import Floats
from simulator.reading.browsing import world_params
from simulator.study.fresh import Worlds, fresh_values, log_visits
from simulator.study.scene import SceneConfig, log_scene, scene_value, with_target
from simulator.study.selection import SCORERS, Scorer, chance_of_best, kendall_tau, regret, score_of

ESTIMATORS = (
    "exposure_dr", "exposure_ips", "dm", "page_ncis", "sn_independent_ips", "independent_ips", "pseudo_inverse",
    "cascade_ips", "sn_cascade_ips", "cascade_dr", "adaptive_ips", "slate_snips",
)  # fmt: skip
REPLICATES = 500  # of P(best)


@dataclass(frozen=True, slots=True)
class StudyConfig:
    """world: a name of `simulator.reading.browsing.WORLDS`. seed, logs: log k is drawn from the seed (seed, k). pages:
    served in each; about 3 % of them are never displayed. estimators: names of `PAGE_ESTIMATORS`, with parameters where
    wanted, as in "exposure_dr:cap=20". epsilon: of the logging policy. level: of the intervals. draws: pages drawn for
    each of the log's own visits for a true value. logs_a_world: logs that share a catalogue and its true values. fresh:
    how many times as many visits as a log has those are measured on. beside: other ways of reading, whose true values
    are made along where they are studied on the same pages."""

    world: str = "W1"
    seed: int = 1
    pages: int = 2_000
    logs: int = 10
    epsilon: float = 0.2
    estimators: tuple[str, ...] = ESTIMATORS
    scorers: tuple[Scorer, ...] = SCORERS
    level: float = 0.95
    draws: int = 4
    scene: SceneConfig = field(default_factory=SceneConfig)
    logs_a_world: int = 10
    fresh: int = 10
    beside: tuple[str, ...] = ()

    @property
    def worlds(self) -> Worlds:
        reading = tuple(sorted({self.world, *self.beside}))
        return Worlds(self.seed, self.pages, self.logs_a_world, self.fresh, reading, self.scorers, self.scene)

    def __post_init__(self) -> None:
        world_params(self.world)
        unknown = [name for name in self.estimators if parsed(name)[0] not in PAGE_ESTIMATORS]
        if unknown or not self.estimators:
            first = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"estimators: {first}; expected some of {', '.join(PAGE_ESTIMATORS)}")
        if not 0 < self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon}; expected (0, 1], a log without exploration supports nothing")
        if self.pages < 20:
            raise ValueError(f"pages is {self.pages}; expected at least 20")
        if self.logs < 1:
            raise ValueError(f"logs is {self.logs}; expected at least 1")
        if len(self.scorers) < 2:
            raise ValueError(f"{len(self.scorers)} policies; expected at least 2 to choose among")
        _ = self.worlds  # its own settings are checked when it is made


@dataclass(frozen=True, slots=True, eq=False)
class LogResult:
    """What came out for one log. truth, truth_error: [policies] over fresh listeners; own_truth: on the log's own
    visits. value, lower, upper, effective_sample_size: [policies] by estimator; verdict: the same, words.
    chance_of_best: by estimator."""

    log: int
    pages: int
    mean_reward: float
    truth: Floats
    truth_error: Floats
    own_truth: Floats
    value: dict[str, Floats]
    lower: dict[str, Floats]
    upper: dict[str, Floats]
    effective_sample_size: dict[str, Floats]
    verdict: dict[str, tuple[str, ...]]
    chance_of_best: dict[str, float]


def parsed(name: str) -> tuple[str, dict[str, Any]]:
    """Estimator and parameters of "name:key=value:key=value"; a value is a number where it can be one."""
    which, *pairs = name.split(":")
    parameters: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{name}: {pair!r}; expected key=value after each colon")
        try:
            parameters[key] = int(value) if value.isdecimal() else float(value)
        except ValueError:
            parameters[key] = value
    return which, parameters


def study_log(
    config: StudyConfig,
    log: int,
    on_policy: Callable[[int], None] | None = None,
    truth: tuple[Floats, Floats] | None = None,
) -> LogResult:
    """One log of the study. on_policy: called with the number of policies that are done. truth: true values and their
    errors where they are known, of another log of the same world."""
    params, worlds = world_params(config.world), config.worlds
    log_rng, truth_rng, estimate_rng, *score_rngs = np.random.default_rng([config.seed, log]).spawn(
        3 + len(config.scorers)
    )
    served = log_scene(log_visits(worlds, log), config.epsilon, params, log_rng)
    own: list[float] = []
    found: list[list[tuple[Estimate, Spread]]] = [[] for _ in config.estimators]
    for k, scorer in enumerate(config.scorers):
        score = score_of(scorer, served.scene, served.score, score_rngs[k])
        own.append(scene_value(served.scene, score, scorer.epsilon, params, truth_rng, config.draws)[0])
        data = with_target(served, score, scorer.epsilon)
        for rows, name in zip(found, config.estimators, strict=True):
            which, parameters = parsed(name)
            stream = estimate_rng.spawn(1)[0]
            estimate, spread = estimate_with_spread(which, data, level=config.level, rng=stream, **parameters)
            # What could fit anew holds the whole record: twelve of them would fill the memory.
            rows.append((estimate, replace(spread, refit=_never)))
        if on_policy is not None:
            on_policy(k + 1)
    if truth is None:
        here = worlds.reading.index(config.world)
        values, errors = fresh_values(worlds, log // worlds.logs)
        truth = values[here], errors[here]
    by_name = dict(zip(config.estimators, found, strict=True))

    def column(what: str) -> dict[str, Floats]:
        return {name: np.array([getattr(e, what) for e, _ in rows]) for name, rows in by_name.items()}

    return LogResult(
        log=log,
        pages=len(served.pages),
        mean_reward=float(served.pages.page_reward.mean()),
        truth=truth[0],
        truth_error=truth[1],
        own_truth=np.array(own),
        value=column("value"),
        lower=column("lower"),
        upper=column("upper"),
        effective_sample_size=column("effective_sample_size"),
        verdict={name: tuple(e.verdict for e, _ in rows) for name, rows in by_name.items()},
        chance_of_best={
            name: _chance(truth[0], [spread for _, spread in rows], estimate_rng) for name, rows in by_name.items()
        },
    )


def study(config: StudyConfig, jobs: int = 1, on_done: Callable[[int, int], None] | None = None) -> list[LogResult]:
    """All logs, in order; the same whatever the number of processes in `jobs`. on_done: called with (done, total)."""
    results = []
    for result in _run(config, jobs):
        results.append(result)
        if on_done is not None:
            on_done(len(results), config.logs)
    return sorted(results, key=lambda r: r.log)


def summarise_study(results: Sequence[LogResult]) -> dict[str, dict[str, Any]]:
    """By estimator: kendall_tau, chance_of_best and regret by log; relative bias, root mean squared error, coverage (of
    the value over fresh listeners; own_coverage: on the log's own visits), half width over logs and policies; verdicts
    counted, and the coverage of the conclusive ones. false_conclusive, false_weak: shares of all estimates that were
    called conclusive though the interval left out the truth, and that were not though it held it. Errors are over logs,
    whose policies share their chance; None for a single log."""
    if not results:
        raise ValueError("results is empty; expected at least one log")
    out = {}
    truth, own = (np.stack([getattr(r, k) for r in results]) for k in ("truth", "own_truth"))  # [logs, policies]
    for name in results[0].value:
        value, lower, upper = (np.stack([getattr(r, k)[name] for r in results]) for k in ("value", "lower", "upper"))
        verdict = np.array([r.verdict[name] for r in results])
        off, covered = value / truth - 1, (lower <= truth) & (truth <= upper)
        tau = [kendall_tau(t, v) for t, v in zip(truth, value, strict=True)]
        conclusive = verdict == "conclusive"
        out[name] = {
            "kendall_tau": tau,
            "mean_kendall_tau": float(np.mean(tau)),
            "kendall_tau_error": _error(np.array(tau)),
            "relative_rmse": float(np.sqrt(np.mean(off**2))),
            "coverage": float(np.mean(covered)),
            "coverage_error": _error(covered.mean(axis=1)),
            "own_coverage": float(np.mean((lower <= own) & (own <= upper))),
            "bias": float(np.mean(off)),
            "bias_error": _error(off.mean(axis=1)),
            "own_relative_rmse": float(np.sqrt(np.mean((value / own - 1) ** 2))),
            "half_width": float(np.mean((upper - lower) / 2 / truth)),
            "chance_of_best": [r.chance_of_best[name] for r in results],
            "regret": [regret(t, v) for t, v in zip(truth, value, strict=True)],
            "effective_sample_size": float(np.mean([r.effective_sample_size[name] for r in results])),
            "verdicts": {v: int((verdict == v).sum()) for v in ("conclusive", "weak", "unusable")},
            "conclusive_coverage": float(np.mean(covered[conclusive])) if conclusive.any() else None,
            "false_conclusive": float(np.mean(conclusive & ~covered)),
            "false_weak": float(np.mean(~conclusive & covered)),
        }
    return out


def describe_study(config: StudyConfig, results: Sequence[LogResult]) -> dict[str, Any]:
    """The configuration and every figure of every log, for the record."""
    return {
        "config": asdict(config),
        "logs": [
            {
                "log": r.log,
                "displayed_pages": r.pages,
                "mean_reward": r.mean_reward,
                "truth": r.truth.tolist(),
                "truth_error": r.truth_error.tolist(),
                "own_truth": r.own_truth.tolist(),
                "spread_of_truth": float((r.truth.max() - r.truth.min()) / r.truth.mean()),
                "estimates": {
                    name: {
                        **{what: getattr(r, what)[name].tolist() for what in ("value", "lower", "upper")},
                        "verdict": list(r.verdict[name]),
                    }
                    for name in r.value
                },
            }
            for r in results
        ],
    }


def _error(by_log: Floats) -> float | None:
    """Standard error of a mean over logs."""
    return float(np.std(by_log, ddof=1) / np.sqrt(len(by_log))) if len(by_log) > 1 else None


def _never(multiplicity: Floats) -> float:
    raise RuntimeError(f"the record of these {len(multiplicity)} pages was not kept")


def _chance(truth: Floats, spreads: list[Spread], rng: np.random.Generator) -> float:
    return chance_of_best(truth, replicates(spreads, rng.spawn(1)[0], REPLICATES))


def _run(config: StudyConfig, jobs: int) -> Iterator[LogResult]:
    if jobs <= 1 or config.logs == 1:
        for log in range(config.logs):
            yield study_log(config, log)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    # Threads of numerical libraries do not survive a fork: every process starts anew.
    with ProcessPoolExecutor(min(jobs, config.logs), mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(study_log, config, log) for log in range(config.logs)]):
            yield done.result()
