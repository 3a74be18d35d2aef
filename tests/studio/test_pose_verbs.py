"""`studio pose`: what the Pose page does, without a browser."""

import json
import shutil

import pytest


def test_edit_repairs_smooths_and_trims_in_one_go(studio, keypoints, tmp_path):
    from pose.readers import read_keypoints

    output = tmp_path / "edited.json"
    ran = studio("pose", "edit", keypoints, "--output", output, "--fix", "2:right_wrist=40,50",
                 "--fix", "3:left_knee=missing", "--fill-gaps", 2, "--smooth", 5, "--first", 1, "--last", 4,
                 "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.result["frames"] == 4 and ran.result["missing"] == 0
    edited = read_keypoints(output)
    assert edited.xy[1, 4].tolist() == [40.0, 50.0]  # what is set by hand is not smoothed
    assert edited.visible.all() and edited.fps == 6.0


def test_edit_names_doubtful_frames_as_the_input_counts_them(studio, keypoints, tmp_path):
    ran = studio("pose", "edit", keypoints, "--output", tmp_path / "edited.json", "--fix", "4:all=missing",
                 "--first", 2, "--json")  # fmt: skip
    assert ran.code == 0
    assert ran.result["doubtful_frames"] == [4]
    assert "note: frame 4: nobody is seen" in ran.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--fix", "2:right_paw=1,2"), "no joint 'right_paw'"),
        (("--fix", "nonsense"), "12:right_wrist=120,88"),
        (("--fix", "9:nose=1,2"), "frames 0 to 5"),
        (("--smooth", 4), "--smooth 4: must be an odd number of frames; try 3 or 5"),
        (("--first", 4, "--last", 2), "frames 4 to 2"),
        (("--fill-gaps", -1), "--fill-gaps -1"),
    ],
)
def test_edits_that_cannot_be_are_refused_and_nothing_is_written(studio, keypoints, tmp_path, flags, message):
    output = tmp_path / "edited.json"
    ran = studio("pose", "edit", keypoints, "--output", output, *flags)
    assert ran.code == 2
    assert message in ran.err and not output.exists()


def test_the_flags_of_edits_make_the_same_edits():
    from studio.cli.flags import parse_flags
    from studio.pose_edits import PoseEdits

    edits = PoseEdits(fix=("1:nose=3,4",), fill_gaps=3, smooth=7, last=9)
    assert edits.flags() == ["--fix=1:nose=3,4", "--fill-gaps=3", "--smooth=7", "--last=9"]
    assert parse_flags("x", PoseEdits, edits.flags()) == edits


def test_everyone_in_a_video_gets_a_file(studio, shared_data, tmp_path, needs_detector):
    video = tmp_path / "dance.mp4"
    shutil.copy(shared_data / "driving" / "dance1_right.mp4", video)
    ran = studio("pose", "extract", video, "--everyone", "--num-frames", 4, "--output", tmp_path / "K.json", "--json")
    assert ran.code == 0, ran.err
    files = [one["output"] for one in ran.result["everyone"]]
    assert files[0] == str(tmp_path / "K-1.json") and json.loads((tmp_path / "K-1.json").read_text())["frames"]
    refused = studio("pose", "extract", video, "--everyone", "--person", 1, "--output", tmp_path / "K.json")
    assert refused.code == 2 and "--everyone" in refused.err


def test_align_takes_adjustments_and_tells_what_would_look_bad(studio, keypoints, tmp_path):
    output = tmp_path / "aligned.json"
    ran = studio("pose", "align", "--driving", keypoints, "--reference", keypoints, "--adjust", "shift_y=0.5",
                 "--output", output, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "leaves the picture" in ran.result["findings"][0]
