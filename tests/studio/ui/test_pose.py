"""The Pose page, driven as a user does."""

import json
from pathlib import Path

import pytest


def page_of_its_own():
    from studio.ui.pages import pose

    pose.draw()


@pytest.fixture
def page(tmp_path, monkeypatch):
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path / "runs"))
    return AppTest.from_function(page_of_its_own, default_timeout=60).run()


@pytest.fixture
def waving(page):
    page.button(key="pose.open").click().run()
    assert not page.exception and not page.error
    return page


def edits_of(tmp_path):
    (file,) = (tmp_path / "runs" / "app").glob("*/edits.json")
    return json.loads(file.read_text())["edits"]


def shown(page):
    return " ".join(caption.value for caption in page.caption)


def test_the_page_opens_with_a_motion_to_choose(page):
    assert not page.exception
    assert page.title[0].value == "Pose"
    assert page.selectbox(key="pose.motion").value == "wave"
    assert not page.button(key="pose.open").disabled


@pytest.mark.parametrize("source", ["Video", "Keypoint file"])
def test_without_a_file_there_is_nothing_to_open_and_the_page_says_so(page, source):
    page.segmented_control(key="pose.source").set_value(source).run()
    assert page.button(key="pose.open").disabled
    assert "Choose a" in page.caption[-1].value


def test_without_earlier_clips_the_page_says_what_will_be_there(page):
    page.segmented_control(key="pose.source").set_value("Earlier clip").run()
    assert "Nothing was opened yet" in page.info[0].value


def test_a_bundled_motion_opens_clean_and_ready(waving):
    assert waving.text[0].value == "wave"
    assert "48 frames of 512x512 px" in shown(waving)
    assert "Ready to animate" in waving.success[0].value
    assert waving.button(key="pose.undo").disabled and waving.button(key="pose.redo").disabled


def test_edits_are_kept_undone_and_done_again(waving, tmp_path):
    waving.number_input(key="pose.smooth").set_value(7).run()
    waving.slider(key="pose.range").set_value((4, 20)).run()
    assert not waving.exception
    assert "17 frames of" in shown(waving)
    assert edits_of(tmp_path) | {"fix": []} == {"fix": [], "fill_gaps": 0, "smooth": 7, "first": 4, "last": 20}
    assert any("--smooth=7 --first=4 --last=20" in code.value for code in waving.code)
    waving.button(key="pose.undo").click().run()
    assert "48 frames of" in shown(waving)
    assert waving.number_input(key="pose.smooth").value == 7
    waving.button(key="pose.redo").click().run()
    assert waving.slider(key="pose.range").value == (4, 20)
    waving.button(key="pose.reset").click().run()
    assert waving.number_input(key="pose.smooth").value == 1
    assert not waving.button(key="pose.undo").disabled  # starting over can be undone


def test_a_joint_marked_missing_becomes_a_finding_and_a_gap_that_can_be_filled(waving):
    waving.slider(key="pose.frame").set_value(10).run()
    waving.selectbox(key="pose.lost").set_value("right_wrist")
    waving.number_input(key="pose.lost.10").set_value(13).run()
    waving.button(key="pose.lose").click().run()
    assert not waving.exception
    assert "4 joints missing" in shown(waving)
    assert "joints are lost" in waving.warning[0].value.replace("\\", "")
    assert "right wrist is lost" in shown(waving)
    waving.number_input(key="pose.fill_gaps").set_value(4).run()
    assert " 0 joints missing" in shown(waving)


def test_buttons_lead_to_the_doubtful_frames(waving):
    assert waving.button(key="pose.go.keyboard_double_arrow_right").disabled
    waving.slider(key="pose.frame").set_value(30).run()
    waving.button(key="pose.lose").click().run()
    waving.slider(key="pose.frame").set_value(0).run()
    waving.button(key="pose.go.keyboard_double_arrow_right").click().run()
    assert waving.slider(key="pose.frame").value == 30
    assert "nobody is seen" in shown(waving)


def test_a_reload_finds_clip_and_edits_again(waving, tmp_path):
    from streamlit.testing.v1 import AppTest

    waving.number_input(key="pose.smooth").set_value(5).run()
    again = AppTest.from_function(page_of_its_own, default_timeout=60)
    again.query_params["clip"] = next((tmp_path / "runs" / "app").iterdir()).name
    again.run()
    assert not again.exception
    assert again.number_input(key="pose.smooth").value == 5


