import pytest
import torch


def make_epi(**changes):
    from pose.explicit import ExplicitPoseIndicator

    torch.manual_seed(0)
    return ExplicitPoseIndicator(**(dict(hidden_channels=4, dim=12, reference_hidden_channels=4) | changes)).eval()


def test_the_released_sizes_are_the_defaults():
    from pose.explicit import ExplicitPoseIndicator

    with torch.device("meta"):
        epi = ExplicitPoseIndicator()
    assert sum(p.numel() for p in epi.pose_encoder.parameters()) == 368_752
    assert sum(p.numel() for p in epi.reference_encoder.parameters()) == 12_628


@torch.no_grad()
def test_a_clip_becomes_one_token_a_patch():
    epi = make_epi()
    pose = torch.rand(2, 3, 9, 32, 48)
    tokens, grid = epi.encode_pose(pose), epi.encode_pose_map(pose)
    assert grid.shape == (2, 12, 3, 2, 3)
    assert torch.equal(tokens, grid.flatten(2).transpose(1, 2))
    assert torch.equal(epi(pose), tokens)


@torch.no_grad()
def test_the_reference_becomes_one_map_of_all_its_channels():
    assert make_epi().encode_reference_pose(torch.rand(2, 3, 32, 48)).shape == (2, 20, 1, 4, 6)


@torch.no_grad()
def test_latent_frame_zero_starts_from_copies_of_frame_zero():
    epi = make_epi()
    pose = torch.rand(1, 3, 5, 32, 32)
    padded = torch.cat([pose[:, :, :1]] * 3 + [pose], dim=2)
    assert torch.equal(epi.encode_pose_map(pose), epi.pose_encoder(padded))


@torch.no_grad()
def test_a_still_clip_of_one_frame_works():
    assert make_epi().encode_pose_map(torch.rand(1, 3, 1, 32, 32)).shape == (1, 12, 1, 2, 2)


def test_other_lengths_are_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"4k \+ 1, got 8; try 9"):
        make_epi().encode_pose(torch.rand(1, 3, 8, 32, 32))


@torch.no_grad()
def test_a_window_by_itself_differs_so_the_whole_clip_is_encoded_once():
    epi = make_epi()
    pose = torch.rand(1, 3, 17, 32, 32)
    whole = epi.encode_pose_map(pose)
    assert not torch.allclose(whole[:, :, 2:3], epi.encode_pose_map(pose[:, :, 4:13])[:, :, 1:2])


@torch.no_grad()
def test_a_batch_of_two_equals_two_runs():
    epi = make_epi()
    pose = torch.rand(2, 3, 5, 32, 32)
    torch.testing.assert_close(epi(pose), torch.cat([epi(pose[:1]), epi(pose[1:])]), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_black_picture_is_not_no_pose():
    assert make_epi()(torch.zeros(1, 3, 5, 32, 32)).abs().sum() > 0


@torch.no_grad()
def test_zero_init_gives_exactly_nothing_and_changes_no_key():
    epi = make_epi(zero_init_pose=True)
    assert not epi(torch.rand(1, 3, 5, 32, 32)).any()
    assert not epi.encode_reference_pose(torch.rand(1, 3, 32, 32)).any()
    assert epi.state_dict().keys() == make_epi().state_dict().keys()


@torch.no_grad()
def test_fewer_layers_with_early_strides_give_the_same_grid():
    epi = make_epi(
        hidden_channels=(4, 6, 8),
        strides=((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        reference_hidden_channels=(4, 6),
        reference_strides=(2, 2, 2),
        reference_channels=20,
    )
    assert epi.encode_pose_map(torch.rand(1, 3, 17, 64, 64)).shape == (1, 12, 5, 4, 4)
    assert epi.encode_reference_pose(torch.rand(1, 3, 64, 64)).shape == (1, 20, 1, 8, 8)


def test_a_width_for_each_stride_is_asked_for():
    with pytest.raises(ValueError, match="2 channels and 6 strides"):
        make_epi(hidden_channels=(4, 4))


@torch.no_grad()
def test_saving_and_loading_gives_the_same_output(tmp_path):
    from pose.explicit import ExplicitPoseIndicator

    epi = make_epi()
    epi.save_pretrained(tmp_path)
    loaded = ExplicitPoseIndicator.from_pretrained(tmp_path).eval()
    pose = torch.rand(1, 3, 5, 32, 32)
    assert torch.equal(loaded(pose), epi(pose))
    assert torch.equal(loaded.encode_reference_pose(pose[:, :, 0]), epi.encode_reference_pose(pose[:, :, 0]))


@torch.no_grad()
def test_every_way_in_wakes_an_offloaded_indicator():
    # Model offload moves weights in `forward`; the pipeline calls the encoders by name.
    epi = make_epi()
    woken = []

    class Hook:
        def pre_forward(self, module, *args):
            woken.append(module)

    epi._hf_hook = Hook()
    epi.encode_pose_map(torch.rand(1, 3, 1, 32, 32))
    epi.encode_reference_pose(torch.rand(1, 3, 32, 32))
    assert len(woken) == 2
