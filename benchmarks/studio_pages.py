"""How fast the studio's pages open with a full runs folder.

    python benchmarks/studio_pages.py [--jobs 1000] [--results 10000] [--rounds 9] [--browser PATH]

Makes a runs folder of so many jobs and results in a temporary place (or takes one that it made: --keep FOLDER), starts
the app in a process of its own, and measures the warm time of each page:

script    from the request to draw a page until the script has ended, with AppTest, in this process
page      from a click in the navigation until the browser shows what the page ends with (needs --browser: a Python
          with playwright, and chromium), in the app as users have it
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = '[data-testid="stSidebarNavLink"]'
PAGES = ("animate", "background", "pose", "fine_tune", "search", "compare", "runs", "library", "system")


def fill(root: Path, jobs: int, results: int) -> None:
    """Writes jobs and results as the worker leaves them: ended in many states, some that wait."""
    import sqlalchemy as sa
    from PIL import Image

    from studio.jobs import Queue
    from studio.jobs.tables import EVENTS, JOBS
    from studio.library import Library

    queue = Queue(root)
    pictures = [Image.effect_noise((128, 128), 10 + 20 * k).convert("RGB") for k in range(8)]
    sheet = root / "sheet.png"
    pictures[0].save(sheet)
    each = -(-results // jobs)
    made, now, rows = 0, time.time(), []
    for number in range(jobs):
        folder = root / "jobs" / f"20260101-{number:06d}-{number:08x}"
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "logs" / "1.err").write_text("denoising: 20/20 3.1 it/s\n" * 40)
        for part in range(min(each, results - made)):
            video = folder / f"animation-{part}.mp4"
            os.link(sheet, video.with_suffix(".png"))
            video.write_bytes(sheet.read_bytes())
            video.with_suffix(".json").write_text(json.dumps(sidecar(video, made)))
            made += 1
        state = ("done", "done", "done", "failed", "cancelled", "done", "paused", "queued")[number % 8]
        words = ["animate", "--reference", "juice-box", "--driving", "wave", f"--seed={number}", "--device=cuda:7"]
        rows.append({"title": f"animate juice-box with wave, take {number}", "words": json.dumps(words),
                     "folder": folder.relative_to(root).as_posix(), "directory": str(root), "device": "cuda:7",
                     "state": state, "wanted": "run", "priority": 0, "place": float(number), "attempt": 1, "deaths": 0,
                     "created": now - 60 * number, "started": now - 60 * number,
                     "ended": now - 60 * number + 30 if state in ("done", "failed", "cancelled") else None,
                     "exit_code": 0, "error": "out of memory" if state == "failed" else None,
                     "result": json.dumps({"output": str(folder / "animation-0.mp4"), "frames": 17, "width": 128,
                                           "height": 128, "fps": 12.0, "seconds": 9.5, "seed": number, "model": "mini",
                                           "peak_memory_bytes": 1 << 30, "preview": ""})})  # fmt: skip
    with queue.database.exclusive("studio queue") as connection:
        connection.execute(sa.insert(JOBS), rows)
        ids = connection.scalars(sa.select(JOBS.c.id)).all()
        said = ("queued", "started for cpu (attempt 1)", "done")
        connection.execute(sa.insert(EVENTS), [{"job": one, "at": now, "text": text} for one in ids for text in said])
    checks = [{"name": f"check {k}", "ok": True, "needed": True, "found": "well", "fix": ""} for k in range(16)]
    (root / ".doctor.json").write_text(json.dumps({"at": now, "error": "", "checks": checks}))
    library = Library(queue)
    first, again = library.rescan(), library.rescan()
    print(f"looking at {first.seen:,} things: {first.seconds:.2f} s the first time, {again.seconds:.2f} s again")
    for thing in library.search(kinds=["result"], limit=200):
        library.set_tags(thing.id, ["trailer"])
    timed("search of one word", lambda: library.search("fox", kinds=["result"]))
    timed("search of three words", lambda: library.search("fox snow mini", kinds=["result"]))
    timed("search that finds nothing", lambda: library.search("elephant"))
    timed("page 400 of the results", lambda: library.search(kinds=["result"], offset=399 * 24))


def sidecar(video: Path, number: int) -> dict[str, object]:
    what = ("a red fox in snow", "a blue robot dancing", "a striped cat at night")[number % 3]
    return {
        "schema": "animatex-studio/animation", "version": 1,
        "request": {"model": "mini", "reference": "juice-box", "driving": "wave", "prompt": f"{what}, take {number}",
                    "seed": number, "output": str(video)},
        "output": {"file": video.name, "sha256": "ab" * 32, "frames": 17, "width": 128, "height": 128, "fps": 12.0},
        "weights": {"transformer": "cd" * 32}, "metrics": {"seconds": 9.5}, "notes": [],
        "software": {"animatex-studio": "0.1.0", "torch": "2.11"},
    }  # fmt: skip


def timed(what: str, act) -> None:
    times = []
    for _ in range(9):
        begun = time.perf_counter()
        act()
        times.append(time.perf_counter() - begun)
    print(f"{what}: {1000 * statistics.median(times):.0f} ms")


def script_times(rounds: int) -> None:
    """With AppTest: what the server does, without network and browser."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    pages = app.session_state["pages"]
    for name in PAGES:
        if name not in pages:
            continue
        app._page_hash = pages[name]._script_hash
        first = run_once(app)
        times = [run_once(app) for _ in range(rounds)]
        print(f"script {name:<11} first {first:.2f} s, warm {statistics.median(times):.3f} s, worst {max(times):.3f} s")


