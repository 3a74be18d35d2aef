"""A real Chromium in front of a really started studio; the pictures it takes are those of the docs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

SIZE = {"width": 1280, "height": 800}
PICTURES = os.environ.get("STUDIO_PICTURES")
"""Where pictures of the pages go; nowhere by default. `make app-pictures` sets it."""


@pytest.fixture(scope="module")
def chromium():
    """The browser of the system; Playwright's own is a download.

    Not for the whole session: its event loop would stand in the way of other tests' own.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip extra `dev`)")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium here; on Debian: sudo apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # as root, as in a container, Chromium refuses to start with its sandbox
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = driver.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


class Studio:
    """A studio in a folder of its own, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self._process = None
        self.address = ""

    def start(self, *flags, **environment):
        # the tests themselves may open no socket
        free = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
        port = subprocess.run([sys.executable, "-c", free], capture_output=True, text=True, check=True).stdout.strip()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "studio", "app", "--port", port, "--no-browser", *flags],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "STUDIO_RUNS": str(self.runs), "OMP_NUM_THREADS": "1", **environment},
            start_new_session=True,
        )  # fmt: skip
        for line in self._process.stdout:
            if "http://" in line:
                self.address = "http://" + line.split("http://")[1].split()[0].rstrip("/")
                return self
        raise AssertionError("the studio did not start")

    def kill(self):
        """Ends the app as a power cut would; workers and jobs live on."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    @property
    def queue(self):
        from studio.jobs import Queue

        return Queue(self.runs)

    def end(self):
        """Ends everything."""
        from studio.jobs.process import kill

        self.kill()
        queue = self.queue
        for worker in queue.workers():
            with suppress(ProcessLookupError):
                os.kill(worker.owner.pid, signal.SIGKILL)
        for job in queue.jobs(("running",)):
            if job.token:
                kill(job.token)


@pytest.fixture
def studio(tmp_path):
    """A studio that was just installed: nothing was made yet."""
    made = Studio(tmp_path)
    made.start()
    yield made
    made.end()


@pytest.fixture
def page(chromium, studio):
    """A tab that shows the studio."""
    context = chromium.new_context(viewport=SIZE, accept_downloads=True)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    wrong = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(studio.address)
    tab.get_by_role("heading", level=1).wait_for()
    yield tab
    context.close()
    assert not wrong, wrong


@pytest.fixture
def picture_of():
    """Takes a picture of a page for the docs, when they are asked for."""

    def take(tab, name):
        settled(tab)
        if PICTURES:
            folder = Path(PICTURES)
            folder.mkdir(parents=True, exist_ok=True)
            tab.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
            tab.screenshot(path=folder / f"{name}.png")

    return take


def settled(tab, quiet_s=0.7):
    """Waits until Streamlit has drawn everything."""
    tab.wait_for_function("!document.querySelector('[data-testid=stStatusWidget], [data-stale=true]')", timeout=60_000)
    time.sleep(quiet_s)


@pytest.fixture
def settle():
    """Waits until a page is drawn."""
    return settled


@pytest.fixture
def until():
    """Waits for something to come true."""

    def wait(condition, seconds):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "it did not come true in time"
            time.sleep(0.2)
        return found

    return wait


@pytest.fixture
def go(page):
    """Opens another page by the navigation."""

    def open_(name):
        page.get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", name=name, level=1).wait_for()
        settled(page)

    return open_
