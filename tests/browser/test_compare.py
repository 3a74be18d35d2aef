"""Two videos of which every frame has its own grey play with one clock."""

import time

import av
import numpy as np
import pytest

RATE, FRAMES = 12, 24
_STATE = """() => {
  const found = [], walk = (node) => node.querySelectorAll('*').forEach((one) => {
    if (one.shadowRoot) walk(one.shadowRoot);
    if (one.tagName === 'VIDEO') found.push([one.currentTime, one.paused]);
  });
  walk(document);
  return found;
}"""
_GREY = "(canvas) => canvas.getContext('2d').getImageData(20, 20, 1, 1).data[0]"


def video(path, first):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(FRAMES):
            grey = np.full((64, 64, 3), first + 8 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def takes(studio):
    for number in range(2):
        job = studio.queue.submit(["animate", "--reference=juice-box", "--driving=wave"], title=f"take {number}")
        output = video(job.folder / "animation.mp4", first=8 + 30 * number)
        studio.queue.change(job.id, state="done", result={"output": str(output)})


@pytest.mark.timeout(300)
def test_two_videos_keep_step_and_are_seen_as_their_difference(page, studio, takes, go, settle, picture_of):
    go("Compare")
    choice = page.get_by_role("combobox", name="Videos")
    for number in range(2):
        choice.click()
        page.get_by_role("option", name=f"take {number}").click()
    choice.press("Escape")
    player = page.locator(".player")
    player.wait_for()
    settle(page)
    player.focus()
    for _ in range(3):
        player.press("ArrowRight")
    time.sleep(1)
    assert [at for at, _ in page.evaluate(_STATE)] == pytest.approx([3.5 / RATE] * 2, abs=1e-3)
    assert "frame 4 of 24" in player.inner_text()
    page.locator(".view").select_option("1")
    time.sleep(1)
    assert abs(page.locator("canvas").last.evaluate(_GREY) - 30) <= 4
    page.locator(".view").select_option("beside")
    picture_of(page, "compare")
    player.focus()
    player.press(" ")
    drifts = []
    for _ in range(20):
        (one, paused), (two, _) = page.evaluate(_STATE)
        drifts.append(abs(one - two))
        assert not paused or one < 0.1  # it turns back to its beginning
        time.sleep(0.1)
    assert sorted(drifts)[len(drifts) // 2] < 0.5 / RATE
    player.press(" ")
    time.sleep(1)
    (one, paused), (two, _) = page.evaluate(_STATE)
    assert paused and one == pytest.approx(two, abs=1e-3)
