"""A skeleton that no body can have is told from one that stands."""

import pytest
import torch

from pose.motions import MOTIONS, make_motion
from pose.plausible import why_implausible
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS


def standing() -> PoseSequence:
    return make_motion("wave", num_frames=5).frame(0)


def moved(body: PoseSequence, **joints: tuple[float, float]) -> PoseSequence:
    xy = body.xy.clone()
    for name, place in joints.items():
        xy[0, JOINTS.index(name)] = torch.tensor(place)
    return PoseSequence(xy=xy, confidence=body.confidence, frame_size=body.frame_size, fps=body.fps)


def without(body: PoseSequence, *joints: str) -> PoseSequence:
    confidence = body.confidence.clone()
    confidence[0, [JOINTS.index(name) for name in joints]] = 0
    return PoseSequence(xy=body.xy, confidence=confidence, frame_size=body.frame_size, fps=body.fps)


@pytest.mark.parametrize("name", ["wave", "wave-both", "walk"])
def test_bodies_of_the_bundled_motions_are_plausible(name):
    assert name in MOTIONS
    assert why_implausible(make_motion(name, num_frames=5).frame(0)) is None


def test_what_no_body_has_is_named():
    width, height = standing().frame_size
    assert "no trunk" in (why_implausible(without(standing(), "neck")) or "")
    assert "no trunk" in (why_implausible(without(standing(), "left_hip", "right_hip")) or "")
    assert "ankle" in (why_implausible(moved(standing(), left_ankle=(width * 3.0, height * 3.0))) or "")
    upside_down = moved(standing(), left_hip=(0.0, 0.0), right_hip=(1.0, 0.0), neck=(0.0, height * 0.9))
    assert "above its neck" in (why_implausible(upside_down) or "")
    few = without(standing(), *(j for j in JOINTS if "elbow" in j or "knee" in j or "eye" in j or j == "nose"))
    assert "bones, 6 are needed" in (why_implausible(few) or "")


def test_missing_limbs_are_no_fault():
    one_arm = without(standing(), "left_elbow", "left_wrist")
    assert why_implausible(one_arm) is None
