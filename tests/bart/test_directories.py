"""What takes the place of a file or a directory, killed between any two steps: one of the two is there, whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bart import directories
from bart.directories import given_back, replace_directory


def made(path: Path, text: str, folder: bool) -> Path:
    if folder:
        path.mkdir()
    (path / "one" if folder else path).write_text(text)
    return path


def text_of(path: Path) -> str:
    return (path / "one" if path.is_dir() else path).read_text()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize(("old", "new"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_what_a_killed_replacement_leaves_is_the_old_or_the_new(
    old: bool, new: bool, exchanges: bool, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, beside = made(tmp_path / "name", "old", old), made(tmp_path / "beside", "new", new)
    left = steps
    if not exchanges:
        monkeypatch.setattr(directories, "exchange", lambda *_: False)

    def killing(name: str, patched: pytest.MonkeyPatch) -> None:
        step = getattr(os, name)

        def counted(*arguments: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            step(*arguments)

        patched.setattr(os, name, counted)

    with monkeypatch.context() as patched:
        killing("rename", patched)
        killing("replace", patched)
        try:
            replace_directory(beside, path)
        except Killed:
            assert path.exists() or (not exchanges and (old or new))
        patched.undo()
    given_back(path)
    found = text_of(path)
    assert found in ("old", "new")
    assert found == "old" or not list(tmp_path.glob(".*"))
    if steps == 3:
        assert found == "new"
        assert list(tmp_path.iterdir()) == [path]