def run_once(app) -> float:
    begun = time.perf_counter()
    app.run()
    assert not app.exception, app.exception[0].message
    return time.perf_counter() - begun


def page_times(python: str, root: Path, rounds: int) -> None:
    """In a browser: from a click in the navigation until nothing changes any more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "STUDIO_RUNS": str(root), "PYTHONPATH": str(ROOT)}
    app = subprocess.Popen([sys.executable, "-m", "studio", "app", "--port", str(port), "--no-browser"],
                           env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        subprocess.run([python, __file__, "--drive", str(port), "--rounds", str(rounds)], check=True, env=environment)
    finally:
        app.terminate()
        app.wait(30)


def drive(port: int, rounds: int) -> None:
    """Runs in the Python that has playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        for _ in range(120):
            try:
                tab.goto(f"http://127.0.0.1:{port}/")
                break
            except Exception:
                time.sleep(0.5)
        tab.wait_for_selector("h1", timeout=60_000)
        names = [link.inner_text().strip().splitlines()[-1] for link in tab.query_selector_all(LINK)]
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for place, name in enumerate(names):
                taken = open_page(tab, place, name)
                if turn:  # the first round warms up
                    times[name].append(taken)
        for name, found in times.items():
            print(f"page   {name:<11} warm {statistics.median(found):.3f} s, worst {max(found):.3f} s")
        browser.close()


def open_page(tab, place: int, title: str) -> float:
    link = tab.locator(LINK).nth(place)
    begun = time.perf_counter()
    link.click()
    # its title is there, the script has ended, and nothing is left of the page before
    tab.wait_for_function(
        """title => document.querySelector('h1')?.innerText.trim() === title
        && document.querySelector('[data-testid="stApp"]').getAttribute('data-test-script-state') === 'notRunning'
        && !document.querySelector('[data-stale="true"]')""",
        arg=title, polling=10, timeout=60_000,
    )  # fmt: skip
    taken = time.perf_counter() - begun
    time.sleep(0.3)
    return taken


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--jobs", type=int, default=1000)
    words.add_argument("--results", type=int, default=10_000)
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--browser", help="a Python that has playwright")
    words.add_argument("--keep", type=Path, help="a runs folder to fill, or one that was filled before")
    words.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.drive:
        drive(asked.drive, asked.rounds)
        return
    with tempfile.TemporaryDirectory() as place:
        root = asked.keep or Path(place) / "runs"
        os.environ["STUDIO_RUNS"] = str(root)
        if not (root / "studio.db").exists():
            root.mkdir(parents=True, exist_ok=True)
            fill(root, asked.jobs, asked.results)
        script_times(asked.rounds)
        if asked.browser:
            page_times(asked.browser, root, asked.rounds)


if __name__ == "__main__":
    main()
