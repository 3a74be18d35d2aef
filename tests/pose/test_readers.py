import json
import math

import pytest
import torch

COCO_ORDER = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
"""Our joint at each place of COCO-17."""


@pytest.fixture
def save(tmp_path):
    def make(content, name="pose.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return make


def rows(pose, frame=0):
    """[x, y, confidence] of one frame."""
    return [[x, y, c] for (x, y), c in zip(pose.xy[frame].tolist(), pose.confidence[frame].tolist(), strict=True)]


def flat(points):
    return [number for point in points for number in point]


def openpose18(pose, **changes):
    frames = [rows(pose, k) for k in range(len(pose))]
    return {"width": 100, "height": 120, "fps": 12.0, "format": "openpose18 (x px, ...)", "frames": frames, **changes}


def assert_same(read, pose, atol=1e-3):
    assert torch.equal(read.visible, pose.visible)
    torch.testing.assert_close(read.xy, pose.xy, atol=atol, rtol=0)


# Our own


@pytest.mark.parametrize("extras", [False, True])
def test_what_is_written_is_read_again(make_pose, tmp_path, extras):
    from pose.readers import read_keypoints, write_keypoints

    pose = make_pose(missing=(4, 16), extras=extras)
    write_keypoints(tmp_path / "k.json", pose)
    read = read_keypoints(tmp_path / "k.json")
    assert_same(read, pose)
    assert (read.frame_size, read.fps) == (pose.frame_size, pose.fps)
    for name in ("hands", "face", "feet"):
        assert (getattr(read, name) is not None) == extras
        if extras:
            torch.testing.assert_close(getattr(read, name), getattr(pose, name), atol=1e-3, rtol=0)


def test_the_written_file_says_its_schema_and_marks_missing_joints_null(make_pose, tmp_path):
    from pose.readers import write_keypoints

    write_keypoints(tmp_path / "k.json", make_pose(1, missing=(4,)))
    content = json.loads((tmp_path / "k.json").read_text())
    assert (content["schema"], content["version"]) == ("animatex-studio/pose", 1)
    assert (content["width"], content["height"], content["fps"]) == (100, 120, 12.0)
    assert content["joints"][1] == "neck" and content["frames"][0]["body"][4] is None
    assert content["frames"][0]["body"][1] == [50.0, 35.0, 1.0]


def test_a_failed_write_leaves_nothing_behind(make_pose, tmp_path):
    from dataclasses import replace

    from pose.readers import write_keypoints

    with pytest.raises(ValueError):
        write_keypoints(tmp_path / "k.json", replace(make_pose(1), fps=math.inf))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"schema": "other/pose"}, {"version": 2}])
def test_another_schema_or_version_is_refused(make_pose, save, tmp_path, change):
    from pose.readers import read_keypoints, write_keypoints

    write_keypoints(tmp_path / "k.json", make_pose(1))
    content = {**json.loads((tmp_path / "k.json").read_text()), **change}
    with pytest.raises(ValueError, match="this program reads 'animatex-studio/pose' version 1"):
        read_keypoints(save(content))


# Other programs


def test_openpose18_files_are_read(make_pose, save):
    from pose.readers import read_keypoints

    pose = make_pose(3, missing=(10,))
    read = read_keypoints(save(openpose18(pose)))
    assert_same(read, pose)
    assert read.fps == 12.0 and read.frame_size == (100, 120)


@pytest.mark.parametrize("count", [18, 25])
def test_a_folder_of_openpose_frames_is_read(make_pose, tmp_path, count):
    from pose.readers import read_keypoints

    pose = make_pose(3, missing=(7,))
    for frame in range(3):
        points = rows(pose, frame)
        points = [p if p[2] else [0, 0, 0] for p in points]  # OpenPose's mark of missing
        if count == 25:
            points = [*points[:8], [50, 65, 1], *points[8:], *[[k, 110, 1] for k in range(6)]]
        person = {"pose_keypoints_2d": flat(points), "face_keypoints_2d": []}
        name = f"clip_{frame:012d}_keypoints.json"
        (tmp_path / name).write_text(json.dumps({"version": 1.3, "people": [person]}))
    read = read_keypoints(tmp_path, frame_size=(100, 120), fps=25.0)
    assert_same(read, pose)
    assert (read.fps, read.frame_size) == (25.0, (100, 120))
    if count == 25:  # the right toes come last in BODY_25
        assert read.feet[0, :, 0].tolist() == [3, 4, 5, 0, 1, 2]


def test_without_a_size_the_canvas_goes_around_all_points(make_pose, save):
    from pose.readers import DEFAULT_FPS, read_keypoints

    person = {"pose_keypoints_2d": flat(rows(make_pose(1)))}
    read = read_keypoints(save({"people": [person]}))
    assert read.frame_size == (71, 106) and read.fps == DEFAULT_FPS


