"""Page estimators against the truth: bias, root mean squared error, coverage and width of intervals, by world.

    python benchmarks/page_estimators.py --logs 200 --pages 2000 --worlds W1,W2,W3,W4
    python benchmarks/page_estimators.py --logs 50 --pages 20000
    python benchmarks/page_estimators.py --choose 12 --logs 10 --pages 20000

The worlds stand in page_worlds.py; all figures but the effective sample size are relative to the true value. The second
form of use ranks close policies from one log and prints Kendall's tau for every seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from page_worlds import WORLDS, World, close_policies, logged, truth

from bart.ope.page_estimators import PAGE_ESTIMATORS, estimate_pages
from bart.ope.page_intervals import PageSetting, Spread, page_interval

SHOWN = ("exposure_dr", "dm", "page_ncis", "sn_independent_ips", "independent_ips", "sn_cascade_ips", "slate_snips")
OTHER_INTERVALS = ("normal", "studentised", "jackknife")


def study(
    world: World, pages: int, logs: int, seed: int, predictor: str, others: bool, shown: list[str]
) -> dict[str, Any]:
    """Rows of the table for one world."""
    value, error = truth(world, np.random.default_rng([seed, 0]), 200_000)
    found: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    verdicts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for log in range(logs):
        data = logged(world, pages, np.random.default_rng([seed, 1, log]), predictor)
        for name in shown:
            rng = np.random.default_rng([seed, 2, log])
            e = estimate_pages(name, data, rng=rng)
            found[name].append((e.value, e.lower, e.upper, e.effective_sample_size))
            verdicts[name][e.verdict] += 1
        if others:
            terms = PAGE_ESTIMATORS["exposure_dr"](data)
            spread = Spread(terms.value, terms.influence, data.user, terms.refit)
            for name in OTHER_INTERVALS:
                lower, upper = page_interval(name, spread, PageSetting(rng=np.random.default_rng([seed, 3, log])))
                found[f"exposure_dr, {name}"].append((terms.value, lower, upper, np.nan))
    rows = {}
    for name, values in found.items():
        v, lower, upper, size = np.array(values).T
        rows[name] = {
            "bias": float(v.mean() / value - 1),
            "bias_error": float(v.std() / value / np.sqrt(logs)),
            "rmse": float(np.sqrt(np.mean((v / value - 1) ** 2))),
            "coverage": float(np.mean((lower <= value) & (value <= upper))),
            "half_width": float(np.mean(upper - lower) / 2 / value),
            "effective_sample_size": float(size.mean()),
            "verdicts": dict(verdicts.get(name, {})),
        }
    return {"truth": value, "truth_error": error, "pages": pages, "logs": logs, "rows": rows}


def show(name: str, result: dict[str, Any]) -> None:
    print(
        f"\n{name}: truth {result['truth']:.4f} ± {result['truth_error']:.4f}, "
        f"{result['logs']} logs of {result['pages']} pages"
    )
    print(f"  {'estimator':32s} {'bias':>8s} {'±':>6s} {'RMSE':>7s} {'cover':>6s} {'half':>7s} {'ESS':>8s}  verdicts")
    for row, r in result["rows"].items():
        print(
            f"  {row:32s} {r['bias']:8.3f} {r['bias_error']:6.3f} {r['rmse']:7.3f} {r['coverage']:6.3f} "
            f"{r['half_width']:7.3f} {r['effective_sample_size']:8.1f}  {r['verdicts']}",
            flush=True,
        )


def choose(world: World, policies: int, pages: int, logs: int, seed: int) -> None:
    """Kendall's tau between estimated and true values of close policies, by seed."""
    from scipy.stats import kendalltau

    taus: dict[str, list[float]] = defaultdict(list)
    for log in range(logs):
        truths, estimates = close_policies(world, policies, pages, np.random.default_rng([seed, 4, log]))
        for name, values in estimates.items():
            taus[name].append(float(kendalltau(truths, values).statistic))
        print(f"  seed {log}: " + ", ".join(f"{name} {t[-1]:.3f}" for name, t in taus.items()), flush=True)
    for name, t in taus.items():
        print(f"  {name:24s} mean tau {np.mean(t):.3f} ± {np.std(t) / np.sqrt(len(t)):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--pages", type=int, default=2_000)
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--estimators", default=",".join(SHOWN))
    parser.add_argument("--predictor", choices=("both", "good", "weak"), default="both")
    parser.add_argument("--size", default="12x30x6x6", help="shelves x cards x rows x columns")
    parser.add_argument("--intervals", action="store_true", help="other intervals of exposure_dr as well (slow)")
    parser.add_argument("--choose", type=int, default=0, help="rank this many close policies instead")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    a = parser.parse_args()
    shelves, cards, rows, columns = (int(x) for x in a.size.split("x"))
    results = {}
    for name in a.worlds.split(","):
        world = replace(WORLDS[name], shelves=shelves, cards=cards, rows=rows, columns=columns)
        start = time.process_time()
        if a.choose:
            print(f"\n{name}: {a.choose} policies from one log of {a.pages} pages")
            choose(world, a.choose, a.pages, a.logs, a.seed)
        else:
            results[name] = study(world, a.pages, a.logs, a.seed, a.predictor, a.intervals, a.estimators.split(","))
            show(name, results[name])
        print(f"  {time.process_time() - start:.0f} s of CPU; seed {a.seed}, predictor {a.predictor}, size {a.size}")
    if a.out and results:
        a.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
