"""Shards of encoded clips, and what the animator is told of them."""

from dataclasses import fields

import pytest
import torch

from training.data.latents import LatentClips, encode_specs
from training.data.world import clip_spec
from training.tasks import Task


def encode(learner, count=3, piece=8):
    specs = [clip_spec("train", k) for k in range(count)]
    return encode_specs(specs, learner._encoders(), num_frames=5, piece=piece, autocast=False)


def assert_same(one: LatentClips, other: LatentClips, **tolerance: float) -> None:
    for field in fields(LatentClips):
        a, b = getattr(one, field.name), getattr(other, field.name)
        torch.testing.assert_close(a, b, **(tolerance or {"atol": 0, "rtol": 0}), msg=field.name)


def test_the_same_shard_twice_is_equal(make_animator):
    learner = make_animator()
    one = learner._shard("animation", 3, 5, 4)
    learner._shards.clear()
    assert_same(one, learner._shard("animation", 3, 5, 4))
    assert not torch.equal(one.latents, learner._shard("animation", 4, 5, 4).latents)


def test_a_shard_does_not_depend_on_how_many_clips_are_encoded_at_a_time(make_animator):
    learner = make_animator()
    assert_same(encode(learner), encode(learner, piece=2), atol=2e-3, rtol=2e-3)


def test_take_takes_every_field_of_the_chosen_clips(make_animator):
    shard = encode(make_animator())
    some = shard.take(torch.tensor([2, 0, 2]))
    assert len(shard) == len(some) == 3
    for field in fields(LatentClips):
        assert torch.equal(getattr(some, field.name), getattr(shard, field.name)[[2, 0, 2]])


def test_the_driving_body_is_another_one_with_the_same_motion(make_animator):
    shard = encode(make_animator())
    assert shard.motion.shape[:2] == shard.motion_xy.shape[:2] == (3, 5)
    for k in range(3):
        own, other = shard.xy[k], shard.motion_xy[k]
        assert (own - other).abs().max() > 1
        thigh, twin = (xy[:, 9] - xy[:, 8] for xy in (own, other))
        torch.testing.assert_close(
            thigh / thigh.norm(dim=-1, keepdim=True), twin / twin.norm(dim=-1, keepdim=True), atol=1e-3, rtol=0
        )


def test_a_clip_gives_the_poses_that_a_detector_would(make_animator):
    shard = encode(make_animator())
    poses, reference = shard.poses(1, (128, 128)), shard.reference_pose(1, (128, 128))
    assert poses.xy.shape == (5, 18, 2) and reference.xy.shape == (1, 18, 2)
    missing = poses.confidence == 0
    assert (poses.xy[missing] == -1).all()


def samples(learner):
    """A batch of one step of one process."""
    return learner.batch(learner.tasks[0], 0, learner.config.batch_size, torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("setting", "dropped"),
    [
        ("pose_dropout", {"explicit", "reference_pose"}),
        ("implicit_dropout", {"implicit"}),
        ("image_dropout", {"reference", "image"}),
        ("text_dropout", {"text"}),
    ],
)
def test_dropout_leaves_out_the_chosen_parts_and_no_others(setting, dropped, make_animator):
    never = {"pose_dropout": 0.0, "implicit_dropout": 0.0, "image_dropout": 0.0, "text_dropout": 0.0}
    learner = make_animator(**{**never, setting: 1.0}, background_weight=0.0)
    batch = samples(learner)
    with torch.no_grad():
        told = vars(learner.conditioning(batch, torch.Generator().manual_seed(1)))
        whole = vars(learner.conditioning(batch, None))
        empty = learner.text_encoder.encode([""])
    for part, value in whole.items():
        if part not in dropped:
            assert torch.equal(told[part], value), part
        elif part == "text":
            assert torch.equal(told[part], empty.expand_as(value).to(value))
        else:
            assert (told[part] == 0).all() and (value != 0).any(), part


def test_dropout_is_drawn_for_each_clip_alone(make_animator):
    learner = make_animator(implicit_dropout=0.5, background_weight=0.0, batch_size=3)
    with torch.no_grad():
        counts = [
            int(
                (learner.conditioning(samples(learner), torch.Generator().manual_seed(k)).implicit == 0)
                .all((1, 2))
                .sum()
            )
            for k in range(12)
        ]
    assert {1, 2} & set(counts)  # some batches are mixed


def test_a_background_clip_is_told_nothing_of_a_pose(make_animator):
    learner = make_animator()
    batch = learner.batch(Task(name="background"), 0, learner.config.batch_size, torch.Generator().manual_seed(0))
    told = learner.conditioning(batch, None)
    assert told.explicit is None and told.implicit is None and told.reference_pose is None
    assert told.image is not None and told.reference[:, 4:].abs().max() > 0
    assert (told.reference[:, :4, 0] == 1).all() and (told.reference[:, :4, 1:] == 0).all()


def test_whole_clips_follow_short_ones_even_within_a_shard_number(make_animator):
    """A resumed run has no short shard in memory; one that never stopped has, and must not use it."""
    learner = make_animator(num_frames=9, short_frames=5, short_share=0.5, steps=2, batch_size=1, background_weight=0.0)
    frames = [
        learner.batch(learner.tasks[0], first, 1, torch.Generator().manual_seed(0)).clips.latents.shape[2]
        for first in (0, 1)
    ]
    assert frames == [2, 3]


def test_epi_bends_the_driving_skeleton_and_not_what_else_the_animator_is_told(make_animator):
    from pose.augment import EPIConfig

    batches = [samples(make_animator(epi=EPIConfig(probability=p), background_weight=0.0)) for p in (0.0, 1.0)]
    straight, bent = batches
    assert not torch.equal(straight.skeletons.pose, bent.skeletons.pose)
    assert torch.equal(straight.clips.latents, bent.clips.latents)
    assert torch.equal(straight.skeletons.reference_pose, bent.skeletons.reference_pose)
    assert torch.equal(straight.skeletons.keypoints, bent.skeletons.keypoints)
