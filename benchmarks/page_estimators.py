"""Page estimators against the truth of simulated worlds: bias, error, coverage, verdicts, and the choice of a policy.

    python -m benchmarks page_estimators --worlds W4,W5,KUAIRAND,GRID,RETURN --logs 100 --estimators exposure_dr
    python -m benchmarks page_estimators --worlds W1,W2,W3 --pages 20000 --logs 20 --estimators exposure_dr,dm
    python -m benchmarks page_estimators --worlds W1,W2 --pages 20000 --logs 20 --policies 12 --estimators exposure_dr

The last form is the selection study: Kendall's tau over twelve close policies, by log. Worlds and policies are those of
`bart evaluate-estimators` (simulator/study/evaluation.py), which is the same study of one world. All figures are
relative to the true value over fresh listeners of the same world, ten times as many visits as a log has; "own" is the
value on the log's own visits. The worlds asked for read the same pages, log by log. With --rows FILE each log is kept
as one JSON line, and a second run goes on where the first was stopped; --seconds stops a run when so much time of the
processor is used.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from simulator.study.evaluation import ESTIMATORS, LogResult, StudyConfig, study_log, summarise_study
from simulator.study.selection import SCORERS

BY_ESTIMATOR = ("value", "lower", "upper", "effective_sample_size")


def as_row(result: LogResult) -> dict[str, Any]:
    """One log as JSON."""
    return {
        "log": result.log,
        "pages": result.pages,
        "mean_reward": result.mean_reward,
        "truth": result.truth.tolist(),
        "truth_error": result.truth_error.tolist(),
        "own_truth": result.own_truth.tolist(),
        **{key: {name: v.tolist() for name, v in getattr(result, key).items()} for key in BY_ESTIMATOR},
        "verdict": {name: list(v) for name, v in result.verdict.items()},
        "chance_of_best": result.chance_of_best,
    }


def as_result(row: dict[str, Any]) -> LogResult:
    """The same back."""
    arrays = {key: {name: np.array(v) for name, v in row[key].items()} for key in BY_ESTIMATOR}
    verdict = {name: tuple(v) for name, v in row["verdict"].items()}
    truths = {key: np.array(row[key]) for key in ("truth", "truth_error", "own_truth")}
    return LogResult(
        log=row["log"],
        pages=row["pages"],
        mean_reward=row["mean_reward"],
        **truths,
        **arrays,
        verdict=verdict,
        chance_of_best=row["chance_of_best"],
    )


def kept(rows: Path | None) -> dict[int, LogResult]:
    """Logs that the file holds, whole lines alone."""
    if rows is None or not rows.exists():
        return {}
    text = rows.read_text()
    lines = text[: text.rfind("\n") + 1]
    if lines != text:  # what a run that was killed left of its last line
        rows.write_text(lines)
    return {r.log: r for r in (as_result(json.loads(line)) for line in lines.splitlines())}


def run(configs: list[StudyConfig], files: list[Path | None], seconds: float) -> list[list[LogResult]]:
    """Logs 0, 1, ... of the studies, whose pages they share; those that the files hold are not made again."""
    found = [kept(rows) for rows in files]
    for log in range(configs[0].logs):
        for config, rows, done in zip(configs, files, found, strict=True):
            if log in done:
                continue
            if time.process_time() > seconds:
                return [sorted(done.values(), key=lambda r: r.log) for done in found]
            # The truth of a world costs as much as some logs: one that a row holds is not made again.
            known = next((r for r in done.values() if r.log // config.logs_a_world == log // config.logs_a_world), None)
            done[log] = study_log(config, log, truth=None if known is None else (known.truth, known.truth_error))
            if rows is not None:
                with rows.open("a") as file:
                    file.write(json.dumps(as_row(done[log])) + "\n")
    return [[done[log] for log in range(c.logs)] for c, done in zip(configs, found, strict=True)]


def show(config: StudyConfig, found: list[LogResult], *, by_log: bool) -> None:
    truth = np.stack([r.truth for r in found])
    spread = np.mean((truth.max(axis=1) - truth.min(axis=1)) / truth.mean(axis=1))
    error = max(float((r.truth_error / r.truth).max()) for r in found)
    print(
        f"\n{config.world}: {len(found)} logs of {config.pages:,} pages, seed {config.seed}; {truth.shape[1]} policies,"
        f" true values {truth.mean():.3f} on average, {spread:.0%} from worst to best, known to {error:.2%}"
    )
    print(
        "| estimator | bias | ± | RMSE | covers | ± | covers own | half width | effective pages | conclusive | weak"
        " | unusable | covers where conclusive | false conclusive | false weak | tau | ± |"
    )
    print("|" + "---|" * 17)
    for name, row in summarise_study(found).items():
        verdicts, covered = row["verdicts"], row["conclusive_coverage"]
        cells = [
            name,
            *(_three(row[k]) for k in ("bias", "bias_error", "relative_rmse", "coverage", "coverage_error")),
            *(_three(row[k]) for k in ("own_coverage", "half_width")),
            f"{row['effective_sample_size']:,.0f}",
            *(str(verdicts[k]) for k in ("conclusive", "weak", "unusable")),
            "" if covered is None else _three(covered),
            *(_three(row[k]) for k in ("false_conclusive", "false_weak", "mean_kendall_tau", "kendall_tau_error")),
        ]
        print(f"| {' | '.join(cells)} |")
        if by_log:
            print(f"    tau by log: {', '.join(f'{tau:.3f}' for tau in row['kendall_tau'])}")


def _three(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".replace("0.", ".", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="W1,W2,W3,W4,W5,W6")
    parser.add_argument("--pages", type=int, default=2_000)
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--logs-a-world", type=int, default=20, help="logs that share a catalogue and its true values")
    parser.add_argument("--policies", type=int, default=3, help="how many of the twelve")
    parser.add_argument("--epsilon", type=float, default=0.2, help="of the logging policy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=4, help="of pages a visit, for the value on the log's own visits")
    parser.add_argument("--estimators", default=",".join(ESTIMATORS))
    parser.add_argument("--rows", help="file of JSON lines, {world} and {pages} are filled in")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of the processor, then the run stops")
    parser.add_argument("--by-log", action="store_true", help="tau of every log")
    a = parser.parse_args()
    worlds = tuple(a.worlds.split(","))
    scorers = tuple(
        # From the middle of each part of the list: near to the logging policy, between, far.
        SCORERS[(2 * k + 1) * len(SCORERS) // (2 * a.policies)]
        for k in range(a.policies)
    )
    configs = [
        StudyConfig(
            world=world,
            seed=a.seed,
            pages=a.pages,
            logs=a.logs,
            epsilon=a.epsilon,
            estimators=tuple(a.estimators.split(",")),
            scorers=SCORERS if a.policies == len(SCORERS) else scorers,
            logs_a_world=a.logs_a_world,
            draws=a.draws,
            beside=worlds,
        )
        for world in worlds
    ]
    files = [None if a.rows is None else Path(a.rows.format(world=world, pages=a.pages)) for world in worlds]
    for config, found in zip(configs, run(configs, files, a.seconds), strict=True):
        if found:
            show(config, found, by_log=a.by_log)
    print(f"{time.process_time():.0f} s of the processor")


if __name__ == "__main__":
    main()
