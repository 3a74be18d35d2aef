"""The drawn world: everything follows from a number, splits stay apart, and what is told is what is drawn."""

import re
from dataclasses import replace

import pytest
import torch

from pose.choreography import MOVES, joint_positions, rest
from training.data.backgrounds import DYNAMICS, PLACES, Scene, background
from training.data.captions import ACTIONS, DYNAMIC_WORDS, EAR_WORDS, NOUNS, PLACE_WORDS
from training.data.drawing import PATTERNS
from training.data.puppets import EARS, HATS, PLANS, Puppets, paint_puppets
from training.data.world import clip_spec, draw_clips, held_out, joints_of_specs, motion_angles

SPLITS = ("train", "val", "test")
FIELDS = ("video", "xy", "confidence", "reference", "reference_xy", "reference_confidence")
MAGENTA = torch.tensor([1.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def specs():
    """400 clips of each split and kind."""
    return {
        (split, kind): [clip_spec(split, k, kind) for k in range(400)]
        for split in SPLITS
        for kind in ("animation", "background")
    }


def pairs(spec):
    """The pairs of kinds of a clip, as `held_out` numbers them."""
    puppet, scene = spec.puppet, spec.scene
    return (
        (list(PLANS).index(puppet.plan), list(PATTERNS).index(puppet.pattern)),
        (list(PLACES).index(scene.place), list(DYNAMICS).index(scene.dynamic)),
    )


def draw_alone(puppet, *, size=(128, 128), ground=MAGENTA):
    """Paints one standing character on one colour; returns the picture and its joints."""
    puppets = Puppets([puppet])
    xy = puppets.place(joint_positions(rest(1)[None], puppets.body), size)
    canvas = ground[None, None, :, None, None].expand(1, 1, 3, size[1], size[0]).clone()
    paint_puppets(canvas, puppets, xy)
    return canvas[0, 0], xy[0, 0]


@pytest.mark.parametrize("kind", ["animation", "background"])
def test_the_same_number_is_the_same_clip_bit_for_bit(kind):
    one, two = clip_spec("train", 12, kind), clip_spec("train", 12, kind)
    assert one == two
    a, b = (draw_clips([spec], num_frames=3) for spec in (one, two))
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def test_no_clip_of_a_split_shares_its_draws_with_another_clip(specs):
    # the parts of train that recipes keep for themselves lie far out
    far = [clip_spec("train", 2**29 + k) for k in range(100)]
    draws = [(s.scene.seed, s.scene.speed, s.scene.strength) for some in (*specs.values(), far) for s in some]
    assert len(set(draws)) == len(draws)


def test_a_split_has_an_end():
    with pytest.raises(ValueError, match="clip 536870912 of val: it has the numbers 0 to 536870911"):
        clip_spec("val", 2**29)
    with pytest.raises(ValueError, match="clip -1 of train"):
        clip_spec("train", -1)


def test_training_never_sees_a_held_out_pair(specs):
    for kind in ("animation", "background"):
        assert not any(held_out(*pair) for spec in specs["train", kind] for pair in pairs(spec))


@pytest.mark.parametrize("split", ["val", "test"])
def test_half_of_the_measured_characters_and_backgrounds_are_held_out_pairs(specs, split):
    body = [held_out(*pairs(spec)[0]) for spec in specs[split, "animation"]]
    scene = [held_out(*pairs(spec)[1]) for spec in specs[split, "background"]]
    assert 0.4 < sum(body) / len(body) < 0.75
    assert 0.4 < sum(scene) / len(scene) < 0.75


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_of_thing_occurs_in_every_split(specs, split):
    animations, backgrounds = specs[split, "animation"], specs[split, "background"]
    assert {s.puppet.plan for s in animations} == set(PLANS)
    assert {s.puppet.pattern for s in animations} == set(PATTERNS)
    assert {s.puppet.ears for s in animations} == set(EARS)
    assert {s.puppet.hat for s in animations} == set(HATS)
    assert {s.scene.place for s in animations} == {s.scene.place for s in backgrounds} == set(PLACES)
    assert {s.scene.dynamic for s in animations} == set(DYNAMICS)
    assert {s.scene.dynamic for s in backgrounds} == set(DYNAMICS) - {"still"}
    assert {s.action for s in animations} == {"dance", *MOVES}
    assert {s.action for s in backgrounds} == {"stand"}


def test_the_caption_names_the_character_its_action_and_what_moves(specs):
    for some in specs.values():
        for spec in some:
            assert spec.puppet.colour in spec.caption
            assert not re.search(r"\ba [aeiou]", spec.caption)
            assert any(noun in spec.caption for noun in NOUNS[spec.puppet.plan])
            assert any(action in spec.caption for action in ACTIONS[spec.action])
            if spec.scene.dynamic != "still":
                assert any(words in spec.caption for words in DYNAMIC_WORDS[spec.scene.dynamic])
            for ears, words in EAR_WORDS.items():
                assert words not in spec.caption or spec.puppet.ears == ears


def test_the_grammar_has_words_for_everything():
    assert NOUNS.keys() == PLANS.keys()
    assert ACTIONS.keys() == {*MOVES, "dance", "stand"}
    assert PLACE_WORDS.keys() == set(PLACES)
    assert DYNAMIC_WORDS.keys() == set(DYNAMICS)
    assert {"none", *EAR_WORDS} == set(EARS)


@pytest.mark.parametrize("dynamic", list(DYNAMICS))
@pytest.mark.parametrize("place", list(PLACES))
def test_every_place_is_drawn_with_every_dynamic(place, dynamic):
    scene = Scene(
        place=place, dynamic=dynamic, sky=(0.5, 0.7, 0.9), ground=(0.5, 0.5, 0.3), accent=(0.8, 0.4, 0.4),
        horizon=0.75, seed=0.3, speed=1.0, strength=1.0,
    )  # fmt: skip
    video = background(scene, torch.arange(6) / 12, (32, 24))
    assert video.shape == (6, 3, 24, 32)
    assert video.isfinite().all() and video.min() >= 0 and video.max() <= 1
    moved = (video[1:] - video[:-1]).abs().amax() > 0.02
    # a camera that pans along one colour shows no change
    assert bool(moved) == (dynamic != "still" and not (dynamic == "pan" and place in ("flat", "gradient")))


def test_the_same_angles_point_the_same_way_on_two_bodies():
    spec = replace(clip_spec("train", 3), action="jumping_jack")
    human, ape = (draw_puppet_on(plan) for plan in ("human", "long-armed"))
    a, b = (draw_clips([spec], num_frames=6, bodies=[body]).xy[0] for body in (human, ape))
    for parent, child in ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13)):
        u, v = a[:, child] - a[:, parent], b[:, child] - b[:, parent]
        torch.testing.assert_close(
            u / u.norm(dim=-1, keepdim=True), v / v.norm(dim=-1, keepdim=True), atol=1e-4, rtol=0
        )
    arm, torso = ((xy[0, 4] - xy[0, 3]).norm() / (xy[0, 1] - (xy[0, 8] + xy[0, 11]) / 2).norm() for xy in (a, b))
    assert torso > arm * 1.2  # yet the bodies differ


