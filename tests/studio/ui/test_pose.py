"""The Pose page, driven as a user does."""

import json

import pytest


@pytest.fixture
def page(open_page):
    return open_page("pose")


@pytest.fixture
def waving(page):
    page.button(key="pose.open").click().run()
    assert not page.exception and not page.error
    return page


def show(page, panel):
    page.segmented_control(key="pose.panel").set_value(panel).run()
    assert not page.exception


def edits_of(runs):
    (file,) = (runs / "clips").glob("*/edits.json")
    kept = json.loads(file.read_text())
    return kept["people"][str(kept["person"])]


def shown(page):
    return " ".join(caption.value for caption in page.caption)


def test_the_page_opens_with_a_motion_to_choose(page):
    assert not page.exception
    assert page.title[0].value == "Pose"
    assert page.selectbox(key="pose.motion").value == "wave"
    assert not page.button(key="pose.open").disabled


@pytest.mark.parametrize("source", ["Video", "Picture", "Keypoint file"])
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


def test_edits_are_kept_undone_and_done_again(waving, runs):
    waving.number_input(key="pose.smooth").set_value(7).run()
    waving.slider(key="pose.range").set_value((4, 20)).run()
    assert not waving.exception
    assert "17 frames of" in shown(waving)
    assert edits_of(runs) | {"fix": []} == {"fix": [], "fill_gaps": 0, "smooth": 7, "first": 4, "last": 20}
    show(waving, "Keep")
    assert any("--smooth=7 --first=4 --last=20" in code.value for code in waving.code)
    show(waving, "Clean up")
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
    show(waving, "Joints")
    waving.selectbox(key="pose.lost").set_value("right_wrist")
    waving.number_input(key="pose.lost.10").set_value(13).run()
    waving.button(key="pose.lose").click().run()
    show(waving, "Clean up")
    assert "4 joints missing" in shown(waving)
    assert "Joints are lost" in waving.warning[0].value.replace("\\", "")
    assert "right wrist is lost" in shown(waving)
    waving.number_input(key="pose.fill_gaps").set_value(4).run()
    assert "· 0 joints missing" in shown(waving)


def test_buttons_lead_to_the_doubtful_frames(waving):
    assert waving.button(key="pose.go.keyboard_double_arrow_right").disabled
    waving.slider(key="pose.frame").set_value(30).run()
    show(waving, "Joints")
    waving.button(key="pose.lose").click().run()
    waving.slider(key="pose.frame").set_value(0).run()
    waving.button(key="pose.go.keyboard_double_arrow_right").click().run()
    assert waving.slider(key="pose.frame").value == 30
    assert "nobody is seen" in shown(waving)


def test_a_reload_finds_clip_and_edits_again(waving, runs, open_page, go_to):
    waving.number_input(key="pose.smooth").set_value(5).run()
    again = open_page()
    again.query_params["clip"] = next((runs / "clips").iterdir()).name
    go_to(again, "pose")
    assert not again.exception
    assert again.number_input(key="pose.smooth").value == 5


def test_another_page_and_back_keeps_the_clip(waving, go_to):
    waving.slider(key="pose.frame").set_value(9).run()
    go_to(waving, "animate")
    go_to(waving, "pose")
    assert not waving.exception
    assert waving.slider(key="pose.frame").value == 9


@pytest.mark.parametrize("name", ["../..", "nothing", "."])
def test_an_address_cannot_reach_outside_the_clips(page, runs, name):
    (runs / "clips").mkdir(parents=True)
    (runs / "clip.json").write_text("{}")
    page.query_params["clip"] = name
    page.run()
    assert not page.exception
    assert page.selectbox(key="pose.motion")


def test_a_file_that_is_no_keypoints_is_refused_by_its_name_and_leaves_nothing(page, runs):
    page.segmented_control(key="pose.source").set_value("Keypoint file").run()
    page.file_uploader(key="pose.keypoints").set_value(("dance*.json", b'{"a": 1}', "application/json")).run()
    page.button(key="pose.open").click().run()
    assert not page.exception
    assert "dance" in page.error[0].value
    assert "runs" not in page.error[0].value
    assert not (runs / "clips").exists()


def test_each_of_several_people_has_edits_of_their_own(page):
    people = [{"pose_keypoints_2d": [v for k in range(18) for v in (left + k, 10 + 3 * k, 0.9)]} for left in (20, 200)]
    content = json.dumps([{"people": people}] * 3).encode()
    page.segmented_control(key="pose.source").set_value("Keypoint file").run()
    page.file_uploader(key="pose.keypoints").set_value(("two.json", content, "application/json")).run()
    page.button(key="pose.open").click().run()
    assert not page.exception and not page.error
    show(page, "Clean up")
    page.number_input(key="pose.smooth").set_value(5).run()
    page.segmented_control(key="pose.people").set_value("2").run()
    assert page.number_input(key="pose.smooth").value != 5
    page.segmented_control(key="pose.people").set_value("1").run()
    assert page.number_input(key="pose.smooth").value == 5
    page.segmented_control(key="pose.people").set_value("2").run()
    show(page, "Keep")
    assert any("keypoints-2.json" in code.value for code in page.code)


