"""A real browser without a window: Debian's chromium, spoken to through chromedriver.

WebDriver is JSON over HTTP (W3C), so the standard library is enough:

    with Browser() as browser:
        browser.open(url)
        browser.js("return document.title")
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

MISSING = "" if shutil.which("chromedriver") and shutil.which("chromium") else (
    "needs a browser: apt-get install -y chromium chromium-driver"
)  # fmt: skip
_PORT = re.compile(r"successfully on port (\d+)")
_KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Right": "\ue014", "Space": " "}


class Browser:
    """One headless window; what it logs and asks for is kept."""

    def __init__(self, width: int = 1920, height: int = 1080, dark: bool = False) -> None:
        self._size, self._dark = f"{width},{height}", dark

    def __enter__(self) -> Browser:
        self._home = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        try:
            self._base = self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def _begin(self) -> str:
        assert self._driver.stdout is not None
        port = next(found[1] for line in self._driver.stdout if (found := _PORT.search(line)))
        base = f"http://127.0.0.1:{port}/session"
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--no-proxy-server", f"--window-size={self._size}",
            f"--user-data-dir={self._home.name}",
        ]  # fmt: skip
        capabilities = {
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = _post(base, {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
        base = f"{base}/{session}"
        width, height = map(int, self._size.split(","))
        _post(f"{base}/goog/cdp/execute", {
            "cmd": "Emulation.setDeviceMetricsOverride",
            "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        })  # fmt: skip
        return base

    def __exit__(self, *_: object) -> None:
        urllib.request.urlopen(urllib.request.Request(self._base, method="DELETE"), timeout=10)
        self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(10)
        assert self._driver.stdout is not None
        self._driver.stdout.close()
        self._home.cleanup()

    # -- what tests do -------------------------------------------------------------

    def open(self, url: str) -> None:
        """Load a page."""
        _post(f"{self._base}/url", {"url": url})

    def js(self, body: str, *args: object) -> Any:
        """The result of a function's body, run in the page."""
        return _post(f"{self._base}/execute/sync", {"script": body, "args": list(args)})

    def wait(self, condition: str, timeout: float = 15.0) -> Any:
        """The value of a JavaScript expression as soon as it is true."""
        deadline = time.monotonic() + timeout
        while not (value := self.js(f"return {condition}")):
            assert time.monotonic() < deadline, f"{condition}: never true"
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """The text of the first element that matches."""
        return str(self.js("return document.querySelector(arguments[0]).innerText", selector))

    def click(self, selector: str) -> None:
        """Click it with the mouse."""
        found = _post(f"{self._base}/element", {"using": "css selector", "value": selector})
        _post(f"{self._base}/element/{next(iter(found.values()))}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        actions = [
            {"type": kind, "value": _KEYS.get(key, key)}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        body = {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        _post(f"{self._base}/actions", body)

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(_get(f"{self._base}/screenshot"))

    def complaints(self) -> list[str]:
        """What the page logged since the last call, but for what it only notes."""
        return [
            entry["message"]
            for entry in self._log("browser")
            if entry["level"] not in ("INFO", "DEBUG")
        ]

    def requests(self) -> Iterator[str]:
        """The addresses that were asked for since the last call."""
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                yield message["params"]["request"]["url"]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = _post(f"{self._base}/se/log", {"type": kind})
        return found


def _post(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    return _value(request)


def _get(url: str) -> Any:
    return _value(urllib.request.Request(url))


def _value(request: urllib.request.Request) -> Any:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from error
