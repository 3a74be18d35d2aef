"""The app's page, driven as a user does; the work runs in a real process of the command line."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def page(tmp_path, monkeypatch):
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path / "runs"))
    return AppTest.from_file(str(Path(__file__).parents[2] / "app.py"), default_timeout=60).run()


def test_the_page_opens_ready_to_animate_a_bundled_character(page):
    assert not page.exception
    assert page.title[0].value == "Animate"
    assert page.selectbox(key="character").value == "juice-box"
    assert not page.button(key="animate").disabled
    assert "wave" in page.selectbox(key="motion").value


def test_without_a_picture_of_ones_own_there_is_nothing_to_animate(page):
    page.radio(key="who").set_value("My picture").run()
    assert page.button(key="animate").disabled
    assert "Choose a picture" in page.caption[0].value


def test_a_click_animates_and_shows_video_sheet_and_command(page, picture, tiny_model, tmp_path):
    from studio.jobs import Job

    page.radio(key="who").set_value("My picture").run()
    page.file_uploader(key="reference").set_value(("figure.png", picture.read_bytes(), "image/png"))
    page.text_input(key="model").set_value(str(tiny_model))
    page.number_input(key="steps").set_value(1)
    page.text_area(key="prompt").set_value("-- a red figure")
    page.run()
    assert not page.button(key="animate").disabled
    page.button(key="animate").click().run()
    assert not page.exception
    (folder,) = (tmp_path / "runs" / "app").iterdir()
    assert Job(folder).wait(120).state == "done"
    page.run()
    assert not page.error, page.error[0].value
    assert page.get("video")
    assert "17 frames of 32x48" in " ".join(caption.value for caption in page.caption)
    assert "studio animate" in page.code[0].value
    assert (folder / "animation.mp4").is_file()
    assert json.loads((folder / "animation.json").read_text())["request"]["prompt"] == "-- a red figure"


def test_a_reload_finds_the_job_again(page, tmp_path):
    folder = tmp_path / "runs" / "app" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / "command.json").write_text('["animate"]')
    (folder / "stdout.txt").write_text('{"error": "--seed x: must be a whole number", "exit_code": 2}\n')
    page.query_params["job"] = folder.name
    page.run()
    assert page.error[0].value == "--seed x: must be a whole number"


def test_an_address_cannot_reach_outside_the_jobs_folder(page, tmp_path):
    (tmp_path / "command.json").write_text('["animate"]')
    page.query_params["job"] = "../.."
    page.run()
    assert not page.exception
    assert page.info[0].value == "The video appears here."


def test_an_upload_keeps_only_its_suffix(tmp_path):
    from studio.ui.pages.animate import keep_upload

    assert keep_upload(tmp_path, "reference", "../../evil.PNG", b"x") == tmp_path / "reference.png"


def test_a_job_tells_how_it_stands(tmp_path):
    from studio.jobs import start

    job = start(["motions"], tmp_path)
    status = job.wait(60)
    assert status.state == "done"
    assert len(status.result["motions"]) >= 12


def test_a_job_that_was_refused_says_why(tmp_path):
    from studio.jobs import start

    status = start(["motoins"], tmp_path).wait(60)
    assert status.state == "failed"
    assert "did you mean 'motions'?" in status.result["error"]


def test_a_job_without_a_process_or_a_result_has_failed(tmp_path):
    from studio.jobs import Job

    (tmp_path / "command.json").write_text("[]")
    (tmp_path / "stderr.txt").write_text("denoising: 3/20 steps, 1.0 steps/s\nKilled\n")
    status = Job(tmp_path).status()
    assert status.state == "failed"
    assert "Killed" in status.result["error"]
    assert status.share == pytest.approx(3 / 20)


def test_the_app_listens_on_this_machine_only_and_sends_no_statistics():
    import tomllib

    config = tomllib.loads((Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text())
    assert config["server"]["address"] == "127.0.0.1"
    assert config["browser"]["gatherUsageStats"] is False


def test_the_launcher_has_no_logic():
    assert len((Path(__file__).parents[2] / "app.py").read_text().splitlines()) <= 20