def test_openpose_parts_of_the_picture_become_px(make_pose, save):
    from pose.readers import read_keypoints

    pose = make_pose(1)
    points = [[x / 100, y / 120, c] for x, y, c in rows(pose)]
    frame = {"people": [{"pose_keypoints_2d": flat(points)}]}
    assert_same(read_keypoints(save([{**frame, "canvas_width": 100, "canvas_height": 120}])), pose)
    with pytest.raises(ValueError, match="canvas_width"):
        read_keypoints(save(frame))


@pytest.mark.parametrize("form", ["annotations", "results"])
def test_coco_gets_its_neck_between_the_shoulders(make_pose, save, form):
    from pose.readers import read_keypoints

    pose = make_pose(3, missing=(10,))
    items = []
    for frame in range(3):
        points = [rows(pose, frame)[joint] for joint in COCO_ORDER]
        points = [[x, y, 2] if c else [0, 0, 0] for x, y, c in points]
        items.append({"image_id": 7 + frame, "keypoints": flat(points)})
    images = [{"id": 7 + k, "file_name": f"{k:04d}.png", "width": 100, "height": 120} for k in range(3)]
    content = {"images": images, "annotations": items} if form == "annotations" else items
    read = read_keypoints(save(content), frame_size=(100, 120))
    assert_same(read, pose)
    assert read.frame_size == (100, 120)


def test_an_image_without_people_is_a_frame_with_all_joints_missing(make_pose, save):
    from pose.readers import read_keypoints

    points = [rows(make_pose(1))[joint] for joint in COCO_ORDER]
    images = [{"id": k, "file_name": f"{k}.png", "width": 100, "height": 120} for k in range(3)]
    content = {"images": images, "annotations": [{"image_id": k, "keypoints": flat(points)} for k in (0, 2)]}
    read = read_keypoints(save(content))
    assert read.visible.any(1).tolist() == [True, False, True]


@pytest.mark.parametrize("count", [17, 18, 133, 134])
@pytest.mark.parametrize("form", ["rtmlib", "mmpose"])
def test_rtmlib_and_mmpose_results_are_read(make_pose, save, count, form):
    from pose.readers import read_keypoints

    pose = make_pose(2)
    frames = []
    for frame in range(2):
        body = rows(pose, frame) if count in (18, 134) else [rows(pose, frame)[joint] for joint in COCO_ORDER]
        rest = [[float(k), float(k), 0.9] for k in range(116)] if count > 18 else []
        frames.append(body + rest)
    if form == "rtmlib":
        content = {
            "width": 100, "height": 120, "fps": 12,
            "keypoints": [[[p[:2] for p in frame]] for frame in frames],
            "scores": [[[p[2] for p in frame]] for frame in frames],
        }  # fmt: skip
    else:
        content = {
            "instance_info": [
                {"frame_id": k, "instances": [{"keypoints": [p[:2] for p in f], "keypoint_scores": [p[2] for p in f]}]}
                for k, f in enumerate(frames)
            ]
        }
    read = read_keypoints(save(content))
    assert_same(read, pose)
    if count > 18:  # feet 0-5 left first, face 6-73, left hand 74-94, right hand 95-115
        assert read.feet[0, :, 0].tolist() == [3, 4, 5, 0, 1, 2]
        assert read.hands[0, [0, 21], 0].tolist() == [95, 74]
        assert read.face[0, 0, 0] == 6


def test_dwpose_dictionaries_are_read(make_pose, save):
    from pose.readers import read_keypoints

    pose = make_pose(2, missing=(3,))
    frames = []
    for frame in range(2):
        candidate = [[x / 100, y / 120] for x, y, _ in rows(pose, frame)]
        subset = [[float(k) if k != 3 else -1.0 for k in range(18)]]
        frames.append({"bodies": {"candidate": candidate, "subset": subset}, "hands": [], "faces": []})
    assert_same(read_keypoints(save({"width": 100, "height": 120, "frames": frames})), pose)


def test_points_without_confidence_are_missing_and_confidence_ends_at_one(make_pose, save):
    from pose.readers import read_keypoints

    content = openpose18(make_pose(1))
    content["frames"][0][4] = [12.0, 13.0, 0.0]
    content["frames"][0][5] = [12.0, 13.0, 1.7]
    content["frames"][0][6] = [-1, -1, 0.9]
    read = read_keypoints(save(content))
    assert read.xy[0, 4].tolist() == [-1, -1] and read.confidence[0, 5] == 1.0 and not read.visible[0, 6]


# Several people


def test_several_people_are_listed_and_one_is_chosen_from_the_left(make_pose, save):
    from pose.readers import read_keypoints
    from pose.track import PoseNotFoundError, SeveralPeopleError

    left, right = make_pose(4), make_pose(4, shift=(200.0, 0.0))
    content = [
        {"people": [{"pose_keypoints_2d": flat(rows(p, k))} for p in ((left, right) if k % 2 else (right, left))]}
        for k in range(4)
    ]
    path = save(content)
    with pytest.raises(SeveralPeopleError, match=r"2 people found in .*pose\.json.*--person N"):
        read_keypoints(path)
    assert_same(read_keypoints(path, person=1), left)
    assert_same(read_keypoints(path, person=2), right)
    with pytest.raises(PoseNotFoundError, match="choose 1 to 2"):
        read_keypoints(path, person=3)


