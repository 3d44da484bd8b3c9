"""A real browser for tests: Debian's Chromium, driven over a pipe by the DevTools protocol, nothing else needed.

Also what browser tests share: a served run, and what axe finds on a page.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
WAIT_S = 90  # only ever spent by what fails


class Page:
    """One tab."""

    def __init__(self, write: int, read: int, patience_s: float = WAIT_S) -> None:
        self._write, self._read, self._patience_s = write, read, patience_s
        self._number = 0
        self._rest = b""
        self.errors: list[str] = []
        self._session: str | None = None
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Loads a page at a size, in light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._call("Page.navigate", {"url": url})

    def sign_in(self, address: str, run: Path) -> None:
        """Gives the pages of an address the key that was made for the run, as the link of `bart serve` does."""
        key = (run / "admin.key").read_text().strip()
        self.open("about:blank")  # from the same page, another fragment would load nothing
        self.open(f"{address}/simulate#key={key}")
        self.wait("document.body?.dataset.ready === 'yes'")

    def run(self, script: str) -> Any:
        """The value of an expression (awaited where it is a promise)."""
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self._call("Runtime.evaluate", asked)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"]["exception"].get("description", script))
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression once it is true."""
        until = time.monotonic() + self._patience_s
        while time.monotonic() < until:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.05)
        told = self.run("document.getElementById('status')?.textContent")
        raise AssertionError(f"{script} stays false; the page says {told!r}; errors of the page: {self.errors}")

    def empty_cache(self) -> None:
        """Forgets what was fetched before."""
        self._call("Network.clearBrowserCache")

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element, as a hand would: what lies over it gets the click."""
        place = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center', inline: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", at)

    def press(self, key: str) -> None:
        """Presses one key, such as Tab or Escape."""
        code = {"Tab": 9, "Escape": 27, "Enter": 13, " ": 32}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            given = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self._call("Input.dispatchKeyEvent", given | (text if kind == "keyDown" else {}))

    def axe(self) -> list[str]:
        """What axe-core finds against WCAG 2 A and AA and its own best practices: rule, impact, and the first place."""
        found = importlib.util.find_spec("axe_core_python")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("axe-core-python is not installed (pip install axe-core-python)")
        self.run(Path(found.submodule_search_locations[0], "axe.min.js").read_text() + "\n;0")
        violations = self.run("axe.run(document, {iframes: false}).then(r => r.violations)")
        return [f"{one['id']} ({one['impact']}): {one['nodes'][0]['html']:.200}" for one in violations]

    def screenshot(self, path: Path) -> None:
        """Writes what is on the screen as a PNG."""
        data = self._call("Page.captureScreenshot", {"format": "png"})["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Ends the browser with all of its processes."""
        self._session = None
        self._call("Browser.close")

    def accessibility(self) -> list[dict[str, Any]]:
        """The nodes that a screen reader is told of."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node.get("ignored")]

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(given["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif event.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            if not part:
                raise AssertionError("the browser ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def serving(run: Path, settings: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """The service of a run on a port of this machine, and its address. `service()` gives the one that answers now."""
    import uvicorn

    from api.http.app import create_app
    from api.run.keys import admin_key
    from api.run.settings import load_settings
    from api.service.service import open_service

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    with open_service(run, load_settings(settings)) as service:
        admin_key(run, service.settings.serve)  # the file is there before anybody signs in
        app = create_app(service)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield app.state, f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()
    listening.close()


@contextmanager
def browser(profile: Path, patience_s: float = WAIT_S) -> Iterator[Page]:
    """A tab of a browser of one's own, which ends with the block."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-extensions", "--mute-audio", "--hide-scrollbars",
        "--force-prefers-reduced-motion", "--remote-debugging-pipe", f"--user-data-dir={profile}",
    ]  # fmt: skip
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # The protocol has its pipes at 3 and 4; a shell puts them there.
    shell = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash", *command]
    process = subprocess.Popen(
        shell, pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(from_write)
    page = Page(to_write, from_read, patience_s)
    try:
        yield page
    finally:
        try:
            page.close()
            process.wait(10)
        except (subprocess.TimeoutExpired, OSError, AssertionError):
            process.kill()
            process.wait()
        os.close(to_write)
        os.close(from_read)
