"""Screens drawn by headless Chromium: one browser process for many pages, boxes read from the page it draws.

The browser is spoken to over its DevTools pipe (file descriptors 3 and 4, JSON messages that end in a zero byte), so
that no port is opened and no library is needed. The pages are those of `rollouts.screens.html` alone: they have no
script, a policy that loads nothing, and no host name resolves.
"""

from __future__ import annotations

import base64
import fcntl
import io
import itertools
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from rollouts.rows import DatasetError
from rollouts.screens.element import Box, Element
from rollouts.screens.html import Draft, draft
from rollouts.screens.screen import Platform, Screen, Split

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
VARIABLE = "STEPLADDER_CHROMIUM"
"""environment variable that names the executable"""
_SEEDS_APART = 10_000_000
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars", "--mute-audio", "--no-first-run",
    "--no-default-browser-check", "--disable-extensions", "--disable-sync", "--disable-component-update",
    "--disable-background-networking", "--disable-breakpad", "--disable-crash-reporter", "--disable-dev-shm-usage",
    "--disable-lcd-text", "--font-render-hinting=none", "--force-color-profile=srgb",
    # one tile a picture, drawn anew and by one thread: soft edges near the seam of two tiles varied
    "--default-tile-width=4096", "--default-tile-height=4096", "--num-raster-threads=1", "--disable-partial-raster",
    "--disable-checker-imaging", "--run-all-compositor-stages-before-draw",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
_READ_BOXES = """document.fonts.ready.then(() => [...document.querySelectorAll('[data-i]')].map(node => {
  const r = node.getBoundingClientRect(), s = window.devicePixelRatio;
  const hit = document.elementFromPoint((r.left + r.right) / 2, (r.top + r.bottom) / 2);
  const cut = node.scrollWidth > Math.ceil(r.width) + 1 || getComputedStyle(node).visibility !== 'visible';
  const whole = r.left > -.01 && r.top > -.01 && r.right < innerWidth + .01 && r.bottom < innerHeight + .01;
  const box = [r.left, r.top, r.right, r.bottom].map(v => Math.round(v * s));
  return [+node.dataset.i, box, whole && !cut && hit !== null && node.contains(hit)];
}))"""


class ChromiumError(DatasetError):
    """Chromium is missing, ended, or does not answer."""


def find_chromium() -> str:
    """Path of the browser.

    Raises:
        ChromiumError: none is installed; the message says what was looked for.
    """
    named = os.environ.get(VARIABLE)
    for name in [named] if named else EXECUTABLES:
        found = shutil.which(name)
        if found:
            return found
    looked = f"{VARIABLE}={named}" if named else f"{', '.join(EXECUTABLES)} on PATH"
    raise ChromiumError(
        f"no Chromium to draw with: looked for {looked}; install one, name it in {VARIABLE}, or use --renderer pillow"
    )


