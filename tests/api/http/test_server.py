"""`bart serve` as a process of its own: real sockets, real signals, and the log that is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from api.http.server import HEALTHCHECK_S
from bart.log.care.verify import verify


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def command(run: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "api.cli", "serve", "--run", str(run), "--port", str(port)]


@contextmanager
def serving(
    run: Path, *options: str, configured: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port, once it answers."""
    port = free_port()
    process = subprocess.Popen(
        [*command(run, port), *options], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(configured or {})},
    )  # fmt: skip
    try:
        wait_for(process, port)
        yield process, port
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


def runs(pid: str) -> bool:
    """Whether a process has not ended; of one that nobody has waited for yet the command is gone."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def wait_for(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.fail(f"the server ended: {process.communicate()[1]}")
        try:
            if ask(port, "GET", "/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the server does not answer")


def workers(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def ask(port: int, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_server_in_order_with_everything_logged(small_run: Path, number: signal.Signals) -> None:
    with serving(small_run) as (process, port):
        pages = [ask(port, "POST", "/v1/home", {"user_id": f"listener-{i:02d}"})[1] for i in range(5)]
        event = {"event_id": "1", "row": 0, "column": 0, "listened_s": 31.0}
        status, answer = ask(port, "POST", "/v1/feedback", {"request_id": pages[0]["request_id"], "events": [event]})
        assert (status, answer["accepted"]) == (202, 1)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert err == ""
    assert f"http://127.0.0.1:{port}/" in out
    assert not (small_run / "log.sqlite-wal").exists()  # closed in order: everything is in the one file
    found = verify(small_run / "log.sqlite")
    assert found.ok
    assert found.verified == 5
    with sqlite3.connect(small_run / "log.sqlite") as log:
        assert log.execute("SELECT listened_s FROM feedback").fetchall() == [(31.0,)]
    log.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_address_is_told_when_it_answers(small_run: Path, workers: str) -> None:
    port = free_port()
    with subprocess.Popen(
        [*command(small_run, port), "--workers", workers], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            link, _, key = process.stdout.readline().split()[3].partition("#key=")
            assert link == f"http://127.0.0.1:{port}/"
            assert key == (small_run / "admin.key").read_text().strip()
            assert ask(port, "POST", "/v1/home", {"user_id": "listener-01"})[0] == 200
            assert ask(port, "GET", "/v1/control")[0] == 401
            assert [ask(port, "GET", "/v1/control", key=key)[0] for _ in range(6)] == [200] * 6  # every worker knows it
        finally:
            process.terminate()


def test_a_configured_key_is_not_printed(small_run: Path) -> None:
    with serving(small_run, configured={"BART_SERVE__ADMIN_KEY": "correct horse"}) as (process, port):
        assert ask(port, "GET", "/v1/control", key="correct horse")[0] == 200
        process.terminate()
        out = process.communicate(timeout=30)[0]
    assert f"http://127.0.0.1:{port}/ " in out
    assert "horse" not in out
    assert not (small_run / "admin.key").exists()


def test_a_killed_server_loses_no_page_that_it_answered(small_run: Path) -> None:
    with serving(small_run) as (process, port):
        pages = [ask(port, "POST", "/v1/home", {"user_id": f"listener-{i:02d}"})[1] for i in range(5)]
        process.kill()
        process.wait(30)
    found = verify(small_run / "log.sqlite")
    assert found.ok
    with sqlite3.connect(small_run / "log.sqlite") as log:
        known = {request_id for (request_id,) in log.execute("SELECT request_id FROM decision")}
    log.close()
    assert {page["request_id"] for page in pages} <= known


def test_a_killed_worker_is_replaced_and_no_answered_page_is_lost(small_run: Path) -> None:
    answered = []
    with serving(small_run, "--workers", "2") as (process, port):
        killed = workers(process)[0]
        os.kill(killed, signal.SIGKILL)
        until = time.monotonic() + 60
        while (
            killed in workers(process) or len(workers(process)) < 2 or len(answered) < 20
        ) and time.monotonic() < until:
            try:
                answered.append(ask(port, "POST", "/v1/home", {"user_id": "listener-01"})[1]["request_id"])
            except OSError:  # it was with the worker that died
                time.sleep(0.05)
        assert len(workers(process)) == 2
        assert killed not in workers(process)
    found = verify(small_run / "log.sqlite")
    assert found.ok
    with sqlite3.connect(small_run / "log.sqlite") as log:
        known = {request_id for (request_id,) in log.execute("SELECT request_id FROM decision")}
    log.close()
    assert set(answered) <= known


def test_a_worker_that_dies_with_a_health_check_unanswered_is_found_before_the_check_times_out(
    small_run: Path,
) -> None:
    with serving(small_run, "--workers", "2") as (process, _):
        worker = workers(process)[0]
        os.kill(worker, signal.SIGSTOP)
        time.sleep(2)  # workers are asked every half second
        os.kill(worker, signal.SIGKILL)
        until = time.monotonic() + HEALTHCHECK_S / 2
        while Path(f"/proc/{worker}").exists() and time.monotonic() < until:  # until its supervisor has seen it end
            time.sleep(0.1)
        assert not Path(f"/proc/{worker}").exists()


def test_workers_of_a_killed_supervisor_end_and_the_next_server_gets_the_port(small_run: Path) -> None:
    with serving(small_run, "--workers", "2") as (process, port):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        until = time.monotonic() + 60
        while (left := [child for child in children if runs(child)]) and time.monotonic() < until:
            time.sleep(0.1)
        assert len(children) >= 2
        assert not left
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
    assert verify(small_run / "log.sqlite").ok


def test_a_client_that_breaks_off_disturbs_nobody(small_run: Path) -> None:
    with serving(small_run) as (process, port):
        head = b"POST /v1/home HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
        for sent in (b"\x00\xff garbage\r\n\r\n", head, head + b'\r\n{"user_id": "list'):
            with socket.create_connection(("127.0.0.1", port)) as broken:
                broken.sendall(sent)
        assert ask(port, "POST", "/v1/home", {"user_id": "listener-00"})[0] == 200
        process.terminate()
        assert "Traceback" not in process.communicate(timeout=30)[1]


def test_mistakes_are_one_line_and_exit_2(small_run: Path, tmp_path: Path) -> None:
    def fails(run: Path, port: int) -> str:
        done = subprocess.run(command(run, port), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        return done.stderr

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1 cannot be used" in fails(small_run, port)
    assert "does not exist; expected a run" in fails(tmp_path / "nothing", free_port())
    (small_run / "bundle" / "manifest.json").unlink()
    assert "manifest.json is missing" in fails(small_run, free_port())
    assert not (small_run / "log.sqlite").exists()
