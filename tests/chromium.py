"""A real browser for tests: headless Chromium, driven over two pipes by its DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60  # seconds


class Browser:
    """A page in a browser.

    Args:
        profile: a folder for what the browser keeps; downloads go to `profile/downloads`.
    """

    def __init__(self, profile):
        self.downloads = profile / "downloads"
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        script = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'  # the browser reads from 3 and writes to 4
        command = ["bash", "-c", script, "bash", CHROMIUM, *flags, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=(to_browser, from_browser), **quiet)
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.received, self.session = 0, b"", None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.session = attached["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)
        os.close(self.write)
        os.close(self.read)

    def call(self, method, **parameters):
        """The answer to one command of the protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.received:
                part = os.read(self.read, 2**16)
                assert part, "the browser went away"
                self.received += part
            one, _, self.received = self.received.partition(b"\0")
            answer = json.loads(one)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def says(self, script):
        """What a script comes to; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, url, width=1280, height=900, dark=False):
        """Show a page, once it is loaded, in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def until(self, script):
        """Wait for a script to be true."""
        end = time.monotonic() + PATIENCE
        while not self.says(script):
            assert time.monotonic() < end, f"still not: {script}"

    def press(self, key):
        """Press a key and let it go."""
        text = {"Enter": "\r"}.get(key)
        down = {"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": {"Enter": 13, "Tab": 9}[key]}
        self.call("Input.dispatchKeyEvent", **down, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", **{**down, "type": "keyUp"})

    def picture(self, file):
        """Write what is seen as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
