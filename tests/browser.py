"""A headless Chromium, driven over its debugging pipe (the DevTools protocol): no driver, no port, no package."""

import base64
import contextlib
import json
import os
import select
import subprocess
import time

import pytest

from common.reports.page import picture

FOUND = picture.browser()
PATIENCE = 30  # seconds for any answer
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "Backspace": 8}  # key -> its virtual code
KEYS |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def needed():
    """Skips the test without a browser."""
    if not FOUND:
        pytest.skip("no chromium is installed")


@contextlib.contextmanager
def opened(folder):
    """Context of a Browser, closed at its end. folder: see Browser."""
    needed()
    one = Browser(folder)
    try:
        yield one
    finally:
        one.close()


class Browser:
    """One page. folder: an empty folder for its profile and pipes."""

    def __init__(self, folder):
        for name in ("to", "from"):
            os.mkfifo(folder / name)
        # --no-sandbox: tests may run as root, and only this repository's own page is opened.
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        words += ["--disable-background-networking", f"--user-data-dir={folder}/profile", "--remote-debugging-pipe"]
        # The browser reads commands from descriptor 3 and answers on 4; each side waits for the other to open.
        pipes = ["bash", "-c", 'exec "$@" 3< to 4> from', "bash"]
        self.process = subprocess.Popen(
            [*pipes, FOUND, *words, "about:blank"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.commands = os.open(folder / "to", os.O_WRONLY)
        self.answers = os.open(folder / "from", os.O_RDONLY)
        self.kept, self.number, self.session, self.dialogs = b"", 0, {}, 0
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.session = {"sessionId": session}
        self.send("Page.enable")

    def send(self, method, **params):
        """The result of a DevTools command."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": params, **self.session}
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self.receive()
            self.dialogs += message.get("method") == "Page.javascriptDialogOpening"
            if message.get("id") == self.number:
                assert "result" in message, message
                return message["result"]

    def receive(self):
        while b"\0" not in self.kept:
            assert select.select([self.answers], [], [], PATIENCE)[0], "the browser does not answer"
            part = os.read(self.answers, 1 << 16)
            assert part, "the browser has ended"
            self.kept += part
        message, _, self.kept = self.kept.partition(b"\0")
        return json.loads(message)

    def value(self, expression):
        """What a JavaScript expression comes to in the page."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, expression):
        """Wait until a JavaScript expression is true in the page."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, f"not in {PATIENCE} s: {expression}\n{self.value('document.body.innerText')}"
            time.sleep(0.02)

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def press(self, key):
        text = key if len(key) == 1 else "\r" * (key == "Enter")
        code = {"windowsVirtualKeyCode": KEYS[key], "code": key} if key in KEYS else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, text=text, **code)

    def click(self, selector):
        """Click in the middle of the first element that a CSS selector finds, scrolled into sight."""
        box = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{box}.scrollIntoView({{block: 'center'}})")
        place = self.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def look(self, width, height, scheme="light"):
        """Size of the page in CSS pixels; light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)
