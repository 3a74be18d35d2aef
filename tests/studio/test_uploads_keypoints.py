"""Keypoint files from outside."""

import json
import pickle

import pytest

from studio.errors import RequestError
from studio.uploads import Limits, keep_keypoints


def refused(content, tmp_path, limits=None):
    with pytest.raises(RequestError) as caught:
        keep_keypoints("walk.json", content, tmp_path, limits=limits)
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value).startswith("keypoint file walk.json: ")
    assert "upload.json" not in str(caught.value)
    return str(caught.value)


def clip(frames, **changed):
    return json.dumps({"width": 64, "height": 64, "fps": 12.0, "format": "openpose18 (x px, y px, confidence)",
                       "frames": frames} | changed).encode()  # fmt: skip


def test_keypoints_are_kept_in_our_own_format(tmp_path):
    from pose.readers import read_keypoints

    kept = keep_keypoints("../w.json", clip([[[3.0, 4.0, 1.0]] * 18] * 5), tmp_path)
    assert kept.name.startswith("keypoints-") and kept.parent == tmp_path
    assert json.loads(kept.read_text())["schema"] == "animatex-studio/pose"
    assert len(read_keypoints(kept)) == 5


def test_several_people_are_asked_about_and_one_is_kept(tmp_path):
    from pose.track import SeveralPeopleError

    bodies = [[v for k in range(18) for v in (x + k, 2.0 * k, 1.0)] for x in (10.0, 200.0)]
    content = json.dumps({"people": [{"pose_keypoints_2d": body} for body in bodies]}).encode()
    with pytest.raises(SeveralPeopleError):
        keep_keypoints("two.json", content, tmp_path)
    assert keep_keypoints("two.json", content, tmp_path, person=2) != keep_keypoints(
        "two.json", content, tmp_path, person=1
    )


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty, 0 bytes"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[" * 100_000, "has lists 100000 deep"),
        (clip([[[float("nan"), 3.0, 1.0]] * 18]), "has NaN in it"),
        (clip([[[float("inf"), 3.0, 1.0]] * 18]), "has Infinity in it"),
        (clip([[[3.0, 3.0, 1.0]] * 17]), "17"),
        (clip([]), "frame"),
        (clip([[[-1.0, -1.0, 0.0]] * 18]), "choose a file with a person"),
        (b'{"a": 1}', "export the keypoints as JSON again"),
        (pickle.dumps({"a": 1}), "only JSON is read"),
        (b"9" * 10_000, "is not JSON"),
    ],
)
def test_what_is_no_keypoint_file_is_refused(content, part, tmp_path):
    assert part in refused(content, tmp_path)


def test_numbers_too_large_for_a_float_are_refused(tmp_path):
    refused(clip([[[3.0, 3.0, 1.0]] * 18]).replace(b"3.0", b"1e999"), tmp_path)


def test_brackets_in_texts_are_not_counted(tmp_path):
    keep_keypoints("w.json", clip([[[3.0, 4.0, 1.0]] * 18], source='[[[{{{"' * 50), tmp_path)


def test_too_large_or_too_long_is_refused(tmp_path):
    assert "is larger than 1 MB" in refused(bytes(1_100_000), tmp_path, Limits(keypoints_mb=1))
    assert "has 5 frames, and the most is 4" in refused(
        clip([[[3.0, 4.0, 1.0]] * 18] * 5), tmp_path, Limits(keypoints_frames=4)
    )