class Chromium:
    """A running browser with one page; a context manager, after which neither process nor profile is left."""

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._path = find_chromium()
        self._folder = Path(tempfile.mkdtemp(prefix="stepladder-chromium-"))
        self._family: dict[int, psutil.Process] = {}
        self._fds: list[int] = []
        try:
            self._start()
            target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
            attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
            self._session = str(attached["sessionId"])
            self._call("Page.enable")
            self._frame = self._call("Page.getFrameTree")["frameTree"]["frame"]["id"]
            self._note_children()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        profile = str(self._folder / "profile")
        # As root Chromium refuses to start with its sandbox. Without it is safe here: it sees our own pages only,
        # which have no script and load nothing.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        arguments = [self._path, *_FLAGS, *root, f"--user-data-dir={profile}", "about:blank"]
        ours = []
        for read, write in (os.pipe(), os.pipe()):
            ours += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read, write)]  # clear of 3 and 4
            os.close(read)
            os.close(write)
        their_in, self._out, self._in, their_out = ours
        self._fds = [self._out, self._in]
        log = os.open(self._folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            pid = os.posix_spawn(
                self._path,
                arguments,
                {**os.environ, "HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)},
                file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2),
                              (os.POSIX_SPAWN_DUP2, their_in, 3), (os.POSIX_SPAWN_DUP2, their_out, 4)],
                setpgroup=0,
            )  # fmt: skip
        except OSError as error:
            raise ChromiumError(f"{self._path}: cannot be started: {error.strerror}") from None
        finally:
            for fd in (their_in, their_out, log):
                os.close(fd)
        self._pid = pid
        self._family[pid] = psutil.Process(pid)

    def _failed(self, what: str) -> ChromiumError:
        log = self._folder / "log"
        lines = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        return ChromiumError(f"{self._path}: {what}" + (f"; it said: {' | '.join(lines)[-500:]}" if lines else ""))

    def _call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """One DevTools command and its answer; events are passed over."""
        number, deadline = next(self._numbers), time.monotonic() + self._timeout_s
        message: dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError:
            raise self._failed("it ended before its work was done") from None
        while True:
            head, end, rest = self._buffer.partition(b"\0")
            if not end:
                ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise self._failed(f"no answer to {method} within {self._timeout_s:g} s")
                chunk = os.read(self._in, 1 << 20)
                if not chunk:
                    raise self._failed("it ended before its work was done")
                self._buffer += chunk
                continue
            self._buffer = rest
            answer = json.loads(head)
            if answer.get("method") == "Inspector.targetCrashed":
                raise self._failed("its page crashed")
            if answer.get("id") == number:
                if "error" in answer:
                    raise self._failed(f"{method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result

    def draw(self, page: Draft) -> Screen:
        """The page with its boxes and picture. What is cut off or behind something is in `covered`.

        Raises:
            ChromiumError: the browser ended or does not answer in time.
        """
        canvas = page.screen.canvas
        size = {"width": round(canvas.width / canvas.scale), "height": round(canvas.height / canvas.scale)}
        self._call("Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": canvas.scale, "mobile": False})
        self._call("Page.setDocumentContent", {"frameId": self._frame, "html": page.html})
        read = self._call("Runtime.evaluate", {"expression": _READ_BOXES, "awaitPromise": True, "returnByValue": True})[
            "result"
        ]
        shot = self._call("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": True})["data"]
        image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")
        if image.size != (canvas.width, canvas.height) or not isinstance(read.get("value"), list):
            raise self._failed(f"drew {image.size} for a screen of {canvas.width} x {canvas.height}")
        canvas.painters = [lambda picture, draw: picture.paste(image)]
        return _placed(page.screen, {number: (tuple(box), seen) for number, box, seen in read["value"]})

    def _note_children(self) -> None:
        """Remembers the browser's processes, whose parent may be gone when they have to be ended."""
        with suppress(psutil.Error):
            self._family |= {child.pid: child for child in self._family[self._pid].children(recursive=True)}

    def close(self) -> None:
        """Ends the browser and removes its profile; may be called again."""
        if self._family and self._fds:
            self._note_children()
            if hasattr(self, "_session"):
                del self._session
                self._timeout_s = 5.0
                with suppress(ChromiumError):
                    self._call("Browser.close")
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        deadline = time.monotonic() + 5.0
        while any(_alive(p) for p in self._family.values()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in self._family.values():
            with suppress(psutil.Error):
                if _alive(process):
                    process.send_signal(signal.SIGKILL)
        if self._family:
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
        self._family = {}
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _placed(screen: Screen, found: dict[int, tuple[Box, bool]]) -> Screen:
    """The screen with the boxes of the page; a series of which one is not whole is none, since nobody can count it."""
    first = len(screen.covered)
    covered, elements, broken = [], [], set()
    for number, element in enumerate(screen.covered + screen.elements):
        box, seen = found[number]
        x1, y1, x2, y2 = max(0, box[0]), max(0, box[1]), min(screen.width, box[2]), min(screen.height, box[3])
        placed: Element = replace(element, box=(x1, y1, x2, y2))
        if number >= first and seen:
            elements.append(placed)
            continue
        broken.add(element.group)
        if x1 < x2 and y1 < y2:
            covered.append(placed)
    kept = tuple(replace(e, series=None) if e.group in broken and e.series else e for e in elements)
    return replace(screen, elements=kept, covered=tuple(covered))


def chromium_screens(seed: int, split: Split, platforms: Sequence[Platform]) -> Generator[Screen]:
    """Endless screens of one split, no content twice; closing the iterator ends the browser.

    A page is drawn only if what it was meant to show is of the split, and given only if what can be seen is as well.
    """
    seen: set[str] = set()
    with Chromium() as browser:
        for number in itertools.count(seed * _SEEDS_APART):
            page = draft(number, platforms)
            if page.screen.split != split or page.screen.content in seen:
                continue
            screen = browser.draw(page)
            if screen.split == split and screen.content not in seen:
                seen |= {screen.content, page.screen.content}
                yield screen