@pytest.mark.parametrize("name", ["../..", "nothing", "."])
def test_an_address_cannot_reach_outside_the_clips(page, tmp_path, name):
    (tmp_path / "clip.json").write_text("{}")
    page.query_params["clip"] = name
    page.run()
    assert not page.exception
    assert page.selectbox(key="pose.motion")


def test_a_file_that_is_no_keypoints_is_refused_by_its_name_and_leaves_nothing(page, tmp_path):
    page.segmented_control(key="pose.source").set_value("Keypoint file").run()
    page.file_uploader(key="pose.keypoints").set_value(("dance*.json", b'{"a": 1}', "application/json")).run()
    page.button(key="pose.open").click().run()
    assert not page.exception
    assert "dance*.json" in page.error[0].value.replace("\\", "")
    assert "runs" not in page.error[0].value
    assert list((tmp_path / "runs" / "app").iterdir()) == []


def test_each_of_several_people_can_be_chosen(page):
    people = [{"pose_keypoints_2d": [v for k in range(18) for v in (left + k, 10 + 3 * k, 0.9)]} for left in (20, 200)]
    content = json.dumps([{"people": people}] * 3).encode()
    page.segmented_control(key="pose.source").set_value("Keypoint file").run()
    page.file_uploader(key="pose.keypoints").set_value(("two.json", content, "application/json")).run()
    page.button(key="pose.open").click().run()
    assert not page.exception and not page.error
    page.segmented_control(key="pose.people").set_value("2").run()
    assert not page.exception
    assert any("--person=2" in code.value for code in page.code)


def test_saving_gives_a_file_of_its_own_each_time(waving, tmp_path):
    from pose.readers import read_keypoints

    waving.slider(key="pose.range").set_value((0, 9)).run()
    for _ in range(2):
        waving.text_input[0].set_value("../my wave")
        waving.button(key="pose.save").click().run()
    assert not waving.exception
    files = sorted(path.name for path in (tmp_path / "runs" / "poses").iterdir())
    assert files == ["my-wave-2.json", "my-wave.json"]
    assert len(read_keypoints(tmp_path / "runs" / "poses" / "my-wave.json")) == 10


def test_the_fit_shows_the_motion_on_a_character_and_warns(waving, needs_detector):
    assert waving.image
    waving.slider(key="pose.adjust.shift_x").set_value(0.9).run()
    assert not waving.exception
    assert any("leaves the picture" in warning.value for warning in waving.warning)
    assert any("--adjust shift_x=0.9" in code.value for code in waving.code)
    waving.button(key="pose.adjust.none").click().run()
    assert waving.slider(key="pose.adjust.shift_x").value == 0.0


def test_animate_with_this_opens_the_animate_page_with_the_poses(tmp_path, monkeypatch):
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path / "runs"))
    app = AppTest.from_file(str(Path(__file__).parents[3] / "app.py"), default_timeout=60).run()
    app.session_state["animate.handed"] = {"driving": str(tmp_path / "my.json"), "adjust": {"arms": 1.2}}
    app.run()
    assert not app.exception
    assert app.radio(key="source").value == "From the Pose page"
    assert "arms 1.2" in shown(app)


def test_a_video_is_read_by_a_job_and_shown_when_it_is_done(page, shared_data, needs_detector, tmp_path):
    from studio.pose_clips import list_clips

    content = (shared_data / "driving" / "dance1_right.mp4").read_bytes()
    page.segmented_control(key="pose.source").set_value("Video").run()
    page.file_uploader(key="pose.video").set_value(("dance.mp4", content, "video/mp4")).run()
    page.number_input(key="pose.num_frames").set_value(5).run()
    page.button(key="pose.open").click().run()
    assert not page.exception
    (clip,) = list_clips()
    assert clip.job.wait(120).state == "done"
    page.run()
    assert not page.exception and not page.error
    assert "5 frames of" in shown(page)


def test_a_video_without_a_person_says_so(page, beep_video, needs_detector):
    from studio.pose_clips import list_clips

    page.segmented_control(key="pose.source").set_value("Video").run()
    page.file_uploader(key="pose.video").set_value(("beep.mp4", beep_video.read_bytes(), "video/mp4")).run()
    page.number_input(key="pose.num_frames").set_value(2).run()
    page.button(key="pose.open").click().run()
    (clip,) = list_clips()
    clip.job.wait(120)
    page.run()
    assert not page.exception
    assert "no person found" in page.error[0].value
