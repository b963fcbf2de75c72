"""Headless Chromium driven through a pipe: a real pointer, real keys, downloads and screenshots, without another package.

Source: the Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol/ (Input, Page, Runtime, Browser, Emulation).
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run", "--remote-debugging-pipe")
READABLE = """(() => {
  const shade = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (node) => {
    for (; node; node = node.parentElement) { const c = shade(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  const texts = "p, td, th, li, a, summary, dt, dd, h1, h2, h3, h4, .tok, .badge, .interval, figcaption, label, button";
  document.querySelectorAll(texts).forEach((node) => {
    const [a, b] = [light(shade(getComputedStyle(node).color)), light(paper(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, node.tagName + "." + node.className];
  });
  const beyond = (node) => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(".wide, .tokens, .only-read");
  const wide = [...document.querySelectorAll("body *")].filter(beyond).slice(0, 3).map((node) => node.tagName + "." + node.className);
  return [worst[0], worst[1], document.documentElement.scrollWidth - innerWidth, wide, matchMedia("(prefers-color-scheme: dark)").matches];
})()"""
"""Lowest contrast of a text and where, how far the page runs over the edge and what does, and whether the page is dark."""
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 101), os.dup2(int(sys.argv[2]), 102)
os.dup2(101, 3), os.dup2(102, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts the browser, which reads its commands from descriptor 3 and writes its answers to descriptor 4."""
PATIENCE = 60.0
"""Seconds that a browser has for one answer."""
ALT, CTRL, SHIFT = 1, 2, 8
CODES = {"Enter": 13, "Escape": 27, "Delete": 46, "Backspace": 8, "Tab": 9, "Home": 36, "End": 35}
CODES |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Browser:
    """One page of one browser."""

    def __init__(self, folder: Path, read: int, write: int) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(exist_ok=True)
        self._read, self._write, self._buffer, self._number = read, write, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events that come before it are kept."""
        self._number += 1
        number = self._number
        session = {} if self._session is None or method.startswith(("Target.", "Browser.")) else {"sessionId": self._session}
        os.write(self._write, json.dumps({"id": number, "method": method, "params": parameters, **session}).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                found: dict[str, Any] = message["result"]
                return found
            self.events.append(message)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._read, 1 << 20)
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, file: Path) -> None:
        """Opens a file and waits until its script has run."""
        self.send("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until the expression is true."""
        for _ in range(int(PATIENCE / 0.02)):
            if self.run(f"Boolean({condition})"):
                return
            time.sleep(0.02)
        raise AssertionError(f"never true: {condition}")

    def mouse(self, kind: str, x: float, y: float, count: int = 1) -> None:
        """A pointer event; the button is the left one."""
        buttons = 0 if kind == "mouseReleased" else 1
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=count)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses, moves and releases."""
        self.mouse("mousePressed", *start)
        for part in (0.3, 0.7, 1.0):
            self.mouse("mouseMoved", start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1]))
        self.mouse("mouseReleased", *end)

    def click(self, expression: str) -> None:
        """Clicks the middle of an element."""
        self.run(f"{expression}.scrollIntoView({{block: 'nearest'}})")
        box = self.run(f"(() => {{ const b = {expression}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()")
        self.mouse("mousePressed", *box)
        self.mouse("mouseReleased", *box)

    def press(self, *keys: str) -> None:
        """Presses keys one after the other; `Shift+Ctrl+ArrowRight` holds the first ones."""
        for one in keys:
            *held, key = one.split("+") if len(one) > 1 else [one]
            modifiers = sum({"Shift": SHIFT, "Ctrl": CTRL, "Alt": ALT}[name] for name in held)
            if key.isupper() and len(key) == 1:
                modifiers |= SHIFT
            code = CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
            typed = {"text": key} if len(key) == 1 and not modifiers & CTRL else {"text": "\r"} if key == "Enter" else {}
            place = {"code": f"Key{key.upper()}"} if key.isalpha() and len(key) == 1 else {"code": key}
            common = {"modifiers": modifiers, "key": key, "windowsVirtualKeyCode": code, **place}
            self.send("Input.dispatchKeyEvent", type="keyDown" if typed else "rawKeyDown", **common, **typed)
            self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text: str) -> None:
        """Writes into the field that has the focus."""
        self.send("Input.insertText", text=text)

    def size(self, width: int, height: int = 900, dark: bool = False) -> None:
        """The size of the window, and whether its user prefers dark pages."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, file: Path) -> None:
        """The visible part of the page."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def downloaded(self, name: str) -> str:
        """The text of a downloaded file, which is then deleted."""
        found = self.wait_for_download()
        assert found == name
        file = self.downloads / name
        text = file.read_text()
        file.unlink()
        return text

    def wait_for_download(self) -> str:
        """The name of the one file that was downloaded, once it is complete."""
        for _ in range(int(PATIENCE / 0.02)):
            names = [file.name for file in self.downloads.iterdir()]
            if names and not any(name.endswith((".crdownload", ".tmp")) or name.startswith(".") for name in names):
                assert len(names) == 1, names
                return names[0]
            self.run("1")
            time.sleep(0.02)
        raise AssertionError("nothing was downloaded")

    def trouble(self) -> list[str]:
        """Errors and messages of the page, and requests for anything but files."""
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(parameters["exceptionDetails"])[:600])
            if event["method"] == "Log.entryAdded":
                found.append(str(parameters["entry"]["text"]))
            if event["method"] == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith(("file:", "blob:", "data:")):
                found.append(parameters["request"]["url"])
        return found


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, closed at the end."""
    assert CHROMIUM is not None
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", LAUNCH, str(to_browser), str(from_browser), CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(folder, to_us, from_us)
    finally:
        os.close(from_us)
        os.close(to_us)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
