"""A benchmark or a command against another commit: ratios, what is counted, what is left behind."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from scipy import stats

from benchmarks.against import Run, against, asked, figures, missing, ratio, report, run_in, to_run, worktree

OF_THE_TREE = "import bart, sys; print(bart.__file__)"


def in_git() -> bool:
    return (
        subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, check=False).returncode == 0
    )


needs_git = pytest.mark.skipif(not in_git(), reason="not a git checkout, so there is no other commit")
needs_safe_path = pytest.mark.skipif(sys.version_info < (3, 11), reason="against needs Python 3.11")


def test_a_ratio_is_the_geometric_mean_with_students_interval() -> None:
    pairs = [(2.0, 1.0), (3.0, 2.1), (5.0, 2.2)]
    logs = np.log([second / first for first, second in pairs])
    lower, upper = stats.t.interval(0.95, 2, loc=logs.mean(), scale=logs.std(ddof=1) / math.sqrt(3))
    found = ratio(pairs)
    assert (found.value, found.lower, found.upper) == pytest.approx(tuple(np.exp([logs.mean(), lower, upper])))


def test_equal_sides_have_the_ratio_one_and_no_width() -> None:
    lines = report([(Run(2.0, 100.0, ""), Run(2.0, 100.0, ""))] * 3, "v1")
    assert [line for line in lines if "1.000 [1.000, 1.000]" in line] == lines[1:]


def test_figures_that_move_become_ratios_and_sizes_stay() -> None:
    printed = [("1,000 pages: 4.0 ms\n", "1,000 pages: 2.0 ms\n"), ("1,000 pages: 8.0 ms\n", "1,000 pages: 4.0 ms\n")]
    assert figures(printed) == ["1,000 pages: 0.500 [0.500, 0.500] ms"]


def test_lines_that_only_one_side_prints_are_left_out() -> None:
    assert figures([("old 1 ms\nboth 2 ms\n", "new 1 ms\nboth 1 ms\n")] * 2) == ["both 0.500 [0.500, 0.500] ms"]


def test_a_commit_names_the_packages_that_it_needs_and_that_are_not_here(tmp_path: Path) -> None:
    needs = 'dependencies = ["NumPy>=1", "no_such-package[extra]>=2", "of-windows; sys_platform == \'win32\'"]'
    (tmp_path / "pyproject.toml").write_text(f"[project]\n{needs}\n")
    assert missing(tmp_path) == ["no_such-package"]


def test_the_cpu_of_children_counts_even_when_nobody_waited_for_them() -> None:
    work = "n = 0\nfor k in range(4_000_000): n += k"
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    alone, left = (run_in(ROOT, [sys.executable, "-c", code], "here").cpu_s for code in ("pass", orphan))
    assert left > 2 * alone


@needs_safe_path
def test_each_side_runs_its_own_packages_wherever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bart").mkdir()
    (tmp_path / "bart" / "__init__.py").touch()
    monkeypatch.chdir(ROOT)
    assert str(tmp_path) in run_in(tmp_path, [sys.executable, "-c", OF_THE_TREE], "there").printed


def test_variables_that_slow_down_numpy_are_unset_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    printed = run_in(ROOT, [sys.executable, "-c", "import os; print(*os.environ)"], "here").printed
    assert "OPENBLAS" not in printed


def test_a_run_that_fails_says_its_last_lines() -> None:
    with pytest.raises(RuntimeError, match=r"there: .*exited 3:\nno such log"):
        run_in(ROOT, [sys.executable, "-c", "import sys; print('no such log', file=sys.stderr); sys.exit(3)"], "there")


@needs_git
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_worktree_goes_whatever_happens(error: type[BaseException]) -> None:
    with pytest.raises(error), worktree("HEAD") as tree:
        assert (tree / "bart" / "__init__.py").is_file()
        raise error
    listed = subprocess.run(["git", "-C", str(ROOT), "worktree", "list"], capture_output=True, text=True, check=True)
    assert not tree.parent.exists()
    assert str(tree) not in listed.stdout


@needs_git
@needs_safe_path
def test_two_pairs_of_a_command_print_cpu_and_memory(capfd: pytest.CaptureFixture[str]) -> None:
    assert against(["HEAD", "--pairs", "2", "--", "python", "-c", OF_THE_TREE]) == 0
    out = capfd.readouterr().out
    assert "CPU time" in out
    assert "peak memory" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["HEAD"], "expected REV"),
        (["HEAD", "--"], "expected REV"),
        (["HEAD", "--pairs", "1", "ranking"], "from 2"),
        (["HEAD", "--pairs"], "from 2"),
        (["HEAD", "--pears", "3", "ranking"], "expected REV"),
    ],
)
def test_what_is_missing_is_said_before_anything_runs(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        asked(arguments)


def test_a_benchmark_that_the_other_commit_has_not_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="v1 has no benchmark 'ranking'"):
        to_run(tmp_path, "v1", ["ranking"])
    assert to_run(ROOT, "here", ["ranking", "--rankings", "9"])[1:] == [
        os.path.join(ROOT, "benchmarks", "ranking.py"),
        "--rankings",
        "9",
    ]
