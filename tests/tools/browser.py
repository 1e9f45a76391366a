"""A browser without a window, driven by chromedriver over HTTP, with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


class Browser:
    """A page of the browser."""

    def __init__(self, place):
        self.place = place  # the URL of the driver, then that of the session

    def ask(self, path, body=None, method=None):
        """Send a command, and return its value."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.place + path, content, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:1000]) from None

    def open(self, path):
        """Load a file."""
        self.ask("/url", {"url": path.as_uri()})

    def run(self, script, *args):
        """Run JavaScript, and return what it returns."""
        return self.ask("/execute/sync", {"script": script, "args": args})

    def emulate(self, width, height, dark=False):
        """Set the size of the page, which may be that of a phone, and its colours."""
        for command, parameters in (
            (
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
            ),
            (
                "Emulation.setEmulatedMedia",
                {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
            ),
        ):
            self.ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def pointer(self, strokes, kind="mouse"):
        """Press, move and lift a pointer along each of some lists of points of the view."""
        actions = []
        for first, *rest in strokes:
            move = {"type": "pointerMove", "duration": 0, "origin": "viewport"}
            actions += [{**move, "x": round(first[0]), "y": round(first[1])}, {"type": "pointerDown", "button": 0}]
            actions += [{**move, "x": round(x), "y": round(y)} for x, y in rest]
            actions += [{"type": "pointerUp", "button": 0}]
        source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": actions}
        self.ask("/actions", {"actions": [source]})

    def hover(self, x, y, click=False):
        """Move the mouse to a point of the view, and click if asked."""
        actions = [{"type": "pointerMove", "duration": 20, "origin": "viewport", "x": round(x), "y": round(y)}]
        actions += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp") if click]
        self.ask("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})

    def keys(self, *names):
        """Press and release keys, one after the other."""
        codes = {
            "Up": "\ue013",
            "Down": "\ue015",
            "Left": "\ue012",
            "Right": "\ue014",
            "Delete": "\ue017",
            "Tab": "\ue004",
        }
        actions = [{"type": kind, "value": codes.get(name, name)} for name in names for kind in ("keyDown", "keyUp")]
        self.ask("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def picture(self, path, whole=False):
        """Write a screenshot, of the window or of the whole page."""
        parameters = {"captureBeyondViewport": whole}
        found = self.ask("/goog/cdp/execute", {"cmd": "Page.captureScreenshot", "params": parameters})
        path.write_bytes(base64.b64decode(found["data"]))

    def messages(self):
        """The errors and warnings of the console."""
        return [entry["message"] for entry in self.ask("/se/log", {"type": "browser"})]


@contextlib.contextmanager
def browser():
    """Start a browser, and end it after the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, tempfile.TemporaryFile("w+") as log:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            port = next(line.split()[-1].rstrip(".") for line in driver.stdout if "successfully on port" in line)
            found = Browser(f"http://127.0.0.1:{port}")
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            arguments += [f"--user-data-dir={folder}", "--force-color-profile=srgb", "--hide-scrollbars"]
            options = {"binary": BROWSER, "args": arguments}
            capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "WARNING"}}
            session = found.ask("/session", {"capabilities": {"alwaysMatch": capabilities}})
            found.place += f"/session/{session['sessionId']}"
            try:
                yield found
            finally:
                found.ask("", method="DELETE")
        finally:
            driver.terminate()
            driver.wait()
            driver.stdout.close()
