"""A benchmark or a command of this checkout against the same of another commit: ratios of CPU time and peak memory.

    python -m benchmarks against REV [--pairs 5] NAME [options of the benchmark]
    python -m benchmarks against REV [--pairs 5] -- bart evaluate RUN

REV is checked out into a temporary worktree and run by this Python with what is installed for it, in turns: REV, here,
REV, here. One turn of each goes before and is not counted: it fills the caches of compiled kernels. A ratio is here
over REV, below 1 where this checkout needs less: the geometric mean over the pairs, with Student's 95 % interval on
their log ratios. CPU is user and system time of the process and of all that descend from it. Peak memory is the largest
resident set of one of them: several processes side by side need more. Of a benchmark's own lines, those that stand in
every run alike but for their figures are printed with the ratio in place of each figure that moves.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
# Where these two are set, numpy may choose slower kernels; a figure must not depend on that.
SLOWER = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_FIGURE = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)|(?<![\w.])\.\d+")
_LINGER_S = 10.0  # what a command leaves behind (a Java machine that is shutting down) may take to end


@dataclass(frozen=True)
class Run:
    """What one run needed, and what it printed."""

    cpu_s: float
    peak_mb: float
    printed: str


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of ratios with its interval; without one (nan) where there is one pair."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def against(arguments: Sequence[str]) -> int:
    """Runs the comparison and prints it; exit code 0 done, 1 a run failed, 2 a mistake in what was asked for."""
    if not arguments or {"-h", "--help"} & set(arguments[:1]):
        print(__doc__)
        return 0 if arguments else 2
    try:
        rev, pairs, what = asked(arguments)
        if sys.version_info < (3, 11):
            raise ValueError(
                "against needs Python 3.11: before it, a folder cannot be kept from hiding the other commit"
            )
        with worktree(rev) as other:
            sides = [(rev, other, to_run(other, rev, what)), ("here", ROOT, to_run(ROOT, "this checkout", what))]
            found = measure(sides, pairs)
    except (ValueError, RuntimeError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print("\n".join(report(found, rev)))
    return 0


def asked(arguments: Sequence[str]) -> tuple[str, int, list[str]]:
    """The commit, how many pairs, and what to run: a benchmark with its options, or `--` and a command."""
    rev, *rest = arguments
    pairs = "5"
    if rest[:1] == ["--pairs"]:
        _, pairs, *rest = [*rest, ""]
        rest = rest[:-1]
    if not pairs.isdigit() or int(pairs) < 2:
        raise ValueError(f"--pairs is {pairs!r}; expected a whole number from 2, an interval needs two")
    if not rest or rest == ["--"] or (rest[0].startswith("-") and rest[0] != "--"):
        raise ValueError("expected REV [--pairs N], then the NAME of a benchmark with its options, or -- and a command")
    return rev, int(pairs), rest


@contextmanager
def worktree(rev: str) -> Iterator[Path]:
    """The files of a commit in a temporary folder, which goes whatever happens."""
    found = _git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
    if found.returncode:
        raise ValueError(f"no commit {rev!r} in {ROOT}")
    folder = Path(tempfile.mkdtemp(prefix="against_"))
    tree = folder / "tree"
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        added = _git("worktree", "add", "--quiet", "--detach", str(tree), found.stdout.strip())
        if added.returncode:
            raise RuntimeError(added.stderr.strip())
        if needed := missing(tree):
            names = " ".join(needed)
            raise ValueError(f"{rev} needs packages that are not here; for the comparison: pip install {names}")
        yield tree
    finally:
        removed = _git("worktree", "remove", "--force", str(tree))
        shutil.rmtree(folder, ignore_errors=True)
        if removed.returncode:
            _git("worktree", "prune")
        signal.signal(signal.SIGTERM, before)


def missing(tree: Path) -> list[str]:
    """Packages that the commit depends on, without its extras, and that are not installed."""
    asked = tomllib.loads((tree / "pyproject.toml").read_text()).get("project", {}).get("dependencies", [])
    needed = [found for found in map(Requirement, asked) if found.marker is None or found.marker.evaluate()]
    here = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    return [found.name for found in needed if canonicalize_name(found.name) not in here]


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)


def to_run(tree: Path, name: str, what: Sequence[str]) -> list[str]:
    """What to run of a tree: its own file of a benchmark, or a whole command."""
    if what[0] == "--":
        known = {"bart": [sys.executable, "-m", "api.cli"], "python": [sys.executable]}
        return [*known.get(what[1], [what[1]]), *what[2:]]
    file = tree / "benchmarks" / f"{what[0]}.py"
    if not file.is_file() or '__name__ == "__main__"' not in file.read_text():
        raise ValueError(
            f"{name} has no benchmark {what[0]!r}, and that of another commit would ask for modules that are not "
            "there; compare a whole command: against REV -- bart ..."
        )
    return [sys.executable, str(file), *what[1:]]


def measure(sides: Sequence[tuple[str, Path, Sequence[str]]], pairs: int) -> list[tuple[Run, Run]]:
    """Alternating runs of two sides, each a name, a tree and what to run, after one of each that is not counted."""
    found: list[list[Run]] = []
    for pair in range(pairs + 1):
        found.append([])
        for name, tree, argv in sides:
            run = run_in(tree, argv, name)
            found[-1].append(run)
            label = f"pair {pair}" if pair else "before"
            print(f"{label}: {name}: {run.cpu_s:.2f} s of CPU, {run.peak_mb:.0f} MB", file=sys.stderr)
    return [(first, second) for first, second in found[1:]]


def run_in(tree: Path, argv: Sequence[str], name: str) -> Run:
    """Runs one command with the packages of a tree and sums up what it and its descendants used.

    Raises RuntimeError with the last lines of its errors where it fails.
    """
    environment = {k: v for k, v in os.environ.items() if k not in SLOWER}
    # The packages of the tree before those of any other, and never those of the folder in which it is called.
    environment["PYTHONPATH"] = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment["PYTHONSAFEPATH"] = "1"
    _adopt_orphans()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(argv, env=environment, stdout=out, stderr=err, start_new_session=True)
        try:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu_s, peak = used.ru_utime + used.ru_stime, used.ru_maxrss
            for left in _others(process.pid):
                cpu_s += left.ru_utime + left.ru_stime
                peak = max(peak, left.ru_maxrss)
        except BaseException:
            _kill(process.pid)
            raise
        out.seek(0)
        err.seek(0)
        if process.returncode:
            last = "\n".join((err.read().strip() or out.read().strip()).splitlines()[-15:])
            raise RuntimeError(f"{name}: {' '.join(argv)} exited {process.returncode}:\n{last}")
        return Run(cpu_s, peak * (1 if sys.platform == "darwin" else 1024) / 1e6, out.read())


def _adopt_orphans() -> None:
    """On Linux, descendants whose parent has ended become children of this process, so that their CPU counts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _others(group: int) -> Iterator[resource.struct_rusage]:
    """What each process that the command left behind used; those that do not end are ended."""
    until = time.monotonic() + _LINGER_S
    while True:
        try:
            pid, _, used = os.wait4(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            yield used
        elif time.monotonic() > until:
            _kill(group)
            until = math.inf
        else:
            time.sleep(0.02)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """The second of each pair over the first: geometric mean, Student's 95 % interval on the log ratios."""
    from scipy.special import stdtrit  # after the runs: what this process holds is the least that a child of it shows

    logs = [math.log(second / first) for first, second in pairs]
    middle = statistics.fmean(logs)
    half = stdtrit(len(logs) - 1, 0.975) * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def report(pairs: Sequence[tuple[Run, Run]], rev: str) -> list[str]:
    """The lines that are printed: CPU, memory, then the benchmark's own figures."""
    lines = [f"here over {rev}, {len(pairs)} pairs, Student's 95 % interval on log ratios"]
    for label, unit, field in (("CPU time", "s", "cpu_s"), ("peak memory", "MB", "peak_mb")):
        both = [(getattr(first, field), getattr(second, field)) for first, second in pairs]
        old, new = (statistics.median(side) for side in zip(*both, strict=True))
        lines.append(f"{label:<12} {ratio(both)}   ({old:.2f} to {new:.2f} {unit}, medians)")
    return lines + figures([(first.printed, second.printed) for first, second in pairs])


def figures(printed: Sequence[tuple[str, str]]) -> list[str]:
    """Lines that all runs print alike but for figures, each positive figure that moves replaced by its ratio."""
    by_shape = [[_shapes(text) for text in pair] for pair in printed]
    lines = []
    for shape, template in by_shape[0][1].items():
        if not all(shape in side for pair in by_shape for side in pair):
            continue
        moved = iter(
            [
                _moved([(pair[0][shape][1][k], pair[1][shape][1][k]) for pair in by_shape])
                for k in range(len(template[1]))
            ]
        )
        line = _FIGURE.sub(lambda found, each=moved: next(each) or found.group(), template[0])
        if line != template[0]:
            lines.append(line)
    return lines


def _shapes(text: str) -> dict[tuple[str, int], tuple[str, list[float]]]:
    """The lines of a text by what stands around their figures and how often it stood before."""
    found: dict[tuple[str, int], tuple[str, list[float]]] = {}
    for line in text.splitlines():
        shape = " ".join(_FIGURE.sub("#", line).split())
        count = sum(known == shape for known, _ in found)
        found[shape, count] = line, [float(figure.replace(",", "")) for figure in _FIGURE.findall(line)]
    return found


def _moved(pairs: Sequence[tuple[float, float]]) -> str | None:
    """The ratio in words; nothing for a figure that is the same everywhere or that has no ratio."""
    values = {value for pair in pairs for value in pair}
    return str(ratio(pairs)) if len(values) > 1 and min(values) > 0 else None
