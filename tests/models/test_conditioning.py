from dataclasses import replace

import pytest
import torch


@pytest.fixture
def conditioning():
    from models.conditioning import Conditioning

    return Conditioning(
        text=torch.ones(2, 3, 4),
        reference=torch.ones(2, 5, 3, 2, 2),
        image=torch.ones(2, 6, 4),
        reference_pose=torch.full((2, 5, 1, 2, 2), 2.0),
        explicit=torch.ones(2, 3, 8),
        implicit=torch.ones(2, 3, 8),
    )


def test_dropped_parts_are_absent_and_the_others_untouched(conditioning):
    dropped = conditioning.drop("explicit", "implicit", "image", "text")
    assert dropped.explicit is None and dropped.implicit is None and dropped.image is None
    assert not dropped.text.any()
    assert dropped.reference is conditioning.reference
    assert conditioning.explicit is not None


def test_dropping_in_some_samples_zeroes_the_embedding_there_alone(conditioning):
    dropped = conditioning.drop("explicit", "reference", where=torch.tensor([True, False]))
    assert not dropped.explicit[0].any() and dropped.explicit[1].all()
    assert not dropped.reference[0].any() and dropped.reference[1].all()


def test_the_reference_pose_survives_a_dropped_reference(conditioning):
    latents = torch.zeros(2, 7, 3, 2, 2)
    joined = conditioning.drop("reference").model_input(latents)
    assert joined.shape == (2, 12, 3, 2, 2)
    assert (joined[:, 7:] == 2).all()


def test_an_unknown_part_is_refused(conditioning):
    with pytest.raises(ValueError, match="a conditioning has the parts text, reference"):
        conditioning.drop("pose")


def test_keys_of_a_caption_that_several_are_told_are_made_once_with_the_same_gradients(monkeypatch):
    from models import conditioning as module
    from models.conditioning import Conditioning, predict_velocity
    from models.presets import mini_transformer

    torch.manual_seed(0)
    network = mini_transformer(num_layers=2)
    text = torch.randn(3, 5, network.config["text_dim"])[[2, 0, 2, 0]]
    told = Conditioning(text=text, reference=torch.zeros(4, 20, 1, 4, 4))
    latents, times = torch.randn(4, 16, 1, 4, 4), torch.tensor([900.0, 500.0, 500.0, 10.0])
    made = []
    network.blocks[1].attn2.to_k.register_forward_hook(lambda module, args, output: made.append(len(args[0])))

    def step():
        network.zero_grad()
        velocity = predict_velocity(network, latents, times, replace(told))
        velocity.square().mean().backward()
        used = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        return velocity.detach(), used

    velocity, gradients = step()
    monkeypatch.setattr(module, "distinct_texts", lambda text: (text, None))
    plain, plain_gradients = step()
    assert made == [2, 4]
    torch.testing.assert_close(velocity, plain, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], atol=1e-5, rtol=1e-4)


def test_repeated_texts_are_looked_for_once_for_all_steps(conditioning):
    texts, text_of = conditioning.distinct_texts
    assert texts.shape == (1, 3, 4) and text_of.tolist() == [0, 0]
    assert conditioning.distinct_texts[0] is texts
    # another text is looked at anew
    assert len(conditioning.drop("text", where=torch.tensor([True, False])).distinct_texts[0]) == 2


def test_texts_that_differ_or_are_learned_stay_as_they_are():
    from models.conditioning import distinct_texts

    for text in (torch.arange(6.0).view(3, 1, 2), torch.ones(3, 1, 2, requires_grad=True), torch.ones(1, 1, 2)):
        found, text_of = distinct_texts(text)
        assert found is text and text_of is None


def test_pictures_become_pixels_from_minus_one_to_one():
    from models.conditioning import to_pixels

    picture = torch.tensor([[[0, 255, 51]]], dtype=torch.uint8).expand(4, 6, 3)
    pixels = to_pixels(picture, (6, 4))
    assert pixels.shape == (3, 4, 6)
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    assert to_pixels(picture, (16, 8)).shape == (3, 8, 16)


def test_poses_become_pixels_from_zero_to_one():
    from models.conditioning import pose_pixels
    from pose.motions import make_motion

    pixels = pose_pixels(make_motion("wave", num_frames=3, frame_size=(64, 64)), (32, 48))
    assert pixels.shape == (1, 3, 3, 48, 32)
    assert pixels.min() == 0 and 0.5 < pixels.max() <= 1


def test_driving_frames_of_an_iterator_are_embedded_a_few_at_a_time():
    from models.conditioning import encode_frames
    from models.presets import tiny_pipeline

    encoder = tiny_pipeline().image_encoder
    frames = torch.randint(0, 256, (7, 20, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        once = encode_frames(encoder, frames)
        bit_by_bit = encode_frames(encoder, iter(frames), batch=3)
    assert once.shape == (7, 16)
    torch.testing.assert_close(once, bit_by_bit)


def test_wans_text_and_image_encoders_work_as_components():
    """UMT5 with padding silenced, and CLIP's hidden states before the last block."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    from models.conditioning import encode_image, encode_prompts

    torch.manual_seed(0)
    text_encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=64, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).eval()
    image_encoder = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
        )
    ).eval()
    with torch.no_grad():
        tokens = encode_prompts(text_encoder, _word_tokenizer(), ["a b c", "a"], max_length=6)
        image = encode_image(
            image_encoder,
            CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
            torch.zeros(2, 3, 48, 48),
        )
    assert tokens.shape == (2, 6, 8)
    assert (tokens.abs().sum(-1) > 0).sum(-1).tolist() == [3, 1]
    assert image.shape == (2, 5, 8)
    with pytest.raises(ValueError, match="UMT5EncoderModel needs a tokenizer"):
        encode_prompts(text_encoder, None, ["a"])
    with pytest.raises(ValueError, match="CLIPVisionModel needs an image_processor"):
        encode_image(image_encoder, None, torch.zeros(1, 3, 32, 32))


def _word_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "b": 2, "c": 3, "<unk>": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
