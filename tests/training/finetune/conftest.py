"""Tiny models on disk, and folders of pictures."""

import json

import pytest
import torch
from PIL import Image


@pytest.fixture(scope="session")
def animator(tmp_path_factory):
    """Our pipeline, of random weights."""
    from models.presets import tiny_pipeline

    folder = tmp_path_factory.mktemp("models") / "animator"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory):
    """Stable Diffusion 1.x, of random weights, with a tokenizer of a few words."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    place = tmp_path_factory.mktemp("models")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (place / "vocab.json").write_text(json.dumps({w: k for k, w in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=text, scheduler=DDIMScheduler(),
        tokenizer=CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=77),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(place / "sd")
    return place / "sd"


def picture(path, colour, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Five pictures with captions."""
    folder = tmp_path / "red_things"
    for k in range(5):
        picture(folder / f"{k}.png", (50 * k, 20, 20))
        (folder / f"{k}.txt").write_text(f"a red thing number {'abcde'[k]}")
    return folder


def video(path, frames, fps=12):
    """Writes frames (frames, height, width, 3) as H.264 without loss of much; odd endings say the container."""
    import av
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in np.asarray(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def brightening(count, size=(48, 40)):
    """Frames of (width, height) px whose grey says their number: 8 a frame."""
    import numpy as np

    return np.stack([np.full((size[1], size[0], 3), 8 * k, np.uint8) for k in range(count)])


@pytest.fixture
def dances(tmp_path):
    """Two drawn characters that wave, 13 frames each, with keypoints of the first beside it and captions."""
    from pose.media import to_uint8
    from pose.readers import write_keypoints
    from training.data.world import clip_spec, draw_clips

    folder = tmp_path / "dances"
    clips = draw_clips([clip_spec("train", k) for k in (1, 2)], num_frames=13, size=(64, 64))
    for k in range(2):
        video(folder / f"{k}.mp4", to_uint8(clips.video[k]).numpy())
        (folder / f"{k}.txt").write_text(f"dancer {'ab'[k]}")
        write_keypoints(folder / f"{k}.keypoints.json", clips.poses(k))
    return folder