def test_one_person_who_leaps_stays_one_person(make_pose, save):
    from pose.readers import read_keypoints

    pose = make_pose(6)
    content = openpose18(pose)
    for frame in (3, 4, 5):
        content["frames"][frame] = [[x + 5000, y, c] for x, y, c in content["frames"][frame]]
    assert len(read_keypoints(save(content))) == 6


def test_nobody_in_the_file_is_said(make_pose, save):
    from pose.readers import read_keypoints
    from pose.track import PoseNotFoundError

    for content in ({"people": []}, openpose18(make_pose(1, missing=range(18)))):
        with pytest.raises(PoseNotFoundError, match="no person found"):
            read_keypoints(save(content))


# Bad files


@pytest.mark.parametrize("count", [17, 19, 0])
def test_a_wrong_number_of_joints_is_refused(make_pose, save, count):
    from pose.readers import read_keypoints

    content = openpose18(make_pose(2))
    content["frames"][1] = [[1.0, 2.0, 1.0]] * count
    with pytest.raises(ValueError, match=r"frame 1|pose\.json"):
        read_keypoints(save(content))


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_refused_by_name(make_pose, save, bad):
    from pose.readers import read_keypoints

    content = openpose18(make_pose(2))
    content["frames"][1][3][0] = float(bad.replace("Infinity", "inf"))
    with pytest.raises(ValueError, match=r"frame 1: joint 3 .*not finite"):
        read_keypoints(save(content))


@pytest.mark.parametrize("bad", ["12", True, None, [1]])
def test_joints_that_are_no_numbers_are_refused(make_pose, save, bad):
    from pose.readers import read_keypoints

    content = openpose18(make_pose(1))
    content["frames"][0][3][0] = bad
    with pytest.raises(ValueError, match=r"pose\.json"):
        read_keypoints(save(content))


@pytest.mark.parametrize(
    "change", [{"fps": 0}, {"fps": -3}, {"width": "wide"}, {"height": None}, {"fps": float("nan")}, {"frames": []}]
)
def test_impossible_headers_are_refused(make_pose, save, change):
    from pose.readers import read_keypoints

    with pytest.raises(ValueError, match=r"pose\.json"):
        read_keypoints(save(openpose18(make_pose(1), **change)))


@pytest.mark.parametrize(
    "content",
    ["", "hello", "[]", "{}", "3", '"people"', "null", '{"frames": 3}', '{"people": 5}', '[{"people": null}]',
     '{"annotations": [{}]}', '{"instance_info": [{"instances": [{"keypoints": []}]}]}', "[" * 100000,
     '{"schema": "animatex-studio/pose", "version": 1}', '{"format": "openpose18", "frames": [[1, 2]]}',
     '{"keypoints": [[]], "scores": []}', '{"frames": [{"bodies": {}}]}', '[{"image_id": 1}]'],
)  # fmt: skip
def test_files_that_are_something_else_get_one_clear_message(save, content):
    from pose.readers import read_keypoints

    with pytest.raises(ValueError, match=r"pose\.json"):
        read_keypoints(save(content))


def test_pickles_binaries_and_missing_files_are_refused(tmp_path):
    from pose.readers import read_keypoints

    (tmp_path / "pose.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "pose.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("pose.pkl", "only JSON"), ("pose.json", "is not JSON"), ("none.json", "does not exist"), ("folder", "no .json")
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            read_keypoints(tmp_path / name)


def test_real_keypoints_are_read_whole(driving_folder):
    from pose.readers import read_keypoints

    read = read_keypoints(driving_folder / "dance_1.keypoints.json")
    assert len(read) == 194 and read.fps == 24.0 and read.frame_size == (512, 758)
    assert read.visible.float().mean() > 0.99


def test_everyone_in_a_file_is_read_from_left_to_right(tmp_path):
    import json

    from pose.readers import read_everyone, read_keypoints

    def person(x):
        return {"pose_keypoints_2d": [v for k in range(18) for v in (x + k, 10 + 3 * k, 0.9)]}

    for index in range(3):
        frame = {"people": [person(200 + index), person(20 + index)]}
        (tmp_path / f"{index:03}_keypoints.json").write_text(json.dumps(frame))
    left, right = read_everyone(tmp_path, frame_size=(320, 100))
    assert left.xy[0, 0, 0] == 20 and right.xy[0, 0, 0] == 200 and len(left) == 3
    assert (read_keypoints(tmp_path, person=2, frame_size=(320, 100)).xy == right.xy).all()
