"""First start: the bundled character is animated, watched, played, and its settings are used again."""


def test_first_start_to_a_video_and_back_into_the_form(page, studio, picture_of):
    picture_of(page, "animate-first-start")
    page.get_by_role("spinbutton", name="Seed", exact=True).fill("3")
    page.get_by_text("Quality and size").click()
    page.get_by_role("spinbutton", name="Num inference steps").fill("4")
    page.get_by_role("spinbutton", name="Num inference steps").press("Enter")
    page.get_by_role("button", name="Animate", exact=True).click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.get_by_role("progressbar").first.wait_for()
    video = page.locator("video")
    video.wait_for(timeout=180_000)
    page.wait_for_function(
        "document.querySelector('video').currentTime > 0.2 && !document.querySelector('video').error"
    )
    assert page.evaluate("document.querySelector('video').videoWidth") == 128
    picture_of(page, "animate-result")
    (job,) = studio.queue.jobs(("done",))
    assert "--seed=3" in job.words
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == (job.folder / "animation.mp4").read_bytes()
    page.get_by_role("spinbutton", name="Seed", exact=True).fill("9")
    page.get_by_role("spinbutton", name="Seed", exact=True).press("Enter")
    page.get_by_role("button", name="Reuse settings").click()
    page.wait_for_function("document.querySelector('input[aria-label=Seed]').value == '3'")


def test_a_job_goes_on_without_browser_and_app_and_a_cancel_ends_it(chromium, page, studio):
    page.get_by_text("Quality and size").click()
    page.get_by_role("spinbutton", name="Num inference steps").fill("400")
    page.get_by_role("spinbutton", name="Num inference steps").press("Enter")
    page.get_by_role("button", name="Animate", exact=True).click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.close()
    (job,) = studio.queue.jobs()
    studio.kill()
    studio.start()
    again = chromium.new_page()
    again.goto(f"{studio.address}/?job={job.id}")
    again.get_by_role("button", name="Cancel").click(timeout=60_000)
    again.get_by_text("It was cancelled.").wait_for(timeout=60_000)
    again.close()
    assert studio.queue.job(job.id).state == "cancelled"
