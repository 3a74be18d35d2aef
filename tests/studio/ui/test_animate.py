"""The Animate and Background pages, driven as a user does; the work runs in real processes of the command line."""

import json
import shutil

import pytest


@pytest.fixture
def page(open_page):
    return open_page()


def _uploaded(page, picture):
    page.button_group(key="animate.picture_source").set_value("Upload").run()
    page.file_uploader(key="animate.picture").set_value(("figure.png", picture.read_bytes(), "image/png"))
    return page.run()


def test_the_page_opens_ready_to_animate_a_bundled_character(page):
    assert not page.exception
    assert page.title[0].value == "Animate"
    assert page.selectbox(key="animate.character").value == "juice-box"
    assert page.selectbox(key="animate.motion").value == "wave"
    assert not page.button(key="animate.go").disabled
    assert "Nothing was made yet" in page.info[0].value


def test_the_motion_can_be_seen_moving_before_anything_is_made(page):
    still = page.get("image")[1].proto.imgs[0]
    assert still.caption == "The pose it takes in frame 0"
    page.toggle(key="animate.play").set_value(True).run()
    assert not page.exception
    moving = page.get("image")[1].proto.imgs[0]
    assert moving.caption == "The motion that it takes over" and moving.url != still.url
    assert moving.url.endswith(".gif")
    assert page.slider(key="animate.moment").disabled


def test_without_a_picture_of_ones_own_there_is_nothing_to_animate(page):
    page.button_group(key="animate.picture_source").set_value("Upload").run()
    assert page.button(key="animate.go").disabled
    assert "Choose a picture first." in [caption.value for caption in page.caption]


def test_a_file_that_is_no_picture_is_refused_by_name(page):
    page.button_group(key="animate.picture_source").set_value("Upload").run()
    page.file_uploader(key="animate.picture").set_value(("cat.png", b"no picture at all", "image/png"))
    page.run()
    assert "cat.png" in page.error[0].value
    assert page.button(key="animate.go").disabled


def test_the_limits_of_the_settings_hold_for_uploads(page, picture, monkeypatch):
    monkeypatch.setenv("STUDIO_UPLOADS_PICTURE_MEGAPIXELS", "1")
    from PIL import Image

    large = picture.parent / "large.png"
    Image.new("RGB", (1100, 1000)).save(large)
    _uploaded(page, large)
    assert "megapixels" in page.error[0].value and page.button(key="animate.go").disabled


def test_a_click_animates_and_shows_video_sheet_and_command(page, picture, tiny_model, queue, work, type_in):
    _uploaded(page, picture)
    type_in(page.selectbox(key="animate.model"), str(tiny_model))
    page.number_input(key="animate.num_inference_steps").set_value(1)
    page.text_area(key="animate.prompt").set_value("-- a red figure")
    page.run()
    page.button(key="animate.go").click().run()
    assert not page.exception
    work()
    page.run()
    assert not page.error, page.error[0].value
    assert page.get("video")
    assert "17 frames of 32x48" in " ".join(caption.value for caption in page.caption)
    assert "studio animate" in page.code[0].value
    (job,) = queue.jobs()
    assert job.state == "done"
    sidecar = json.loads((job.folder / "animation.json").read_text())
    assert sidecar["request"]["prompt"] == "-- a red figure"
    assert sidecar["metrics"]["colour_drift"][0] == 0 and len(sidecar["metrics"]["colour_drift"]) == 17
    assert (job.folder / "live.png").is_file()
    assert "live" not in sidecar["request"]


