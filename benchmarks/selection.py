"""Selection among policies: is P(best) calibrated, are false discoveries controlled, do the intervals cover?

    python benchmarks/selection.py [--study best|discoveries|differences|assisted|slices] [--logs 500] [--seed 0]

best: logs of single choices whose policies' true values are drawn anew for each log, close (spread of the values as
large as a difference's error) or apart (three times as large); P(best) in classes against how often that policy was
best. discoveries: nine policies against one baseline, none, four or all of them different; share of false discoveries.
differences: coverage and width of paired intervals. assisted: coverage and width of model-assisted intervals under a
right, a useless and a misleading model. slices: coverage of slices and of other rewards on pages (W1, W3).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import _ope_worlds
import page_worlds

from bart.ope import LoggedChoices
from bart.ope.comparison.best import Prior
from bart.ope.comparison.false_discovery import ADJUSTMENTS, adjusted
from bart.ope.comparison.selection_choices import select_choices
from bart.ope.comparison.several_rewards import outcome_spread, outcome_terms
from bart.ope.comparison.slices import estimate_slice, slice_spread, slice_terms
from bart.ope.engine.listeners import Listeners
from bart.ope.estimators.choices import dr
from bart.ope.estimators.pages import exposure_dr
from bart.ope.intervals.choices import INTERVALS, Setting
from bart.ope.intervals.pages import PageSetting, Spread, student
from bart.ope.verdict.pages import weight_facts
from bart.types import Floats

ROWS, ACTIONS = 1_000, 10
CLASSES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


def many_policies(
    effect: Floats, rng: np.random.Generator, rows: int = ROWS
) -> tuple[dict[str, LoggedChoices], Floats]:
    """A uniform log and policies of which number i takes an action worth 0.3 + effect[i]; records and true values.

    Context decides which action that is, another one for each policy. At most ten policies.
    """
    context = rng.integers(0, ACTIONS, rows)
    action = rng.integers(0, ACTIONS, rows)
    worth = np.full((ACTIONS, ACTIONS), 0.3)
    for i, more in enumerate(effect):
        worth[np.arange(ACTIONS), (np.arange(ACTIONS) + i) % ACTIONS] += more
    reward = (rng.random(rows) < worth[context, action]).astype(np.float64)
    records, truth = {}, []
    for i, more in enumerate(effect):
        pmf = np.full((rows, ACTIONS), 0.1 / ACTIONS)
        pmf[np.arange(rows), (context + i) % ACTIONS] += 0.9
        records[f"policy {i}"] = LoggedChoices(reward, action, np.full(rows, 1 / ACTIONS), pmf)
        truth.append(0.9 * (0.3 + more) + 0.1 * float(worth.mean()))
    return records, np.array(truth)


def best(logs: int, seed: int) -> None:
    """Calibration of P(best) among five policies."""
    n = 5
    # The error of a difference between two policies here is about .06 at 1,000 rows.
    for name, spread in (("close, spread .04", 0.04), ("apart, spread .15", 0.15)):
        print(f"\nP(best) of {n} policies, {name}; {logs} logs of {ROWS:,} rows, seed {seed}\n")
        said: dict[Prior, list[float]] = {"flat": [], "exchangeable": []}
        was: list[float] = []
        for rng in np.random.default_rng([seed, int(1_000 * spread)]).spawn(logs):
            effect = np.clip(rng.normal(0, spread, n), -0.29, 0.69)
            records, truth = many_policies(effect, rng)
            was += (truth == truth.max()).astype(float).tolist()
            for prior, values in said.items():
                found = select_choices(records, rng, user=np.arange(ROWS), prior=prior)
                values += [p if p is not None else np.nan for p in found.p_best]
        print("| P(best) said | flat: said, was (n) | exchangeable: said, was (n) |\n|---|---|---|")
        outcome = np.array(was)
        for low, high in pairwise(CLASSES):
            cells = []
            for values in said.values():
                p = np.array(values)
                inside = (p >= low) & ((p < high) | (high == 1.0))
                if not inside.any():
                    cells.append("-")
                    continue
                error = np.sqrt(max(outcome[inside].mean() * (1 - outcome[inside].mean()), 1e-4) / inside.sum())
                cells.append(f"{p[inside].mean():.3f}, {outcome[inside].mean():.3f} ± {error:.3f} ({inside.sum()})")
            print(f"| {low:g} to {high:g} | {' | '.join(cells)} |")
        scores = {prior: np.nanmean((np.array(values) - outcome) ** 2) for prior, values in said.items()}
        print(f"\nBrier score: {', '.join(f'{prior} {score:.4f}' for prior, score in scores.items())}", flush=True)


def discoveries(logs: int, seed: int) -> None:
    """Share of false discoveries among those made, and how many of the true ones were found."""
    print(f"\n{ACTIONS - 1} policies against a baseline, rate .05; {logs} logs of {ROWS:,} rows, seed {seed}\n")
    print("| different | adjustment | false discoveries | found |\n|---|---|---|---|")
    for different in (0, 4, 9):
        false: dict[str, list[float]] = {name: [] for name in ADJUSTMENTS}
        found: dict[str, list[float]] = {name: [] for name in ADJUSTMENTS}
        for rng in np.random.default_rng([seed, different]).spawn(logs):
            effect = np.zeros(ACTIONS)
            effect[1 : 1 + different] = 0.2
            records, _ = many_policies(effect, rng)
            p = np.array([d.p_value for d in select_choices(records, rng, baseline="policy 0").versus_baseline])
            null = np.arange(len(p)) >= different
            for name in ADJUSTMENTS:
                called = adjusted(p, name) <= 0.05
                false[name].append(float((called & null).sum() / max(called.sum(), 1)))
                if different:
                    found[name].append(float(called[~null].mean()))
        for name in ADJUSTMENTS:
            rate, error = np.mean(false[name]), np.std(false[name]) / np.sqrt(logs)
            power = f"{np.mean(found[name]):.2f}" if different else "-"
            print(f"| {different} | {name.replace('_', ' ')} | {rate:.3f} ± {error:.3f} | {power} |", flush=True)


def differences(logs: int, seed: int) -> None:
    """Coverage and width of the paired difference of two policies, by the intervals of `select_choices`."""
    print(f"\nPaired differences, nominal 95 %, {logs} logs, seed {seed}: coverage / mean width\n")
    print("| rows | share of contexts moved | empirical likelihood | Student by row |\n|---|---|---|---|")
    for rows, moved in ((2_000, 0.1), (2_000, 0.5), (2_000, 1.0), (20_000, 0.5)):
        root = np.random.default_rng([seed, rows, int(100 * moved)])
        one, other = _ope_worlds.make_world(moved, root), _ope_worlds.make_world(moved, root)
        target = np.where(other.target != other.logged, (one.logged + 1) % _ope_worlds.ACTIONS, one.logged)[::-1]
        first, second = (_ope_worlds.pmf(t, _ope_worlds.TARGET_EPSILON) for t in (one.target, target))
        truth = float(((first - second) * one.mean).sum(axis=1).mean())
        hits, width = np.zeros(2), np.zeros(2)
        for rng in root.spawn(logs):
            context = rng.integers(0, _ope_worlds.CONTEXTS, rows)
            explore = rng.random(rows) < _ope_worlds.LOG_EPSILON
            action = np.where(explore, rng.integers(0, _ope_worlds.ACTIONS, rows), one.logged[context])
            rate = _ope_worlds.LOG_EPSILON
            propensity = rate / _ope_worlds.ACTIONS + (1 - rate) * (action == one.logged[context])
            reward = (rng.random(rows) < one.mean[context, action]).astype(np.float64)
            records = {
                name: LoggedChoices(reward, action, propensity, pmf[context])
                for name, pmf in (("one", first), ("other", second))
            }
            for i, user in enumerate((None, np.arange(rows))):
                d = select_choices(records, rng, user=user).pairwise[0]
                hits[i] += d.lower <= truth <= d.upper
                width[i] += d.upper - d.lower
        cells = " | ".join(f"{h / logs:.3f}/{w / logs:.3f}" for h, w in zip(hits, width, strict=True))
        print(f"| {rows:,} | {moved:g} | {cells} |", flush=True)


def assisted(logs: int, seed: int) -> None:
    """Model-assisted intervals beside the default, in the cells of the coverage study."""
    models: Mapping[str, Callable[[Floats], Floats]] = {
        "right": lambda mean: mean,
        "useless, .1 for all": lambda mean: np.full_like(mean, 0.1),
        "misleading, .05 for all": lambda mean: np.full_like(mean, 0.05),
        "half as much": lambda mean: 0.5 * mean,
    }
    cells = _ope_worlds.CELLS
    print(f"\nModel-assisted intervals, nominal 95 %, {logs} logs, seed {seed}: coverage / mean width\n")
    print("| q_hat | " + " | ".join(f"n={n:,}, D={d:g}" for n, d in cells) + " |\n|---|---|---|---|")
    lines: dict[str, list[str]] = {name: [] for name in (*models, "default (empirical likelihood), right")}
    for n, difference in cells:
        root = np.random.default_rng([seed, n, int(100 * difference)])
        world = _ope_worlds.make_world(difference, root)
        sums = {name: np.zeros(2) for name in lines}
        for rng in root.spawn(logs):
            context = rng.integers(0, _ope_worlds.CONTEXTS, n)
            explore = rng.random(n) < _ope_worlds.LOG_EPSILON
            action = np.where(explore, rng.integers(0, _ope_worlds.ACTIONS, n), world.logged[context])
            rate = _ope_worlds.LOG_EPSILON
            propensity = rate / _ope_worlds.ACTIONS + (1 - rate) * (action == world.logged[context])
            reward = (rng.random(n) < world.mean[context, action]).astype(np.float64)
            pmf = _ope_worlds.pmf(world.target[context], _ope_worlds.TARGET_EPSILON)
            data = LoggedChoices(reward, action, propensity, pmf)
            for name in lines:
                interval = "model_assisted" if name in models else "empirical_likelihood"
                model = models.get(name, models["right"])
                terms = dr(replace(data, q_hat=model(world.mean)[context]))
                lower, upper = INTERVALS[interval](terms, Setting(rng=rng))
                sums[name] += (lower <= world.truth <= upper, upper - lower)
        for name, total in sums.items():
            lines[name].append(f"{total[0] / logs:.3f}/{total[1] / logs:.3f}")
    for name, found in lines.items():
        print(f"| {name} | {' | '.join(found)} |", flush=True)


def slices(logs: int, seed: int, pages: int = 2_000) -> None:
    """Coverage of a slice and of another reward under the target policy, against pages drawn by the target itself."""
    print(f"\nSlices and other rewards on pages, {logs} logs of {pages:,} pages, seed {seed}\n")
    print("| world | what | truth | bias | coverage | half width |\n|---|---|---|---|---|---|")
    for name in ("W1", "W3"):
        world = page_worlds.WORLDS[name]
        found: dict[str, list[tuple[float, float, float]]] = {"slice, a third": [], "another reward": []}
        truth = _truth(world, seed)
        for rng in np.random.default_rng([seed, 7]).spawn(logs):
            data = page_worlds.logged(world, pages, rng)
            terms = exposure_dr(data)
            if terms.fit is None or terms.page_weight is None:
                raise RuntimeError("exposure_dr gave no fit")
            some, b = data.user % 3 == 0, len(data)
            every = np.concatenate([np.ones((b, 1)), slice_terms(terms.fit), np.zeros((b, 1))], axis=1)[some]
            sums = Listeners.of(data.user[some]).sums(every)
            facts = weight_facts(terms.page_weight[some], terms.fit.reward[some])
            estimate = estimate_slice(slice_spread(sums[:, 1:4], sums[:, 0], sums[:, 4]), facts)
            found["slice, a third"].append((estimate.value, estimate.lower, estimate.upper))
            minutes = data.reward * _minutes(data.rows) * rng.exponential(1, data.reward.shape)
            y, z = outcome_terms(terms.fit, [minutes]).T
            spread = outcome_spread(Spread(terms.value, terms.influence, data.user), y, z)
            found["another reward"].append((spread.value, *student(spread, PageSetting())))
        for what, rows in found.items():
            value, lower, upper = np.array(rows).T
            true = truth[what]
            inside = (lower <= true) & (true <= upper)
            print(
                f"| {name} | {what} | {true:.3f} | {value.mean() / true - 1:+.3f} | {inside.mean():.3f} |"
                f" {(upper - lower).mean() / 2 / true:.3f} |",
                flush=True,
            )


def _truth(world: page_worlds.World, seed: int, pages: int = 40_000) -> dict[str, float]:
    """Both values under the target policy, by pages that it draws (relative standard error below 1 %)."""
    rng = np.random.default_rng([seed, 99])
    streams = minutes = 0.0
    for _ in range(pages // 4_000):
        v = page_worlds.visits(world, 4_000, rng)
        shelf, card, _, _ = page_worlds.draw(world, v.target, world.target_epsilon, rng)
        p = page_worlds._trusted(world, page_worlds._shown(v.appeal, shelf, card))
        _, streamed = page_worlds.browse(world, p, v.patience, rng)
        streams += float(streamed.sum())
        minutes += float((streamed * _minutes(world.rows)).sum())
    return {"slice, a third": streams / pages, "another reward": minutes / pages}


def _minutes(rows: int) -> Floats:
    """[1, rows, 1] mean minutes of a stream: longer in the first rows, so no multiple of the streams."""
    out: Floats = (3.0 - 0.3 * np.arange(rows))[None, :, None]
    return out


STUDIES = {
    "best": best,
    "discoveries": discoveries,
    "differences": differences,
    "assisted": assisted,
    "slices": slices,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", action="append", choices=STUDIES, help="all where none is named")
    parser.add_argument("--logs", type=int, default=500, help="logs a cell (a tenth of it for slices)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.study or STUDIES:
        STUDIES[name](options.logs // 10 if name == "slices" and not options.study else options.logs, options.seed)


if __name__ == "__main__":
    main()
