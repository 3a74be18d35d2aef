"""What the Pose page decides, without the page."""

import pytest


@pytest.fixture
def wave():
    from pose.motions import make_motion

    return make_motion("wave", num_frames=6)


def test_the_table_has_a_row_for_each_joint_and_no_place_for_a_missing_one(wave):
    from studio.pose_table import joint_rows

    wave.confidence[2, 4] = 0.0
    rows = joint_rows(wave, 2)
    assert len(rows) == 18 and rows[3]["joint"] == "right elbow" and rows[3]["seen"]
    assert rows[4] == {"joint": "right wrist", "seen": False, "x": None, "y": None, "sure": 0.0}


def test_typed_numbers_and_ticks_become_fixes(wave):
    from studio.pose_table import fixes_of

    _, y = wave.xy[1, 0].tolist()
    fixes, wanting = fixes_of({"0": {"x": 33.5}, 4: {"seen": False}}, wave, 1)
    assert [str(fix) for fix in fixes] == [f"1:nose=33.5,{round(y, 1):g}", "1:right_wrist=missing"]
    assert wanting == []


def test_half_a_place_is_asked_for_and_a_tick_alone_puts_the_joint_in_the_middle(wave):
    from studio.pose_table import fixes_of

    wave.confidence[1, [4, 7]] = 0.0
    fixes, wanting = fixes_of({4: {"x": 3.0}, 7: {"seen": True}}, wave, 1)
    assert [str(fix) for fix in fixes] == ["1:left_wrist=64,64"]
    assert "right wrist needs x and y" in wanting[0]


def test_a_long_clip_is_put_together_and_its_least_sure_frame_counts():
    import numpy as np

    from pose.timeline import Doubt
    from studio.pose_table import LOOK_AT, MOST_COLUMNS, timeline_rows

    values = np.ones((1, 1000))
    values[0, 501] = 0.1
    doubts = [Doubt(frame=501, joint="left_knee", why="is lost")]
    rows = timeline_rows(["head"], values, doubts, first=0, last=999)
    assert len(rows) <= MOST_COLUMNS + 1
    assert [row["frame"] for row in rows if row.get("sure") == 0.1] == [500]
    assert [row["why"] for row in rows if row["part"] == LOOK_AT] == ["left knee is lost"]


def test_what_will_be_cut_off_is_not_kept_in_the_timeline():
    import numpy as np

    from studio.pose_table import timeline_rows

    rows = timeline_rows(["head"], np.ones((1, 6)), [], first=2, last=4)
    assert [row["kept"] for row in rows] == [False, False, True, True, True, False]


def test_the_next_doubtful_frame_is_found_in_both_directions():
    from pose.timeline import Doubt
    from studio.pose_table import next_doubt

    doubts = [Doubt(frame=k, joint=None, why="") for k in (7, 2, 2)]
    assert (next_doubt(doubts, 2), next_doubt(doubts, 2, back=True), next_doubt(doubts, 9, back=True)) == (7, None, 7)


def test_undo_and_redo_walk_and_a_new_step_forgets_what_was_undone():
    from studio.history import History

    history = History(1).then(2).then(3).undo()
    assert (history.present, history.redo().present, history.then(9).future) == (2, 3, ())
    assert history.then(2) is history
    assert History(1).undo() == History(1).redo() == History(1)


def test_a_later_fix_of_the_same_joint_and_frame_takes_the_place_of_the_older():
    from pose.fixes import JointFix
    from studio.pose_edits import PoseEdits

    edits = PoseEdits(fix=("1:nose=3,4", "2:nose=3,4"))
    fix = JointFix(first=1, last=1, joint="nose", xy=(9.0, 9.0))
    assert edits.with_fix(fix).fix == ("2:nose=3,4", "1:nose=9,9")


@pytest.mark.parametrize("content", ["", "[]", '{"person": "x"}', '{"people": {"0": {"smooth": 4}}}', '{"people": 3}'])
def test_edits_that_cannot_be_read_are_none(tmp_path, content):
    from studio.pose_clips import Clip
    from studio.pose_edits import PoseEdits

    (tmp_path / "edits.json").write_text(content)
    assert Clip(tmp_path).load_edits() == (0, PoseEdits())