def test_saving_gives_a_file_of_its_own_each_time(waving, runs):
    from pose.readers import read_keypoints

    waving.slider(key="pose.range").set_value((0, 9)).run()
    show(waving, "Keep")
    for _ in range(2):
        waving.text_input[0].set_value("../my wave")
        waving.button(key="pose.save").click().run()
    assert not waving.exception
    files = sorted(path.name for path in (runs / "poses").iterdir())
    assert files == ["my-wave-2.json", "my-wave.json"]
    assert len(read_keypoints(runs / "poses" / "my-wave.json")) == 10


def test_the_fit_shows_the_motion_on_a_character_and_warns(waving, needs_detector):
    show(waving, "Fit")
    assert waving.image
    waving.slider(key="pose.adjust.shift_x").set_value(0.9).run()
    assert not waving.exception
    assert any("leaves the picture" in warning.value for warning in waving.warning)
    assert any("--adjust shift_x=0.9" in code.value for code in waving.code)
    waving.button(key="pose.adjust.none").click().run()
    assert waving.slider(key="pose.adjust.shift_x").value == 0.0


def test_animate_with_this_hands_poses_adjustment_and_character_over(waving, runs, go_to, needs_detector):
    show(waving, "Fit")
    waving.slider(key="pose.adjust.arms").set_value(1.2).run()
    show(waving, "Keep")
    waving.button(key="pose.animate").click().run()
    assert not waving.exception
    (saved,) = (runs / "poses").iterdir()
    assert waving.title[0].value == "Animate"
    assert waving.session_state["animate.chosen_driving"] == str(saved)
    assert waving.slider(key="animate.adjust.arms").value == 1.2


def open_video(page, name, content, frames):
    page.segmented_control(key="pose.source").set_value("Video").run()
    page.file_uploader(key="pose.video").set_value((name, content, "video/mp4")).run()
    page.number_input(key="pose.num_frames").set_value(frames).run()
    page.button(key="pose.open").click().run()
    assert not page.exception and not page.error


def test_a_video_is_read_by_a_job_and_shown_when_it_is_done(page, shared_data, needs_detector, work):
    open_video(page, "dance.mp4", (shared_data / "driving" / "dance1_right.mp4").read_bytes(), 5)
    assert page.button(key="pose.close")
    work()
    page.run()
    assert not page.exception and not page.error
    assert "5 frames of" in shown(page)
    assert page.text[0].value == "dance.mp4"


def test_a_video_without_a_person_says_so_and_can_be_tried_again(page, beep_video, needs_detector, work):
    open_video(page, "beep.mp4", beep_video.read_bytes(), 2)
    work()
    page.run()
    assert not page.exception
    assert "no person found" in page.error[0].value
    assert any(button.label == "Try again" for button in page.button)


def test_edits_that_do_not_fit_the_clip_can_be_forgotten(waving, runs, open_page, go_to):
    (clip,) = (runs / "clips").iterdir()
    (clip / "edits.json").write_text('{"person": 0, "people": {"0": {"fix": ["900:nose=1,2"]}}}')
    again = open_page()
    again.query_params["clip"] = clip.name
    go_to(again, "pose")
    assert "frame 900 is not there" in again.error[0].value
    again.button(key="pose.forget").click().run()
    assert not again.exception and not again.error


def test_the_skeleton_of_a_picture_is_found_at_once_and_can_be_kept(page, runs, needs_detector):
    from studio.characters import character_file

    page.segmented_control(key="pose.source").set_value("Picture").run()
    content = character_file("rabbit").read_bytes()
    page.file_uploader(key="pose.still").set_value(("rabbit.png", content, "image/png")).run()
    page.button(key="pose.open").click().run()
    assert not page.exception and not page.error
    assert "1 frame of" in shown(page)
    assert "can be fitted" in page.success[0].value
    show(page, "Keep")
    page.button(key="pose.save").click().run()
    assert any("--reference-pose" in code.value for code in page.code)
    assert (runs / "poses" / "rabbit.json").is_file()


def test_the_skeleton_of_a_picture_goes_to_the_animate_page_with_it(page, runs, queue, go_to, needs_detector):
    from studio.characters import character_file

    page.segmented_control(key="pose.source").set_value("Picture").run()
    content = character_file("rabbit").read_bytes()
    page.file_uploader(key="pose.still").set_value(("rabbit.png", content, "image/png")).run()
    page.button(key="pose.open").click().run()
    show(page, "Keep")
    page.button(key="pose.animate").click().run()
    assert not page.exception and not page.error
    assert page.title[0].value == "Animate"
    skeleton = runs / "poses" / "rabbit.json"
    go_to(page, "animate")
    assert any("rabbit.json" in caption.value for caption in page.caption)
    page.button(key="animate.go").click().run()
    page.button(key="animate.detect").click().run()
    page.button(key="animate.go").click().run()
    assert not page.exception and not page.error
    first, second = sorted(queue.jobs(), key=lambda job: job.id)
    assert f"--reference-pose={skeleton}" in first.words
    assert not any(word.startswith("--reference-pose") for word in second.words)