def test_the_settings_of_a_result_come_back_into_the_form(page, picture, tiny_model, queue, work, type_in):
    _uploaded(page, picture)
    type_in(page.selectbox(key="animate.model"), str(tiny_model))
    page.number_input(key="animate.num_inference_steps").set_value(1)
    page.number_input(key="animate.seed").set_value(42)
    page.slider(key="animate.adjust.arms").set_value(1.25)
    page.run()
    page.button(key="animate.go").click().run()
    work()
    page.run()
    page.number_input(key="animate.seed").set_value(1)
    page.slider(key="animate.adjust.arms").set_value(0.8).run()
    page.button(key="animate.reuse").click().run()
    assert not page.exception
    assert page.number_input(key="animate.seed").value == 42
    assert page.slider(key="animate.adjust.arms").value == 1.25
    assert page.selectbox(key="animate.model").value == str(tiny_model)
    assert page.button_group(key="animate.picture_source").value == "Chosen"
    page.button(key="animate.go").click().run()
    first, second = sorted(queue.jobs(), key=lambda job: job.id)
    assert [w for w in first.words if not w.startswith(("--output", "--live"))] == [
        w for w in second.words if not w.startswith(("--output", "--live"))
    ]


def test_several_seeds_become_several_jobs_shown_together(page, queue):
    page.number_input(key="animate.seed").set_value(5)
    page.number_input(key="animate.seeds").set_value(3)
    page.run()
    page.button(key="animate.go").click().run()
    assert not page.exception
    assert sorted(w for job in queue.jobs() for w in job.words if w.startswith("--seed")) == [
        "--seed=5", "--seed=6", "--seed=7"
    ]  # fmt: skip
    assert sum(button.label.startswith("Open ") for button in page.button) == 3


def test_the_dice_gives_another_seed(page):
    page.button(key="animate.dice").click().run()
    first = page.number_input(key="animate.seed").value
    page.button(key="animate.dice").click().run()
    assert (first, page.number_input(key="animate.seed").value) != (0, 0)


def test_a_running_job_can_be_cancelled_from_the_page(page, queue):
    page.button(key="animate.go").click().run()
    (job,) = queue.jobs()
    page.button(key=f"watch.{job.id}.cancel").click().run()
    assert queue.job(job.id).state == "cancelled"
    assert page.error[0].value == "It was cancelled."


def test_a_reload_finds_the_job_again(queue, open_page):
    job = queue.submit(["animate", "--reference=rabbit", "--driving=wave"])
    queue.change(job.id, state="failed", error="--seed x: must be a whole number", ended=1.0)
    page = open_page()
    page.query_params["job"] = str(job.id)
    page.run()
    assert page.error[0].value == "--seed x: must be a whole number"


@pytest.mark.parametrize("number", ["../..", "7", "99999999999999999999", "-1", "²"])
def test_an_address_that_names_no_job_shows_none(page, number):
    page.query_params["job"] = number
    page.run()
    assert not page.exception
    assert "Nothing was made yet" in page.info[0].value


def test_a_video_that_was_deleted_is_told(page, queue, open_page):
    job = queue.submit(["animate", "--reference=rabbit", "--driving=wave"])
    queue.change(job.id, state="done", ended=1.0, result={"output": str(queue.root / "gone.mp4"), "fps": 12})
    page.query_params["job"] = str(job.id)
    page.run()
    assert not page.exception
    assert "not there any more" in page.warning[0].value


def test_what_was_typed_is_there_again_after_another_page(page, go_to):
    page.text_area(key="animate.prompt").set_value("a rabbit waves").run()
    assert go_to(page, "background").title[0].value == "Background"
    go_to(page, "animate")
    assert page.text_area(key="animate.prompt").value == "a rabbit waves"


