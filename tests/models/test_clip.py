import pytest
import torch


@pytest.fixture(scope="module")
def config():
    from models.clip import OpenCLIPConfig

    return OpenCLIPConfig(
        embed_dim=16, text_width=8, text_heads=2, text_layers=2, context_length=12,
        vision_width=16, vision_head_width=8, vision_layers=2, patch_size=8, image_size=32,
    )  # fmt: skip


@pytest.fixture(scope="module")
def clip(config):
    from models.clip import build_open_clip

    torch.manual_seed(0)
    return build_open_clip(config).eval()


@pytest.fixture(scope="module")
def encoders(clip, config):
    from models.clip import split_open_clip

    return split_open_clip(clip, config)


@torch.no_grad()
def test_the_split_encoders_give_the_pooled_embeddings_of_the_open_clip_model(clip, config, encoders):
    from models.clip import tokenize

    text, vision = encoders
    prompts = ["a red jelly dances", "rain"]
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(text.pooled(prompts), clip.encode_text(tokenize(prompts, config.context_length)))
    torch.testing.assert_close(vision(pixels).pooled, clip.encode_image(pixels))


@torch.no_grad()
def test_prompt_tokens_after_the_end_of_the_text_are_zero(encoders):
    tokens = encoders[0].encode(["rain", "a red jelly dances"])
    assert tokens.shape == (2, 12, 8)
    lengths = (tokens.abs().sum(-1) > 0).sum(-1).tolist()
    assert lengths == [3, 6]  # start, words, end


@torch.no_grad()
def test_a_prompt_of_5000_words_is_cut_and_the_number_of_lost_tokens_is_known(encoders):
    text = encoders[0]
    assert text.num_tokens_cut(["rain " * 5000, "rain"]) == [4990, 0]
    torch.testing.assert_close(text.encode(["rain " * 5000]), text.encode(["rain " * 10]))


@torch.no_grad()
def test_image_tokens_are_the_class_token_and_every_patch_of_a_stretched_picture(encoders):
    features = encoders[1](torch.zeros(2, 3, 20, 44))
    assert features.tokens.shape == (2, 1 + 16, 16)
    assert features.pooled.shape == (2, 16)


@torch.no_grad()
def test_encoders_give_the_same_output_after_saving_and_loading(encoders, tmp_path):
    from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder

    text, vision = encoders
    text.save_pretrained(tmp_path / "text")
    vision.save_pretrained(tmp_path / "vision")
    text2 = OpenCLIPTextEncoder.from_pretrained(tmp_path / "text")
    vision2 = OpenCLIPVisionEncoder.from_pretrained(tmp_path / "vision")
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    assert torch.equal(text.encode(["rain"]), text2.encode(["rain"]))
    assert torch.equal(vision(pixels).tokens, vision2(pixels).tokens)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_encoders_work_in_half_precision(encoders, tmp_path, dtype):
    from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder

    encoders[0].save_pretrained(tmp_path / "text")
    encoders[1].save_pretrained(tmp_path / "vision")
    text = OpenCLIPTextEncoder.from_pretrained(tmp_path / "text", dtype=dtype)
    vision = OpenCLIPVisionEncoder.from_pretrained(tmp_path / "vision", dtype=dtype)
    torch.testing.assert_close(text.encode(["rain"]).float(), encoders[0].encode(["rain"]), atol=0.1, rtol=0.1)
    pixels = torch.zeros(1, 3, 64, 64)
    torch.testing.assert_close(vision(pixels).pooled.float(), encoders[1](pixels).pooled, atol=0.1, rtol=0.1)


def test_sizes_that_do_not_divide_are_refused():
    from models.clip import OpenCLIPConfig

    with pytest.raises(ValueError, match="image_size / patch_size must be a whole number"):
        OpenCLIPConfig(image_size=130)
