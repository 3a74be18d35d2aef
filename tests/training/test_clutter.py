"""Made-up photographs: the ground changes, the character stays where it was."""

import torch

from training.data.clutter import as_photographs, busy_grounds, pink_noise
from training.data.world import clip_spec, draw_clips


def test_pink_noise_is_normed_and_smooth():
    noise = pink_noise(4, (48, 32), torch.Generator().manual_seed(0))
    assert noise.shape == (4, 3, 32, 48)
    torch.testing.assert_close(noise.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(noise.std((1, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    assert noise.diff(dim=-1).std() < 1  # white noise has 1.41


def test_grounds_follow_the_generator():
    one, two = (busy_grounds(2, (32, 32), torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two) and one.min() >= 0 and one.max() <= 1


def test_the_character_stays_and_the_ground_changes():
    specs = [clip_spec("train", k) for k in range(6)]
    clips = draw_clips(specs, num_frames=1)
    plain = torch.stack([spec.places(1, (128, 128))[0] for spec in specs])
    drawn = clips.video[:, 0]
    assert torch.equal(as_photographs(drawn, plain, 0.0, torch.Generator().manual_seed(0)), drawn)
    made = as_photographs(drawn, plain, 1.0, torch.Generator().manual_seed(0))
    character = (drawn - plain).abs().amax(1, keepdim=True) > 0.1
    change = (made - drawn).abs()
    masked = [change.mul(m).sum() / m.expand_as(change).sum() for m in (character, ~character)]
    assert masked[1] > 1.5 * masked[0] > 0


def test_a_place_alone_is_what_is_drawn_behind_the_character():
    spec = clip_spec("train", 3)
    clips = draw_clips([spec], num_frames=2)
    places = spec.places(2, (128, 128))
    same = (clips.video[0] == places[:2].clamp(0, 1)).all(1).float().mean()
    assert 0.3 < same < 1
