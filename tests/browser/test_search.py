"""A search outlives the browser and a killed worker, and ends when it is cancelled."""

import os
import random
import signal

import pytest
from PIL import Image


@pytest.fixture
def pictures(studio):
    """Enough to hold forty out."""
    folder = studio.folder / "squares"
    folder.mkdir()
    for number in range(100):
        # no two alike, or the search would refuse them as leaking
        coarse = Image.frombytes("RGB", (6, 6), random.Random(number).randbytes(108))
        coarse.resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    return folder


@pytest.mark.timeout(600)
def test_a_search_outlives_browser_and_worker_and_can_be_cancelled(
    chromium, page, studio, go, pictures, picture_of, settle, until
):
    go("Search")
    if page.get_by_text("New study", exact=True).count():
        page.get_by_text("New study", exact=True).first.click()
    settings = page.get_by_role("textbox", name="TOML")
    settings.fill(
        f'model = "mini"\nmethod = "full"\nmax_train_steps = 300\nresolution = 32\nvalidation_share = 0.45\n'
        f'[[data]]\nfolder = "{pictures}"\n'
    )
    settings.press("Control+Enter")
    settle(page)
    picture_of(page, "search-new")
    page.get_by_role("button", name="Start the search").click()
    job = until(lambda: studio.queue.jobs(("running",), kinds=["search"]), 60)[0]
    until(lambda: studio.queue.job(job.id).progress().share > 0, 120)
    address = page.url
    page.close()

    worker = next(row for row in studio.queue.workers() if row.is_alive)
    os.kill(worker.owner.pid, signal.SIGKILL)
    again = chromium.new_page(viewport={"width": 1280, "height": 800})
    again.goto(address)
    again.get_by_role("heading", name="Search", level=1).wait_for(timeout=60_000)
    again.get_by_role("button", name="Cancel").wait_for(timeout=60_000)
    settle(again)
    picture_of(again, "search-running")
    until(lambda: any(row.is_alive for row in studio.queue.workers()), 60)
    until(lambda: "another one watches it now" in str(studio.queue.history(job.id)), 60)
    assert studio.queue.job(job.id).attempt == 1
    again.get_by_role("button", name="Cancel").first.click()
    until(lambda: studio.queue.job(job.id).state == "cancelled", 90)
    again.close()
