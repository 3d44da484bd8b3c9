"""A redis-server of one's own on a free port, with an append-only file; for tests and benchmarks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path


def why_absent() -> str:
    """Why tests with Redis cannot run here; "" where they can."""
    try:
        import redis  # noqa: F401
    except ImportError:
        return "the Python package redis is not installed (pip install 'bart-home[redis]')"
    return "" if shutil.which("redis-server") else "redis-server is not installed (apt-get install redis-server)"


class RedisServer:
    """Starts at once; `kill` is SIGKILL, `start` begins again on the same port and files."""

    def __init__(self, directory: Path, fsync: str = "always") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._fsync = fsync
        with socket.socket() as asked:
            asked.bind(("127.0.0.1", 0))
            self.port = int(asked.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = {
            "port": self.port, "bind": "127.0.0.1", "dir": self.directory, "appendonly": "yes",
            "appendfsync": self._fsync, "save": "", "logfile": self.directory / "redis.log",
        }  # fmt: skip
        command = ["redis-server", *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        import redis

        client = redis.Redis.from_url(self.url)
        until = time.monotonic() + 30
        while True:
            try:
                client.ping()
                break
            except redis.RedisError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError(f"redis-server does not answer, see {self.directory}/redis.log") from None
                time.sleep(0.02)
        client.close()

    def kill(self) -> None:
        """SIGKILL: nothing is written at the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    close = kill
