import pytest
import torch

SIZES = dict(
    clip_dim=10,
    keypoint_lift_dim=8,
    dim=16,
    out_dim=12,
    keypoint_layers=2,
    keypoint_heads=2,
    keypoint_ffn_dim=20,
    max_frames=20,
    resampler_layers=2,
    resampler_heads=2,
    resampler_head_dim=6,
    time_map="mean",
)


def make_ipi(*, moved=True, **changes):
    """Builds a small indicator; `moved` fills the zero-initialised layers, as training would."""
    from pose.implicit import ImplicitPoseIndicator

    torch.manual_seed(0)
    ipi = ImplicitPoseIndicator(**(SIZES | changes)).eval()
    if moved:
        for layer in (ipi.to_motion, ipi.keypoint_encoder.head[-1]):
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    return ipi


def make_inputs(batch=2, frames=9):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, frames, 10, generator=generator), torch.rand(batch, frames, 36, generator=generator)


def test_the_released_sizes_are_the_defaults():
    from pose.implicit import ImplicitPoseIndicator

    with torch.device("meta"):
        ipi = ImplicitPoseIndicator()

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    assert round(count(ipi.keypoint_encoder) / 1e6, 2) == 21.55
    assert round((ipi.query.numel() + count(ipi.layers, ipi.image_in, ipi.out, ipi.norm_out)) / 1e6, 1) == 102.8
    assert count(ipi.frame_map) == 81 * 21 * 3 + 21
    assert count(ipi.to_motion) == 1024 * 5120 + 5120


@torch.no_grad()
@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (5, 2), (17, 5)])
def test_the_mean_map_takes_any_length_of_4k_plus_1(frames, latent_frames):
    assert make_ipi()(*make_inputs(frames=frames)).shape == (2, latent_frames, 12)


@torch.no_grad()
def test_the_mean_map_takes_frame_zero_alone_then_means_of_four():
    ipi = make_ipi()
    tokens = torch.arange(9.0).reshape(1, 9, 1)
    assert ipi._to_latent_frames(tokens).flatten().tolist() == [0, 2.5, 6.5]


@torch.no_grad()
def test_the_released_map_slides_over_features_with_frames_as_channels():
    ipi = make_ipi(time_map="conv", num_frames=9, num_latent_frames=3)
    assert ipi.frame_map.weight.shape == (3, 9, 3)
    assert ipi(*make_inputs(frames=9)).shape == (2, 3, 12)


@torch.no_grad()
def test_the_released_indicator_holds_the_end_of_a_shorter_clip():
    from models.indicators import _tokens

    ipi = make_ipi(time_map="conv", num_frames=9, num_latent_frames=3)
    features, keypoints = make_inputs(frames=5)
    held = ipi(*(torch.cat([part, part[:, -1:].expand(-1, 4, -1)], dim=1) for part in (features, keypoints)))
    torch.testing.assert_close(_tokens(ipi, features, keypoints), held[:, :2])
    whole = make_inputs(frames=9)
    torch.testing.assert_close(_tokens(ipi, *whole), ipi(*whole))


def test_wrong_lengths_are_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"4k \+ 1, got 8; try 9"):
        make_ipi()(*make_inputs(frames=8))
    with pytest.raises(ValueError, match="exactly 9 frames, got 5"):
        make_ipi(time_map="conv", num_frames=9, num_latent_frames=3)(*make_inputs(frames=5))
    with pytest.raises(ValueError, match="at most 20 frames"):
        make_ipi()(*make_inputs(frames=21))


@torch.no_grad()
def test_a_batch_of_two_equals_two_runs():
    ipi = make_ipi()
    clip, keypoints = make_inputs()
    each = [ipi(clip[i : i + 1], keypoints[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(ipi(clip, keypoints), torch.cat(each), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_resampler_sees_one_frame_at_a_time():
    # Only the keypoint encoder looks along time: a change of one frame's picture moves that frame's token alone.
    ipi = make_ipi(time_map="conv", num_frames=9, num_latent_frames=9)
    torch.nn.init.zeros_(ipi.frame_map.weight)
    torch.nn.init.zeros_(ipi.frame_map.bias)
    ipi.frame_map.weight[torch.arange(9), torch.arange(9), 1] = 1  # latent k is frame k
    clip, keypoints = make_inputs()
    changed = clip.clone()
    changed[:, 4] += 1
    moved = (ipi(clip, keypoints) - ipi(changed, keypoints)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.tolist() == [index == 4 for index in range(9)]


@torch.no_grad()
def test_keypoints_of_one_frame_reach_the_others_through_time():
    ipi = make_ipi()
    _, keypoints = make_inputs()
    changed = keypoints.clone()
    changed[:, 4] = -1
    moved = (ipi.encode_keypoints(keypoints) - ipi.encode_keypoints(changed)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.all()


def test_a_new_indicator_adds_exactly_nothing():
    assert not make_ipi(moved=False)(*make_inputs()).any()


def test_the_keypoint_head_learns_only_after_the_output_layer_has_moved():
    ipi = make_ipi(moved=False)

    def head_gradient():
        ipi.zero_grad()
        ipi(*make_inputs()).sum().backward()
        return ipi.keypoint_encoder.head[-1].weight.grad.abs().sum()

    assert head_gradient() == 0
    assert ipi.to_motion.weight.grad.abs().sum() > 0
    torch.nn.init.normal_(ipi.to_motion.weight)
    assert head_gradient() > 0


def test_the_lift_has_no_activation():
    lift = make_ipi().keypoint_encoder.lift
    assert [type(layer) for layer in lift] == [torch.nn.Linear, torch.nn.Linear]


@torch.no_grad()
def test_saving_and_loading_gives_the_same_output(tmp_path):
    from pose.implicit import ImplicitPoseIndicator

    ipi = make_ipi()
    ipi.save_pretrained(tmp_path)
    loaded = ImplicitPoseIndicator.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(*make_inputs()), ipi(*make_inputs()))
    assert loaded.config.time_map == "mean"


def test_keypoint_features_are_18_x_then_18_y_with_missing_ones_minus_one():
    from pose.implicit import keypoint_features
    from pose.sequence import PoseSequence

    xy = torch.full((1, 18, 2), 10.0)
    xy[0, 1] = torch.tensor([20.0, 30.0])
    confidence = torch.ones(1, 18)
    confidence[0, 3] = 0
    features = keypoint_features(PoseSequence(xy=xy, confidence=confidence, frame_size=(40, 50), fps=12))
    assert features.shape == (1, 36)
    assert features[0, 0] == pytest.approx(0.25)
    assert features[0, [1, 18 + 1]].tolist() == pytest.approx([0.5, 0.6])
    assert features[0, [3, 18 + 3]].tolist() == [-1, -1]
