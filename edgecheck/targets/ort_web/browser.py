"""Chromium without a window: found, started, asked for what a page says, and surely ended.

Self-contained (standard library and Playwright, which is imported only to start a browser), since
it is sent to the device.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecheck.targets.ort_web.server import WebServer

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Where Playwright keeps its own browsers, by system (its documentation, "Managing browser
# binaries"), and the executables in them.
_KEPT = {"linux": ".cache/ms-playwright", "darwin": "Library/Caches/ms-playwright"}
_BUILDS = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
    "chromium_headless_shell-*/chrome-*/*headless*shell",
)
# Nothing of the browser's own business: no network beyond the page, no files in the home directory.
_FLAGS = (
    *("--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps"),
)
_START_MS = 60_000
# Waits for the end of its input, which comes when the browser's owner ends in whatever way, then
# ends what still runs from the folder, and removes it. In a session of its own: what ends the
# owner's process group must not reach it.
_JANITOR = """
import os, pathlib, shutil, signal, sys, time
folder = sys.argv[1]
sys.stdin.read()
for _ in range(100):
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in process.joinpath("cmdline").read_bytes():
                if int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            pass
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.exists(folder):
        break
    time.sleep(0.1)
"""


class BrowserError(Exception):
    """What went wrong in the browser, or keeps it from starting, in one line."""

    stands_alone = True


# Chromium's socket lies two folders deep in its own (75 bytes), and its path has 104 bytes on
# macOS, 108 on Linux (unix(7)).
_LONGEST_PARENT = 28


def find_browser() -> str:
    """The path of a Chromium: one on the search path, else Playwright's own; "" without any."""
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    home = os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or str(
        Path.home() / _KEPT.get(sys.platform, _KEPT["linux"])
    )
    for pattern in _BUILDS:
        if kept := sorted(Path(home).glob(pattern)):
            return str(kept[-1])
    return ""


class Tab:
    """A page in a Chromium of its own.

    Args:
        server: serves the page.
        flags: more of Chromium's command-line switches.

    Raises:
        BrowserError: there is no Chromium, or it does not start.
    """

    def __init__(self, server: WebServer, flags: Sequence[str] = ()) -> None:
        from playwright import sync_api

        executable = find_browser()
        if not executable:
            raise BrowserError(f"no Chromium on the search path ({', '.join(_NAMES)})")
        self._error = sync_api.Error
        self._folder = tempfile.mkdtemp(prefix="edgecheck-chromium-", dir=_short_parent())
        self._janitor = subprocess.Popen(
            [sys.executable, "-ISc", _JANITOR, self._folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._playwright: Any = None
        try:
            with _temporary_directory(self._folder):
                self._playwright = sync_api.sync_playwright().start()
            # Playwright starts Chromium without its sandbox, which needs rights that containers
            # do not give: all that runs in it is this page and the runtime's WebAssembly.
            self._browser = self._playwright.chromium.launch(
                executable_path=executable, args=[*_FLAGS, *flags], timeout=_START_MS
            )
            self.version = f"Chromium {self._browser.version}"
            self._page = self._browser.new_page()
            self._page.on("console", lambda said: print(said.text, file=sys.stderr))
            self._page.on("crash", lambda _: print("the page crashed", file=sys.stderr))
            self._page.goto(f"{server.url}page.html", timeout=_START_MS)
            self._page.wait_for_function("globalThis.edgecheck !== undefined", timeout=_START_MS)
            self._devtools = self._page.context.new_cdp_session(self._page)
            self._processes = self._browser.new_browser_cdp_session()
        except sync_api.Error as error:
            print(error, file=sys.stderr)
            self.close()
            raise BrowserError(f"{executable} does not start: {_first_line(error)}") from None
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **given: Any) -> Any:
        """Call a method of the page (see `edgecheck.targets.ort_web.page`).

        Raises:
            BrowserError: it threw, or the page is gone.
        """
        try:
            answer = self._page.evaluate(
                "([method, given]) => edgecheck.call(method, given)", [method, given]
            )
        except self._error as error:
            raise BrowserError(f"the browser's page is gone: {_first_line(error)}") from None
        if "error" in answer:
            raise BrowserError(" ".join(answer["error"].split()))
        return answer["value"]

    def heap_bytes(self, *, collected: bool) -> int:
        """What the page's JavaScript holds: objects, and the array buffers behind them.

        Args:
            collected: whether to collect garbage before.

        See DevTools' protocol, ``Runtime.getHeapUsage`` and ``HeapProfiler.collectGarbage``.
        """
        if collected:
            self._devtools.send("HeapProfiler.collectGarbage")
        usage = self._devtools.send("Runtime.getHeapUsage")
        return int(usage["usedSize"] + usage.get("backingStorageSize", 0))

    def processes(self) -> list[int]:
        """The ids of the processes that run pages (``SystemInfo.getProcessInfo``)."""
        found = self._processes.send("SystemInfo.getProcessInfo")["processInfo"]
        return [int(item["id"]) for item in found if item["type"] == "renderer"]

    def close(self) -> None:
        """End the browser and remove its files."""
        for part in (getattr(self, "_browser", None), self._playwright):
            with contextlib.suppress(Exception):
                if part is not None:
                    (part.close if hasattr(part, "close") else part.stop)()
        self._janitor.communicate()


def contention(processes: Sequence[int]) -> dict[str, int]:
    """What other work does to processes; the keys are `timing.contention`'s."""
    counters = {"involuntary_switches": 0, "run_ns": 0, "wait_ns": 0}
    try:
        for task in [task for item in processes for task in Path(f"/proc/{item}/task").iterdir()]:
            run, wait = task.joinpath("schedstat").read_text().split()[:2]
            counters["run_ns"] += int(run)
            counters["wait_ns"] += int(wait)
            for line in task.joinpath("status").read_text().splitlines():
                if line.startswith("nonvoluntary_ctxt_switches:"):
                    counters["involuntary_switches"] += int(line.split()[1])
        counters["steal_ticks"] = int(Path("/proc/stat").read_text().split(maxsplit=9)[8])
    except (OSError, ValueError, IndexError):
        return {}  # another system, a container that hides them, or a thread that just ended
    return counters


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What was counted between two readings; threads that ended meanwhile count nothing."""
    return {name: max(0, after[name] - before[name]) for name in after if name in before}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].removeprefix("Page.evaluate: ") if text else type(error).__name__


def _short_parent() -> str | None:
    """A directory that the browser's may lie in: a run's own for temporary files is too deep."""
    short = len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_PARENT
    return None if short or not Path("/tmp").is_dir() else "/tmp"


@contextlib.contextmanager
def _temporary_directory(folder: str) -> Iterator[None]:
    """What is started meanwhile keeps its temporary files in a folder."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
