from itertools import pairwise

import pytest
import torch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_latents", [1, 4, 5, 6, 7, 8, 49, 50])
@pytest.mark.parametrize(("window", "overlap"), [(5, 2), (5, 1), (21, 4)])
def test_windows_cover_every_latent_frame_with_weight(num_latents, window, overlap):
    from models.windows import plan_windows

    windows = plan_windows(num_latents, window, overlap)
    weight = torch.zeros(num_latents)
    for w in windows:
        assert w.stop - w.start == min(window, num_latents) == len(w.weights)
        weight[w.start : w.stop] += w.weights
    assert (weight > 0).all()
    for before, after in pairwise(windows):
        assert before.stop - after.start >= overlap


def test_the_first_latent_frame_of_a_later_window_counts_nothing():
    from models.windows import plan_windows

    first, second = plan_windows(8, 5, 2)
    assert first.weights.tolist() == [1, 1, 1, 1, 0.5]
    assert second.weights.tolist() == [0, 0.5, 1, 1, 1]


def test_blending_windows_of_one_video_gives_that_video_back():
    from models.windows import blend, plan_windows

    video = torch.randn(1, 2, 13, 3, 3, generator=generator())
    windows = plan_windows(13, 5, 2)
    torch.testing.assert_close(blend(windows, [w.take(video) for w in windows], 13), video)


def test_default_overlaps_are_2_of_the_mini_and_4_of_the_released_window():
    from models.windows import default_overlap

    assert (default_overlap(5), default_overlap(21), default_overlap(1)) == (2, 4, 0)


def test_an_overlap_as_long_as_the_window_is_refused():
    from models.windows import plan_windows

    with pytest.raises(ValueError, match="must overlap by 1 to 4, got 5"):
        plan_windows(9, 5, 5)


def test_the_colour_lock_leaves_the_first_window_alone_and_takes_a_slow_drift_away():
    from models.windows import ColourLock

    still = torch.rand(1, 3, 1, 8, 8, generator=generator()) - 0.5
    drift = torch.linspace(0, 0.4, 60).reshape(1, 1, 60, 1, 1)
    video = still + drift
    lock = ColourLock(first_frames=9)
    locked = torch.cat([lock(video[:, :, :9]), lock(video[:, :, 9:])], dim=2)
    assert torch.equal(locked[:, :, :9], video[:, :, :9])
    assert (locked[:, :, -1].mean() - video[:, :, :9].mean()).abs() < 0.1
    assert (video[:, :, -1].mean() - video[:, :, :9].mean()).abs() > 0.3


# through the pipeline


@pytest.fixture(scope="module")
def animate(tiny):
    from pose.motions import make_motion

    def call(num_poses, **changes):
        request = {
            "reference": torch.full((32, 32, 3), 90, dtype=torch.uint8),
            "poses": make_motion("wave", num_frames=num_poses, frame_size=(32, 32)),
            "generator": generator(),
            "output_type": "pt",
            "num_inference_steps": 1,
        }
        return tiny(**(request | changes)).frames

    return call


def test_every_pose_makes_a_frame_whatever_their_number(animate):
    for count in (1, 2, 9, 10, 23):
        assert animate(count).shape[1] == count


def test_194_frames_at_128_by_128_work(animate):
    video = animate(194, height=128, width=128, driving_frames=torch.zeros(194, 20, 20, 3, dtype=torch.uint8))
    assert video.shape == (1, 194, 3, 128, 128)
    assert video.isfinite().all()


def test_windows_of_a_longer_clip_take_their_slice_of_the_pose_of_the_whole_clip(animate, tiny, monkeypatch):
    from models.conditioning import encode_pose_clip
    from pose.motions import make_motion

    calls = []
    forward = tiny.transformer.forward
    monkeypatch.setattr(tiny.transformer, "forward", lambda **inputs: calls.append(inputs) or forward(**inputs))
    animate(17, guidance_scale=1.0)
    poses = make_motion("wave", num_frames=17, frame_size=(32, 32))
    with torch.no_grad():
        whole = encode_pose_clip(tiny.epi, poses, size=(32, 32), device=torch.device("cpu"))
    starts = [0, 1, 2]  # 5 latent frames in windows of 3 that share 2
    assert len(calls) == len(starts)
    for start, call in zip(starts, calls, strict=True):
        expected = whole[:, :, start : start + 3].flatten(2).transpose(1, 2)
        torch.testing.assert_close(call["pose_tokens"], expected)


@pytest.mark.parametrize("piece", [1, 2, 5])
@pytest.mark.parametrize("num_frames", [1, 5, 33])
def test_a_pose_clip_encoded_in_pieces_is_the_clip_encoded_at_once(piece, num_frames):
    from models.conditioning import encode_pose_clip, pose_pixels
    from pose.explicit import ExplicitPoseIndicator
    from pose.motions import make_motion

    torch.manual_seed(0)
    epi = ExplicitPoseIndicator(hidden_channels=4, dim=8).eval()  # the released strides
    poses = make_motion("jump", num_frames=num_frames, frame_size=(32, 32))
    with torch.no_grad():
        once = epi.encode_pose_map(pose_pixels(poses, (32, 32)))
        pieces = encode_pose_clip(epi, poses, size=(32, 32), device=torch.device("cpu"), piece=piece)
    torch.testing.assert_close(pieces, once, atol=1e-6, rtol=1e-5)


def test_locked_colours_change_later_windows_only(animate):
    free, locked = animate(25), animate(25, lock_colours=True)
    assert torch.equal(free[:, :9], locked[:, :9])
    assert not torch.equal(free[:, 9:], locked[:, 9:])
