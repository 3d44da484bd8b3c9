"""Runs of the arena: every entry on every log, a line of JSON an answer, kept so that a stopped run goes on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.arena.entries import checked, entry_named, version_of
from simulator.arena.logs import arena_log
from simulator.arena.tasks import LOGGING, TARGETS, VERSION, WORLDS
from simulator.arena.truth import truths


@dataclass(frozen=True, slots=True)
class Task:
    """One log and the entries that are to read it."""

    seed: int
    world: str
    logging: str
    entries: tuple[str, ...]


def answers(task: Task) -> list[dict[str, Any]]:
    """What the entries say of every target on one log. cpu_s: of the process, for all that the entry did."""
    log, rows = arena_log(task.world, task.logging, task.seed), []
    for name in task.entries:
        entry, entry_version = entry_named(name), version_of(name)
        for target in log.targets:
            begun = time.process_time()
            try:
                answer = checked(name, entry(log, target))
            except Exception as error:  # it is somebody else's code
                where = f"{task.world}, {task.logging}, seed {task.seed}, target {target.number}"
                raise ValueError(f"{name} failed on {where}: {type(error).__name__}: {error}") from error
            rows.append(
                {
                    "version": VERSION,
                    "entry": name,
                    "entry_version": entry_version,
                    "seed": task.seed,
                    "world": task.world,
                    "logging": task.logging,
                    "target": target.number,
                    "truth": float(truths().value[task.world][target.number]),
                    "value": float(answer.value),
                    "lower": None if answer.lower is None else float(answer.lower),
                    "upper": None if answer.upper is None else float(answer.upper),
                    "conclusive": bool(answer.conclusive),
                    "cpu_s": time.process_time() - begun,
                }
            )
    return rows


def run(
    entries: Sequence[str],
    seeds: Sequence[int],
    path: Path,
    jobs: int = 1,
    on_done: Callable[[int, int], None] | None = None,
    worlds: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """All answers for the seeds, those in the file included; new ones are added to it, log by log.

    Answers of another version of an entry (`version_of`) stay in the file and count as not given. jobs: processes.
    worlds: some of `WORLDS`; all where None. on_done: called with (logs done, logs to do). Raises
    ValueError for an entry or world that is none, or a file of another version.
    """
    for world in worlds or ():
        if world not in WORLDS:
            raise ValueError(f"world is {world!r}; expected some of {', '.join(WORLDS)}")
    for name in entries:
        entry_named(name)
    now = {name: version_of(name) for name in entries}
    held = [row for row in rows_of(path) if now.get(row["entry"]) == row["entry_version"]]
    have = {(row["seed"], row["world"], row["logging"], row["entry"]) for row in held}
    tasks = []
    for seed in seeds:
        for world in worlds or WORLDS:
            for logging in LOGGING:
                left = tuple(name for name in entries if (seed, world, logging, name) not in have)
                if left:
                    tasks.append(Task(seed, world, logging, left))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for done, rows in enumerate(_each(tasks, jobs), 1):
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            held += rows
            if on_done is not None:
                on_done(done, len(tasks))
    wanted: dict[str, set[Any]] = {"seed": set(seeds), "entry": set(entries), "world": set(worlds or WORLDS)}
    return [row for row in held if all(row[key] in among for key, among in wanted.items())]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Answers of a file, of logs that were read to their end; none where there is no file."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    other = {row["version"] for row in rows} - {VERSION}
    if other:
        raise ValueError(f"{path} is of the arena's version {', '.join(sorted(other))}; expected {VERSION}")
    count = Counter(map(_log_of, rows))
    return [row for row in rows if count[_log_of(row)] == len(TARGETS)]


def _log_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("seed", "world", "logging", "entry", "entry_version"))


def _each(tasks: list[Task], jobs: int) -> Iterator[list[dict[str, Any]]]:
    if jobs <= 1 or len(tasks) < 2:
        yield from map(answers, tasks)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Threads of numerical libraries do not survive a fork: every process starts anew.
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(answers, tasks, chunksize=len(LOGGING))  # logs of a world and seed share their visits