def test_a_picture_that_cannot_move_says_so_before_the_render(page, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    _uploaded(page, tmp_path / "white.png")
    assert not page.exception
    assert any("skeleton" in one.value for one in [*page.warning, *page.info])


def test_a_skeleton_of_ones_own_is_used_and_comes_back_with_the_settings(page, queue, tmp_path):
    from pose.motions import make_motion
    from pose.readers import keypoints_json

    keypoints = keypoints_json(make_motion("wave").frame(0))
    page.file_uploader(key="animate.skeleton_file").set_value(("own.json", keypoints.encode(), "application/json"))
    page.run()
    assert not page.exception and not page.error
    page.button(key="animate.go").click().run()
    (job,) = queue.jobs()
    (word,) = [word for word in job.words if word.startswith("--reference-pose=")]
    queue.change(job.id, state="failed", error="no", ended=1.0)
    page.file_uploader(key="animate.skeleton_file").set_value([]).run()
    page.button(key="animate.reuse").click().run()
    assert not page.exception
    page.button(key="animate.go").click().run()
    assert word in max(queue.jobs(), key=lambda job: job.id).words


def test_a_skeleton_that_is_none_is_refused_by_name(page):
    page.file_uploader(key="animate.skeleton_file").set_value(("own.json", b"{", "application/json")).run()
    assert not page.exception
    assert "own.json" in page.error[0].value


def test_the_pose_shown_is_that_of_the_settings(page):
    before = page.get("image")[1].proto.imgs[0].url
    page.selectbox(key="animate.align").set_value("none").run()
    assert not page.exception
    assert page.get("image")[1].proto.imgs[0].url != before


def test_the_background_page_needs_a_text_and_then_makes_a_job(open_page, queue):
    page = open_page("background")
    assert page.button(key="background.go").disabled
    page.text_area(key="background.prompt").set_value("clouds drift").run()
    page.button(key="background.go").click().run()
    assert not page.exception
    (job,) = queue.jobs()
    assert job.words[:1] == ("background",) and "--prompt=clouds drift" in job.words


@pytest.mark.parametrize("name", ["model", "adapter"])
def test_a_model_or_adapter_from_elsewhere_is_refused(page, queue, tmp_path, name, type_in):
    (tmp_path / "secret").mkdir()
    if name == "model":
        type_in(page.selectbox(key="animate.model"), str(tmp_path / "secret"))
        page.run()
    else:
        page.multiselect(key="animate.adapters").set_value([str(tmp_path / "secret")]).run()
    page.button(key="animate.go").click().run()
    assert not page.exception
    assert any("outside the folders" in error.value for error in page.error)
    assert not queue.jobs()


def test_an_adapter_from_another_page_stands_in_the_form(open_page, tmp_path):
    page = open_page()
    page.session_state["animate.handed"] = {"adapter": ("/x/adapter.safetensors:0.5", "/y/adapter.safetensors")}
    page.run()
    assert page.multiselect(key="animate.adapters").value == ["/x/adapter.safetensors", "/y/adapter.safetensors"]
    assert page.slider(key="animate.weight./x/adapter.safetensors").value == 0.5
    page.session_state["animate.handed"] = {"adapter": ("/x/adapter.safetensors",)}
    page.run()
    assert page.slider(key="animate.weight./x/adapter.safetensors").value == 1  # not what was chosen before


def test_adapters_and_models_of_this_machine_are_in_the_lists_each_adapter_with_a_weight(open_page, queue, runs):
    (runs / "red").mkdir(parents=True)
    (runs / "red" / "adapter.safetensors").write_bytes(b"x")
    (runs / "mine").mkdir()
    (runs / "mine" / "model_index.json").write_text("{}")
    page = open_page()
    assert {"red"} <= set(page.multiselect(key="animate.adapters").options)
    assert page.selectbox(key="animate.model").options == ["mini", "mine"]
    file = str(runs / "red" / "adapter.safetensors")
    page.multiselect(key="animate.adapters").set_value([file]).run()
    page.slider(key=f"animate.weight.{file}").set_value(0.75).run()
    page.button(key="animate.go").click().run()
    assert not page.exception and not page.error
    assert f"--adapter={file}:0.75" in queue.jobs()[0].words


def test_a_queue_that_cannot_be_opened_is_told_on_every_page(open_page, runs):
    runs.mkdir()
    (runs / "studio.db").write_bytes(b"no database" * 1000)
    page = open_page()
    assert not page.exception
    assert "cannot be opened" in page.error[0].value
    shutil.rmtree(runs)


def test_the_app_listens_on_this_machine_only_and_sends_no_statistics():
    import tomllib
    from pathlib import Path

    config = tomllib.loads((Path(__file__).parents[3] / ".streamlit" / "config.toml").read_text())
    assert config["server"]["address"] == "127.0.0.1"
    assert config["browser"]["gatherUsageStats"] is False


def test_the_launcher_has_no_logic():
    from pathlib import Path

    assert len((Path(__file__).parents[3] / "app.py").read_text().splitlines()) <= 20