def draw_puppet_on(plan):
    from training.data.puppets import draw_puppet

    return draw_puppet(torch.Generator().manual_seed(1), plan=plan, pattern="solid")


def test_the_joints_lie_on_what_is_drawn(specs):
    for spec in specs["train", "animation"][:40]:
        picture, xy = draw_alone(spec.puppet)
        exists = Puppets([spec.puppet]).exists()[0] > 0
        for joint in (0, 1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15):
            x, y = xy[joint].long().tolist()
            if exists[joint] and 0 <= x < 128 and 0 <= y < 128:
                assert (picture[:, y, x] - MAGENTA).abs().max() > 0.2, (spec.index, spec.puppet.plan, joint)


def test_a_hand_is_where_its_joint_is():
    """Taking the arms away changes the picture around both wrists, and only near the arms."""
    puppet = replace(draw_puppet_on("human"), has_arms=1.0, arms_behind=0.0)
    with_arms, xy = draw_alone(puppet)
    without, _ = draw_alone(replace(puppet, has_arms=0.0))
    changed = ((with_arms - without).abs().amax(0) > 0.05).nonzero().flip(-1) + 0.5
    unit = float(Puppets([puppet]).unit((128, 128)))
    for wrist in (4, 7):
        assert (changed - xy[wrist]).norm(dim=-1).min() < 1
    joints = torch.stack(
        [xy[a] + (xy[b] - xy[a]) * t for a, b in ((2, 3), (3, 4), (5, 6), (6, 7)) for t in torch.linspace(0, 1, 20)]
    )
    nearest = torch.cdist(changed, joints).amin(1)
    assert nearest.max() < puppet.arm_radius * 1.75 * unit + 2


def test_drawing_a_batch_equals_drawing_one_by_one():
    some = [clip_spec("train", k, "background" if k % 3 == 0 else "animation") for k in range(8)]
    alone = draw_clips(some, num_frames=2)
    puppets = Puppets([spec.puppet for spec in some])
    xy = puppets.place(joint_positions(torch.stack([motion_angles(s, 2) for s in some]), puppets.body), (128, 128))
    canvas = torch.stack(
        [background(s.scene, torch.arange(2) / 12 + 3 * s.phase, (128, 128)) for s in some]
    ).contiguous()
    paint_puppets(canvas, puppets, xy)
    torch.testing.assert_close(xy, alone.xy, atol=1e-4, rtol=0)
    torch.testing.assert_close(canvas.clamp(0, 1), alone.video, atol=2e-3, rtol=0)


def test_missing_limbs_are_not_there():
    spec = clip_spec("train", 5)
    whole = draw_clips([spec], num_frames=2, bodies=[replace(spec.puppet, has_arms=1.0, has_legs=1.0)])
    for field, joints in (("has_arms", (3, 4, 6, 7)), ("has_legs", (9, 10, 12, 13))):
        body = replace(spec.puppet, **{"has_arms": 1.0, "has_legs": 1.0, field: 0.0})
        clip = draw_clips([spec], num_frames=2, bodies=[body])
        assert (clip.confidence[:, :, joints] == 0).all() and (clip.reference_confidence[:, joints] == 0).all()
        others = [j for j in range(18) if j not in joints]
        assert torch.equal(clip.confidence[:, :, others], whole.confidence[:, :, others])
        poses = clip.poses(0)
        assert (poses.xy[:, joints] == -1).all()
        assert not torch.equal(clip.video, whole.video)


def test_the_reference_is_a_frame_of_the_clip_or_the_rest_stance():
    spec = replace(clip_spec("train", 8, "animation"), reference_frame=2)
    clip = draw_clips([spec], num_frames=4)
    torch.testing.assert_close(clip.reference, clip.video[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.reference_xy, clip.xy[:, 2], atol=1e-4, rtol=0)
    stance = draw_clips([replace(spec, reference_frame=None)], num_frames=4)
    torch.testing.assert_close(stance.reference_xy, joints_of_specs([spec])[0].xy, atol=1e-4, rtol=0)


def test_a_background_clip_begins_with_its_reference():
    clip = draw_clips([clip_spec("train", 4, "background")], num_frames=3)
    torch.testing.assert_close(clip.reference, clip.video[:, 0], atol=1e-5, rtol=0)
    assert (clip.xy[:, 0] - clip.xy[:, 2]).abs().max() == 0
