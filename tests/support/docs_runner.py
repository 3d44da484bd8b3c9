"""Runs the code blocks of documentation pages, one process for all: a page a line comes in, its outcome goes out.

Started by tests/docs/test_blocks.py. Commands of `bart` run in this process, so that its imports are paid for once; a
block with anything else in it runs in bash, Python blocks of a page share their names. Each page has a folder of its
own.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from places import ROOT

sys.path.insert(0, str(ROOT / "docs"))

from blocks import Block, blocks

PORTS = ("8000", "8001", "6379")  # those that pages speak of; a free one is taken instead
WAIT_S = 120


class PageError(Exception):
    """A block that does not do what its page says."""


class Skipped(Exception):
    """What a block needs is not on this machine."""


class Runner:
    """What the blocks of one page share: the folder, Python names, servers that run, what was printed last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__docs__"}
        self.servers: list[subprocess.Popen[bytes]] = []
        self.printed = ""
        self.ports = {port: str(_free_port()) for port in PORTS}

    def run(self, block: Block) -> None:
        """Does what the mark of the block says."""
        text = block.text
        for told, free in self.ports.items():
            text = re.sub(rf"\b{told}\b", free, text)
        if block.mark == "file":
            self._write(self.folder / block.note, text)
        elif block.mark == "serve":
            self._serve(text)
        elif block.mark == "output":
            self._compare(text)
        elif block.mark == "run":
            expected = [int(code) for code in re.findall(r"\d", block.note)] or [0]
            out = io.StringIO()
            with redirect_stdout(out), redirect_stderr(out):
                code = self._execute(block.language, text)
            self.printed = out.getvalue()
            if code not in expected:
                raise PageError(f"exit {code}; expected {' or '.join(map(str, expected))}\n{self.printed}")

    def close(self) -> None:
        """Ends what the page started."""
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.wait(30)

    def _execute(self, language: str, text: str) -> int:
        if language == "python":
            exec(compile(text, "<block>", "exec"), self.names)
            return 0
        if language == "toml":
            self._settings(text)
            return 0
        lines = [line for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]
        if all(line.startswith(("bart ", "#")) and not re.search(r"[|>$`]", line) for line in lines):
            for line in lines:
                code = _bart(shlex.split(line, comments=True)[1:])
                if code:
                    return code
            return 0
        return self._bash(text)

    def _bash(self, text: str) -> int:
        text = re.sub(r"\bcurl ", "curl --fail-with-body ", text)
        if "curl" in text and shutil.which("curl") is None:
            raise Skipped("curl is not installed")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            capture_output=True,
            text=True,
            env=self._environment(),
            check=False,
        )
        sys.stdout.write(done.stdout + done.stderr)
        return done.returncode

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), *_added(self.folder)])}

    def _serve(self, text: str) -> None:
        command = shlex.split(text, comments=True)
        if command[0] == "bart":
            command += [] if "--port" in command else ["--port", self.ports["8000"]]
            command[:1] = [sys.executable, "-m", "api.cli"]
        elif shutil.which(command[0]) is None:
            raise Skipped(f"{command[0]} is not installed")
        log = (self.folder / "server.log").open("ab")
        self.servers.append(
            subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self._environment(), cwd=self.folder)
        )
        port = next(free for free in self.ports.values() if free in command)
        until = time.monotonic() + WAIT_S
        while not _answers(int(port), http="api.cli" in command):
            if self.servers[-1].poll() is not None or time.monotonic() > until:
                raise PageError(f"does not answer\n{(self.folder / 'server.log').read_text()[-3000:]}")
            time.sleep(0.1)

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.name == "pyproject.toml":
            _install(path)
        elif path.suffix == ".toml":
            self._settings(text)

    def _settings(self, text: str) -> None:
        from api.run.settings import load_settings

        file = self.folder / ".settings.toml"
        file.write_text(text)
        load_settings(file=file)

    def _compare(self, text: str) -> None:
        pattern = ".*?".join(re.escape(part) for part in _words(text).split("..."))
        if not re.search(pattern, _words(self.printed), flags=re.DOTALL):
            raise PageError(f"printed\n{self.printed}\nthe page says\n{text}")


def run_page(page: Path, folder: Path) -> dict[str, Any]:
    """What became of the page: how many blocks were run, and the first that failed."""
    os.chdir(folder)
    runner, done = Runner(folder), 0
    try:
        for block in blocks(page.read_text()):
            try:
                runner.run(block)
                done += block.mark in ("run", "serve", "output", "file")
            except Skipped as error:
                return {"done": done, "skipped": f"{page.name}:{block.line}: {error}"}
            except BaseException as error:  # whatever a block does, the next page is to be run
                told = str(error) if isinstance(error, PageError) else traceback.format_exc()
                return {"done": done, "error": f"{page.name}:{block.line}\n{block.text}\n{told}\n{runner.printed}"}
        return {"done": done}
    finally:
        runner.close()
        os.chdir(ROOT)


def _bart(arguments: list[str]) -> int:
    from api.cli import main

    try:
        main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def _install(pyproject: Path) -> None:
    """What `pip install` does for a package of pure Python, without a build: its entry points, and the path to it."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    project = tomllib.loads(pyproject.read_text())["project"]
    info = pyproject.parent / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    sys.path.insert(0, str(pyproject.parent))


def _added(folder: Path) -> list[str]:
    return [path for path in sys.path if path.startswith(str(folder))]


def _words(text: str) -> str:
    return " ".join(text.replace("...", " ... ").split())


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(port: int, http: bool) -> bool:
    try:
        if http:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def main() -> None:
    """Answers each line {page, folder} on standard input with a line of its outcome."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints past sys.stdout does not disturb the answers
    for line in sys.stdin:
        asked = json.loads(line)
        before = list(sys.path)
        found = run_page(Path(asked["page"]), Path(asked["folder"]))
        sys.path[:] = before
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
