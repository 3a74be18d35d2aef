"""What the pose tests share; our rooms are imported inside the fixtures, after the jaxtyping hook."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[3] / "shared"

STANDING = (
    (50, 20), (50, 35), (40, 35), (35, 50), (30, 65), (60, 35), (65, 50), (70, 65),
    (44, 65), (44, 85), (44, 105), (56, 65), (56, 85), (56, 105), (47, 17), (53, 17), (44, 18), (56, 18),
)  # fmt: skip
"""A frontal figure of round numbers, px on a 100x120 canvas."""


@pytest.fixture
def make_pose():
    """Makes a clip of the standing figure that waves its arms and steps to the right."""
    from pose.sequence import PoseSequence

    def make(num_frames=5, *, scale=1.0, shift=(0.0, 0.0), frame_size=(100, 120), missing=(), fps=12.0, extras=False):
        figure = torch.tensor(STANDING, dtype=torch.float32)
        xy = figure.repeat(num_frames, 1, 1)
        for k in range(num_frames):
            angle = torch.tensor(0.2 * k)
            turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
            for shoulder, arm in ((2, (3, 4)), (5, (6, 7))):
                for joint in arm:
                    xy[k, joint] = figure[shoulder] + turn @ (figure[joint] - figure[shoulder])
            xy[k, :, 0] += 2 * k
        xy = xy * scale + torch.tensor(shift)
        confidence = torch.ones(num_frames, 18)
        for joint in missing:
            xy[:, joint], confidence[:, joint] = -1.0, 0.0

        def points(count, roots):
            each = count // len(roots)
            root = xy[:, roots].repeat_interleave(each, 1)
            away = torch.arange(count)[:, None] % each % 5
            found = confidence[:, roots].repeat_interleave(each, 1)[..., None]
            return torch.cat([torch.where(found > 0, root + scale * away, -1.0), found], -1)

        return PoseSequence(
            xy=xy,
            confidence=confidence,
            frame_size=frame_size,
            fps=fps,
            hands=points(42, [4, 7]) if extras else None,
            face=points(68, [0]) if extras else None,
            feet=points(6, [10, 13]) if extras else None,
        )

    return make


@pytest.fixture
def driving_folder():
    """Real driving clips, where the checkout has them beside it."""
    folder = SHARED / "data" / "driving"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/driving (real dances; not part of the repository)")
    return folder
