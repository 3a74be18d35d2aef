import pytest
import torch


@pytest.fixture(scope="module")
def vae():
    from models.presets import tiny_pipeline

    return tiny_pipeline().vae


def video(frames: int) -> torch.Tensor:
    return torch.rand(2, 3, frames, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_decoding_piece_by_piece_gives_the_whole_video_bit_for_bit(vae):
    from models.codecs import decode_latents, decode_pieces

    latents = torch.randn(2, 16, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    pieces = list(decode_pieces(vae, latents))
    assert [p.shape[2] for p in pieces] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(pieces, dim=2), decode_latents(vae, latents))


@torch.no_grad()
def test_stopping_a_piecewise_decode_leaves_nothing_behind(vae):
    from models.codecs import decode_latents, decode_pieces

    latents = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = decode_latents(vae, latents)
    pieces = decode_pieces(vae, latents)
    next(pieces)
    pieces.close()
    assert torch.equal(decode_latents(vae, latents), before)


@torch.no_grad()
def test_latents_are_the_mode_of_the_posterior_standardised(vae):
    from models.codecs import encode_latents

    raw = vae.encode(video(5)).latent_dist.mode()
    mean = torch.tensor(vae.config["latents_mean"]).reshape(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config["latents_std"]).reshape(1, -1, 1, 1, 1)
    latents = encode_latents(vae, video(5))
    assert latents.shape == (2, 16, 2, 4, 4)
    torch.testing.assert_close(latents * std + mean, raw)


def test_a_clip_that_is_not_4k_plus_1_frames_is_refused_before_frames_are_lost(vae):
    from models.codecs import encode_latents

    with pytest.raises(ValueError, match=r"num_frames must be 4k \+ 1 for this codec, got 8; try 5 or 9"):
        encode_latents(vae, video(8))


@torch.no_grad()
def test_the_mini_codec_is_8x_in_space_4x_in_time():
    from models.codecs import mini_codec

    vae = mini_codec(8, 8)
    latents = vae.encode(torch.zeros(1, 3, 5, 32, 32)).latent_dist.mode()
    assert latents.shape == (1, 16, 2, 4, 4)
    assert vae.decode(latents).sample.shape == (1, 3, 5, 32, 32)


@pytest.mark.parametrize("mode", ["last", ""])
def test_an_unknown_way_of_giving_the_reference_is_refused(vae, mode):
    from models.codecs import reference_latents

    with pytest.raises(ValueError, match="reference_latents must be 'first' or 'every'"):
        reference_latents(vae, torch.zeros(1, 3, 32, 32), num_frames=5, mode=mode)
