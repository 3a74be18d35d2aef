"""A data set with a broken file goes in, an adapter comes out and is used to animate."""

import io
import zipfile

import pytest
from PIL import Image, ImageDraw


@pytest.fixture
def balls(tmp_path):
    """A zip of pictures with captions, one of which is cut off."""
    path = tmp_path / "red balls.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(6):
            picture = Image.new("RGB", (96, 96), (230, 225, 210))
            ImageDraw.Draw(picture).ellipse([20 + number, 20, 70 + number, 75], fill=(200, 30 + 10 * number, 30))
            content = io.BytesIO()
            picture.save(content, "PNG")
            archive.writestr(f"{number}.png", content.getvalue())
            archive.writestr(f"{number}.txt", f"a red ball, number {number}")
        archive.writestr("broken.png", content.getvalue()[:60])
    return path


def _fill(page, role, name, value):
    widget = page.get_by_role(role, name=name, exact=True)
    widget.fill(value)
    widget.press("Control+Enter" if role == "textbox" else "Enter")


@pytest.mark.timeout(600)
def test_a_data_set_with_a_broken_file_becomes_an_adapter_that_animates(page, studio, go, balls, picture_of, settle):
    go("Fine-tune")
    picture_of(page, "fine-tune")
    page.get_by_role("button", name="Upload a zip").click()
    page.locator("input[type=file]").first.set_input_files(balls)
    page.get_by_role("button", name="Unpack it").click()
    page.get_by_text("broken.png").first.wait_for(timeout=120_000)
    settle(page)
    page.keyboard.press("Escape")
    _fill(page, "spinbutton", "Resolution", "64")
    settle(page)
    page.get_by_role("tab", name="Method").click()
    page.get_by_text("All below a threshold").click()
    page.get_by_text("Trained", exact=True).first.wait_for()
    picture_of(page, "fine-tune-method")
    page.get_by_role("tab", name="Budget").click()
    _fill(page, "spinbutton", "Max train steps", "30")
    settle(page)
    page.get_by_role("tab", name="Samples and guard").click()
    _fill(page, "spinbutton", "Validation steps", "15")
    settle(page)
    _fill(page, "textbox", "Validation prompts", "a red ball")
    settle(page)
    page.get_by_role("button", name="Start").click()
    page.get_by_text("The adapter is ready").wait_for(timeout=240_000)
    picture_of(page, "fine-tune-result")
    (job,) = studio.queue.jobs(("done",), kinds=["train"])
    assert job.result["steps"] == 30 and job.result["trainable_parameters"] < job.result["total_parameters"]

    page.get_by_role("button", name="Open in Runs").click()
    page.get_by_role("heading", name="Runs", level=1).wait_for()
    page.get_by_text("Samples").first.wait_for()
    settle(page)
    picture_of(page, "runs")
    go("Fine-tune")
    page.get_by_role("button", name="Use in Animate").click()
    page.get_by_role("heading", name="Animate", level=1).wait_for()
    settle(page)
    page.get_by_text("Model and adapters").click()
    page.get_by_text("Weight of ").wait_for()  # the adapter is chosen, by its name
    page.get_by_text("Quality and size").click()
    _fill(page, "spinbutton", "Num inference steps", "2")
    settle(page)
    page.get_by_role("button", name="Animate", exact=True).click()
    page.locator("video").wait_for(timeout=180_000)
    (made,) = studio.queue.jobs(("done",), kinds=["animate"])
    assert any(word.startswith("--adapter=") and word.endswith("adapter.safetensors") for word in made.words)
