"""Evaluating an exported log of pages: the job behind `bart evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError

if TYPE_CHECKING:
    from api.evaluate.page_kernel import PageKernel
    from api.run.listening import Listening
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.ope.comparison.evaluation import Common
    from bart.ope.engine.run import Engine
    from bart.ope.engine.sums import Statistics
    from bart.ope.policies.choices import Asked


def evaluate_log(
    log: Path,
    policies: Sequence[str],
    settings: Settings,
    out: Path | None,
    stages: Stages,
    since: datetime | None = None,
    *,
    scores: Sequence[str] = (),
    most_missing: float = 0.1,
    estimators: Sequence[str] = (),
    everything: bool = False,
    interval: str | None = None,
    level: float | None = None,
    events: Listening | None = None,
    engine: Engine | None = None,
    block_candidates: int | None = None,
    pins: bool = True,
) -> dict[str, Any]:
    """Estimates for each policy on the pages of an exported log, and the report where `out` is given.

    policies: BUNDLE[:epsilon], popularity[:epsilon] or logging; scores: [NAME=]FILE[:epsilon], tables of request_id,
    item_id, score, which may lack at most the share `most_missing` of the candidates. Without any, the logging policy
    and popularity are estimated. since: only pages decided from then on, such as those that a model has not learnt
    from. Items are those of the first bundle named that is of the log's batch, else of the run that the log stands in.
    estimators: NAME[:parameter=number] (the recommended ones where empty), or everything. events: listening from which
    a bundle of another batch computes vectors. engine: where the log is summed up, this process
    where None; all give the same numbers. block_candidates: a larger log is summed up in blocks of so many. pins:
    whether the policies keep the pins; where not, pages that hold some are left out, and it is said.
    Raises DataError or BundleError with what was expected.
    """
    from api.evaluate.adaptive import adaptive_facts, doubted, taught, undecided
    from api.evaluate.page_kernel import (
        AT_ONCE,
        BLOCK_CANDIDATES,
        Named,
        PageKernel,
        blocks_of,
        forget,
        opened,
        streams,
    )
    from api.evaluate.pins import REASON, of_the_others
    from api.evaluate.policies import parse_policy
    from bart.log.outcomes.pages import largest_page, recorded_reward
    from bart.log.store.files import export_files
    from bart.log.store.imported import read_left_out
    from bart.ope.comparison.evaluation import Question, asked_of, policy_row, summed_log
    from bart.ope.engine.run import HERE, kept
    from bart.ope.inputs.left_out import missing_outcomes
    from bart.ope.policies.choices import parse_estimator
    from bart.ope.report.estimand import PAGES
    from bart.ope.report.report import write_report
    from bart.ope.report.text import main_estimate
    from bart.reward.rewards import find_reward

    if not log.is_dir():
        raise DataError(f"{log} is not a directory; expected an exported log (bart log export)")
    asked = [parse_estimator(text) for text in estimators]
    kinds = page_estimators(asked, everything)
    level = settings.evaluation.level if level is None else level
    engine = engine or HERE
    tick = stages.stage("Opening bundles and scores")
    wanted = [parse_policy(text) for text in policies] or ([] if scores else [("popularity", 0.0)])
    named = Named(
        log.absolute(),
        Path.cwd(),
        tuple(wanted),
        tuple(scores),
        None if events is None else replace(events, path=events.path.absolute()),
        settings,
    )
    forget()
    # What cannot be opened is refused before a worker starts.
    names = [policy.name for policy in opened(named).policies]
    tick(1, 1)
    files = export_files(log)
    if not files:
        raise DataError(f"{log} holds no exported pages; expected date=YYYY-MM-DD/part-*.parquet")
    blocks, pages = blocks_of(files, block_candidates or AT_ONCE, block_candidates or BLOCK_CANDIDATES)
    check_interval(interval, len(blocks))
    kernel = PageKernel(
        named,
        Question(
            asked_of(kinds, {each.name: each.parameters for each in asked}),
            compared=True,
            jackknife=level if interval == "jackknife" else None,
            columns=(shape := largest_page(files))[1],
        ),
        shape,
        since,
        settings.seed,
        pages,
        len(blocks),
        (reward := recorded_reward(log), find_reward(reward)),
        pins=pins,
    )
    empty = f"{log} holds no closed page{' in the time asked for' if since else ''}; expected an exported log with "
    with kept(engine):
        passes = _Passes(kernel, blocks, engine, stages, most_missing)
        found = summed_log(passes.run, names, kernel.question, len(blocks), f"{empty}feedback windows closed")
    *each, own = streams(settings.seed, len(names), None)
    learnt = taught(found.found, opened(named).policies)
    unsupported = of_the_others(found.left_out().get(REASON, 0), int(found.found.total("pages")), names)
    not_imported = read_left_out(log)
    missing = missing_outcomes({}, not_imported.reasons, not_imported.rows)
    estimates = doubted(doubted(found.rows(each, level, interval), unsupported), learnt)
    estimates = doubted(estimates, {name: words for words in missing for name in names})
    rows = [policy_row(name, estimates[name], found.policies[name].weights()) for name in names]
    for row in rows:
        of_row = found.policies[row["name"]]
        for each in row["estimates"]:
            row["estimates"][each]["pareto_k"] = of_row.tail(each)
        if row["name"] != "logging":
            row["sensitivity"] = {"factor": of_row.turning_factor()}
    sums, verdicts = found.found, {row["name"]: main_estimate(row)[1]["verdict"] for row in rows}
    report = {
        "kind": "pages",
        "unit": "expected streams a page",
        "seed": settings.seed,
        "level": level,
        "policies": rows,
        "log": {
            "pages": int(sums.total("pages")),
            "seen": int(sums.total("seen")),
            "streams": sums.total("streams"),
        },
        "left_out": {**found.left_out(), **_repeated(pages, sums, since), **not_imported.reasons},
        "warnings": list(missing),
        "blocks": len(blocks),
        **_counted(sums, named),
        "listening": opened(named).told,
        "replay": None,
        "configuration": settings.as_dict(leave_out={"serve"}),
        "adaptive": adaptive_facts(log, since),
        "note": PAGES + _about_pins(sums),
        "positions": _positions(sums, shape),
        "shelves": _shelves(sums),
        **undecided(found.compared(own, verdicts, level), learnt),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report


class _Passes:
    """Passes over the blocks of a log, wherever they are summed up."""

    def __init__(self, kernel: PageKernel, blocks: Any, engine: Engine, stages: Stages, most_missing: float) -> None:
        self._kernel, self._blocks, self._engine, self._stages = kernel, blocks, engine, stages
        self._most_missing = most_missing

    def run(self, common: Common | None, name: str) -> Statistics:
        """The sums of all blocks. Raises DataError where too many candidates lack a score."""
        found = self._sums(common, name)
        if common is not None:
            return found
        if found.total("predicted: True") and found.total("predicted: False"):
            # Scores are probabilities in some blocks only: nobody reads them.
            self._kernel = replace(self._kernel, predicted=False)
            found = self._sums(None, f"{name}, without the logging policy's predictions")
        for scores in _opened(self._kernel).scores:
            scores.candidates, scores.missing = (
                int(found.total(f"scores {scores.name}/{what}")) for what in ("candidates", "missing")
            )
            scores.check(self._most_missing)
        return found

    def _sums(self, common: Common | None, name: str) -> Statistics:
        from bart.ope.engine.run import run_kernel

        tick = self._stages.stage(name)
        alone = self._engine.name is None and len(self._blocks) == 1
        kernel = replace(self._kernel, common=common, told=tick if alone else None)
        return run_kernel(kernel, self._blocks, self._engine, tick)


def _opened(kernel: PageKernel) -> Any:
    from api.evaluate.page_kernel import opened

    return opened(kernel.named)


def check_interval(interval: str | None, blocks: int) -> None:
    """Raises DataError for an interval that cannot be made."""
    from bart.ope.intervals.pages import PAGE_INTERVALS

    if interval is not None and interval not in PAGE_INTERVALS:
        raise DataError(f"--interval is {interval!r}; expected one of {', '.join(PAGE_INTERVALS)}")
    if interval == "jackknife" and blocks > 1:
        raise DataError(
            "the jackknife fits the whole log again and again; expected student, normal, studentised or percentile for"
            f" a log of {blocks} blocks"
        )


def page_estimators(asked: Sequence[Asked], everything: bool) -> dict[str, str]:
    """Estimators by the names they have in the report. Raises DataError for an unknown one."""
    from bart.ope.estimators.pages import PAGE_ESTIMATORS
    from bart.ope.policies.pages import PAGE_REPORT

    if everything:
        others = {name: name for name in PAGE_ESTIMATORS if name not in PAGE_REPORT.values()}
        return {**PAGE_REPORT, **others}
    if not asked:
        return dict(PAGE_REPORT)
    out = {}
    for each in asked:
        kind = each.name if each.name in PAGE_ESTIMATORS else PAGE_REPORT.get(each.name)
        if kind is None:
            known = ", ".join([*PAGE_ESTIMATORS, *(n for n in PAGE_REPORT if n not in PAGE_ESTIMATORS)])
            raise DataError(f"--estimator {each.name!r} is not known for pages; expected one of {known}")
        out[each.name] = kind
    return out


def _repeated(rows: int, found: Statistics, since: datetime | None) -> dict[str, int]:
    """Pages that the export holds more than once, where every page was asked for."""
    again = rows - int(found.total("pages"))
    return {"repeated": again} if since is None and again > 0 else {}


def _about_pins(found: Statistics) -> str:
    """Who has no support on pages with pins, where there are some."""
    count = int(found.total("with pins"))
    if not count:
        return ""
    return (
        f" {count:,} pages hold pinned cards, which stand there under every policy that keeps the pins: a policy"
        " without them has no support on these pages, and nothing here says what it would earn there."
    )


def _counted(found: Statistics, named: Any) -> dict[str, Any]:
    """Of outside scores and recomputed vectors, how many there were."""
    from api.evaluate.page_kernel import opened

    chosen = opened(named)
    return {
        "scores": [
            {"name": each.name, **{k: int(found.total(f"scores {each.name}/{k}")) for k in ("candidates", "missing")}}
            for each in chosen.scores
        ],
        "recomputed": [
            {
                "name": name,
                "pages": int(found.total(f"recomputed {name}/pages")),
                "without_listening": int(found.total(f"recomputed {name}/cold")),
            }
            for name in chosen.listening
        ],
    }


def _shelves(found: Statistics) -> list[dict[str, Any]]:
    from bart.ope.engine.listeners import by_listener
    from bart.ope.report.shelves import i2s_facts

    first = "/by listener 0"
    places = [name.removesuffix(first) for name in found.names() if name.startswith("shelf ") and name.endswith(first)]
    return i2s_facts((place.removeprefix("shelf "), by_listener(found, place)) for place in places)


def _positions(found: Statistics, shape: tuple[int, int]) -> dict[str, Any]:
    from bart.ope.report.report import position_shares

    sums = {}
    for name in [name for name in found.names() if name.startswith("position ")]:
        part, whole = found.values(name).reshape(2, -1)
        wide = shape if name in ("position seen", "position reward") else (-1,)
        sums[name.removeprefix("position ")] = part.reshape(wide), whole.reshape(wide)
    return position_shares(sums)


def evaluate_open_bandit(
    settings: Settings, out: Path | None, stages: Stages, data: Path | None = None, campaign: str = "all"
) -> dict[str, Any]:
    """Both directions of the Open Bandit sample; written to `out`/open_bandit.json where it is given.

    data: the data set's own folder instead of the sample, of which one campaign is read. Raises DataError.
    """
    import json

    from simulator.datasets.open_bandit.campaign import evaluate, evaluate_folder

    if data is None and campaign != "all":
        raise DataError(f"the sample holds the campaign all; expected --data FOLDER with --campaign {campaign}")
    tick = stages.stage("Open Bandit, both directions")
    rng, level = np.random.default_rng(settings.seed), settings.evaluation.level
    report = evaluate(rng, level) if data is None else evaluate_folder(data, campaign, rng, level)
    tick(1, 1)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draft = out / ".open_bandit.json.new"
        draft.write_text(json.dumps(report, indent=1) + "\n")
        draft.replace(out / "open_bandit.json")
    return report
