"""What is looked at before an animation is made."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pose.adjustment import Adjustment
from studio.preflight import look_ahead


@pytest.fixture(scope="module")
def found():
    return look_ahead(Path("juice-box"), "wave")


def frames(gif):
    return [
        np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(gif)))
    ]


def test_the_moving_preview_takes_as_long_as_the_motion_and_moves(found):
    gif = found.fitted_clip(Adjustment())
    with Image.open(io.BytesIO(gif)) as clip:
        assert clip.info["loop"] == 0 and max(clip.size) == 320
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(clip)]
    assert 1 < len(durations) <= 48
    assert sum(durations) / 1000 == pytest.approx(found.fitted.duration_s, abs=2 * durations[0] / 1000)
    shown = frames(gif)
    assert any(np.abs(frame - shown[0]).max() > 100 for frame in shown[1:])
    assert len(gif) < 3_000_000


def test_the_moving_preview_shows_what_is_changed_by_hand(found):
    plain, moved = (frames(found.fitted_clip(Adjustment(shift_x=x)))[0] for x in (0.0, 0.2))
    assert np.abs(plain - moved).max() > 100
    assert found.fitted_clip(Adjustment()) is found.fitted_clip(Adjustment())  # made once


def test_the_still_is_the_frame_that_is_asked_for(found):
    first, later = (found.fitted_overlay(k, Adjustment()).astype(int) for k in (0, len(found.fitted) // 2))
    assert np.abs(first - later).max() > 100
    assert found.reference_overlay().shape == first.shape
