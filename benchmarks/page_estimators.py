"""Page estimators against the truth of simulated worlds: bias, error, coverage, verdicts, and the choice of a policy.

    python benchmarks/page_estimators.py --pages 2000 --logs 200
    python benchmarks/page_estimators.py --pages 20000 --logs 50 --worlds W1,W2,W3
    python benchmarks/page_estimators.py --pages 20000 --logs 10 --worlds W1,W2 --policies 12

The last form is the selection study: Kendall's tau over twelve close policies, by log. Worlds and policies are those of
`bart evaluate-estimators` (simulator/study/evaluation.py), which is the same study of one world. All figures are
relative to the true value on the log's own visits. With --rows FILE each log is kept as one JSON line, and a second run
goes on where the first was stopped; --first starts at a later log, so that several processes can share a study.
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
        **{key: {name: v.tolist() for name, v in getattr(result, key).items()} for key in BY_ESTIMATOR},
        "verdict": {name: list(v) for name, v in result.verdict.items()},
        "chance_of_best": result.chance_of_best,
    }


def as_result(row: dict[str, Any]) -> LogResult:
    """The same back."""
    arrays = {key: {name: np.array(v) for name, v in row[key].items()} for key in BY_ESTIMATOR}
    verdict = {name: tuple(v) for name, v in row["verdict"].items()}
    truth, error = np.array(row["truth"]), np.array(row["truth_error"])
    return LogResult(
        log=row["log"],
        pages=row["pages"],
        mean_reward=row["mean_reward"],
        truth=truth,
        truth_error=error,
        **arrays,
        verdict=verdict,
        chance_of_best=row["chance_of_best"],
    )


def results(config: StudyConfig, first: int, rows: Path | None) -> list[LogResult]:
    """Logs first, first + 1, ... of the study; those that the file holds are not made again."""
    kept: dict[int, LogResult] = {}
    if rows is not None and rows.exists():
        kept = {r.log: r for r in (as_result(json.loads(line)) for line in rows.read_text().splitlines())}
    out = []
    for log in range(first, first + config.logs):
        if log not in kept:
            kept[log] = study_log(config, log)
            if rows is not None:
                with rows.open("a") as file:
                    file.write(json.dumps(as_row(kept[log])) + "\n")
        out.append(kept[log])
    return out


def show(config: StudyConfig, found: list[LogResult], *, by_log: bool) -> None:
    truth = np.stack([r.truth for r in found])
    spread = np.mean((truth.max(axis=1) - truth.min(axis=1)) / truth.mean(axis=1))
    error = max(float((r.truth_error / r.truth).max()) for r in found)
    print(
        f"\n{config.world}: {len(found)} logs of {config.pages:,} pages, seed {config.seed}; {truth.shape[1]} policies,"
        f" true values {truth.mean():.3f} on average, {spread:.0%} from worst to best, known to {error:.2%}"
    )
    print(
        f"  {'estimator':20s} {'bias':>7s} {'RMSE':>7s} {'covers':>7s} {'half':>7s} {'ESS':>7s}"
        f" {'conclusive':>11s} {'weak':>5s} {'unusable':>8s} {'covers, concl.':>14s} {'tau':>6s} {'±':>5s}"
    )
    for name, row in summarise_study(found).items():
        covered, verdicts = row["conclusive_coverage"], row["verdicts"]
        figures = (f"{row[k]:7.3f}" for k in ("bias", "relative_rmse", "coverage", "half_width"))
        print(
            f"  {name:20s} {' '.join(figures)} {row['effective_sample_size']:7.0f} {verdicts['conclusive']:11d}"
            f" {verdicts['weak']:5d} {verdicts['unusable']:8d} {'' if covered is None else format(covered, '.3f'):>14s}"
            f" {row['mean_kendall_tau']:6.3f} {row['kendall_tau_error'] or 0.0:5.3f}"
        )
        if by_log:
            print(f"    tau by log: {', '.join(f'{tau:.3f}' for tau in row['kendall_tau'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="W1,W2,W3,W4,W5,W6")
    parser.add_argument("--pages", type=int, default=2_000)
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--policies", type=int, default=3, help="how many of the twelve")
    parser.add_argument("--epsilon", type=float, default=0.2, help="of the logging policy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--estimators", default=",".join(ESTIMATORS))
    parser.add_argument("--rows", help="file of JSON lines, {world} and {pages} are filled in")
    a = parser.parse_args()
    for world in a.worlds.split(","):
        start = time.process_time()
        config = StudyConfig(
            world=world,
            seed=a.seed,
            pages=a.pages,
            logs=a.logs,
            epsilon=a.epsilon,
            estimators=tuple(a.estimators.split(",")),
            scorers=SCORERS
            if a.policies == len(SCORERS)
            else tuple(
                # From the middle of each part of the list: near to the logging policy, between, far.
                SCORERS[(2 * k + 1) * len(SCORERS) // (2 * a.policies)]
                for k in range(a.policies)
            ),
        )
        rows = None if a.rows is None else Path(a.rows.format(world=world, pages=a.pages))
        show(config, results(config, a.first, rows), by_log=a.logs <= 10)
        print(f"  {time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()
