"""Many browsers at once in front of one studio: how long a page takes to be drawn again, and whether anything fails.

    .venv/bin/python benchmarks/studio_sessions.py --sessions 20 --seconds 60

Real tabs of a real Chromium, each with a session of its own, go from page to page with a pause to think. Browser and
studio share the machine, so the figures are what a laptop that does both would show. A refresh is the time from a click
in the navigation until the new page's heading is there and nothing is stale any more.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READY = """name => {
  const h = [...document.querySelectorAll('h1')].some(h => h.innerText.trim() === name);
  return h && !document.querySelector('[data-stale=true]');
}"""


async def visit(browser, address, pages, seconds, everybody, rng, refreshes, failures):
    # no graphics card draws the spinners here, and watching each frame of 20 tabs would be most of the load
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    tab = await context.new_page()
    tab.on("pageerror", lambda error: failures.append(f"page: {error}"))
    try:
        await tab.goto(address, timeout=120_000)
        await tab.get_by_role("heading", level=1).wait_for(timeout=120_000)
        await everybody.wait()  # in; a browser's first load of the page is not a refresh
        until = time.monotonic() + seconds
        await asyncio.sleep(rng.uniform(0, 5))
        while time.monotonic() < until:
            name = rng.choice(pages)
            link = tab.get_by_role("link", name=name, exact=True)
            begun = time.monotonic()
            await link.click(timeout=60_000)
            await tab.wait_for_function(READY, arg=name, polling=50, timeout=60_000)
            refreshes.append((name, time.monotonic() - begun))
            if await tab.locator("[data-testid=stException], [data-testid=stConnectionStatus]").count():
                failures.append(f"{name}: an exception or a lost connection is shown")
            await asyncio.sleep(rng.uniform(3, 7))
    except Exception as error:
        await everybody.abort()
        failures.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    finally:
        await context.close()


async def main(options):
    from playwright.async_api import async_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="studio-")
    environment = {**os.environ, "STUDIO_RUNS": options.runs or folder}
    app = subprocess.Popen(
        [sys.executable, "-m", "studio", "app", "--port", str(port), "--no-browser"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        app.stderr.readline()
        refreshes, failures = [], []
        async with async_playwright() as driver:
            program = shutil.which("chromium") or shutil.which("google-chrome")
            flags = ["--no-sandbox"] if os.getuid() == 0 else []
            browser = await driver.chromium.launch(executable_path=program, args=flags)
            first = await browser.new_page()
            await first.goto(f"http://127.0.0.1:{port}", timeout=120_000)
            await first.get_by_role("heading", level=1).wait_for(timeout=120_000)
            pages = await first.locator("[data-testid=stSidebarNavLink]").all_inner_texts()
            pages = [text.split("\n")[-1].strip() for text in pages]
            for name in pages:  # the first time of each loads its modules
                await first.get_by_role("link", name=name, exact=True).click()
                await first.wait_for_function(READY, arg=name, polling=50, timeout=60_000)
            await first.close()
            everybody = asyncio.Barrier(options.sessions)
            address = f"http://127.0.0.1:{port}"
            visits = [
                visit(browser, address, pages, options.seconds, everybody, random.Random(seed), refreshes, failures)
                for seed in range(options.sessions)
            ]
            await asyncio.gather(*visits)
            await browser.close()
    finally:
        os.killpg(app.pid, signal.SIGKILL)
        app.wait()
        app.stderr.close()
        shutil.rmtree(folder, ignore_errors=True)
    times = sorted(seconds for _, seconds in refreshes)
    print(f"{options.sessions} sessions, {len(times)} refreshes in {options.seconds} s, {len(failures)} failures")
    late = times[int(0.95 * (len(times) - 1))]
    print(f"median {statistics.median(times):.2f} s, 95 % {late:.2f} s, worst {times[-1]:.2f} s")
    for name in sorted({name for name, _ in refreshes}):
        own = [seconds for page, seconds in refreshes if page == name]
        print(f"  {name:<12} median {statistics.median(own):.2f} s of {len(own)}")
    for failure in failures[:10]:
        print(f"  failed: {failure}")
    if options.output:
        options.output.write_text(json.dumps({"refreshes": refreshes, "failures": failures}))
    return bool(failures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", help="a runs folder, such as one that benchmarks/studio_pages.py made")
    parser.add_argument("--output", type=Path)
    sys.exit(asyncio.run(main(parser.parse_args())))
