"""Pipelines built in code, untrained: `mini`, which the recipes train, and `tiny`, which tests run in a second."""

import torch
from diffusers import AutoencoderKLWan

from models.clip import OpenCLIPConfig, build_open_clip, split_open_clip
from models.codecs import mini_codec
from models.dit import AnimateXTransformer3DModel
from models.pipeline import AnimateXPipeline
from models.sampling import euler
from pose.explicit import ExplicitPoseIndicator
from pose.implicit import ImplicitPoseIndicator

MINI_FOLDER = "weights/mini"
"""Where the trained mini pipeline lies inside the package `models`."""


def mini_transformer(*, num_layers: int = 6, num_heads: int = 4, head_dim: int = 64) -> AnimateXTransformer3DModel:
    """Builds the untrained mini transformer: Wan's I2V blocks at width 256, about 1/1000 of the 14B model."""
    dim = num_heads * head_dim
    return AnimateXTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=num_heads,
        attention_head_dim=head_dim,
        in_channels=36,
        out_channels=16,
        text_dim=OpenCLIPConfig().text_width,
        freq_dim=128,
        ffn_dim=4 * dim,
        num_layers=num_layers,
        image_dim=OpenCLIPConfig().vision_width,
        added_kv_proj_dim=dim,
        rope_max_seq_len=128,
    )


def mini_epi(dim: int = 256) -> ExplicitPoseIndicator:
    """Builds the untrained mini explicit indicator: it halves early, since a CPU pays for every pixel."""
    return ExplicitPoseIndicator(
        hidden_channels=(16, 32, 48, 64),
        strides=((1, 2, 2), (1, 2, 2), (2, 1, 1), (2, 2, 2)),
        patch_size=(1, 2, 2),
        dim=dim,
        reference_hidden_channels=(16, 32, 32),
        reference_strides=(2, 2, 2, 1),
        reference_channels=20,
        zero_init_pose=True,
    )


def mini_ipi(dim: int = 256) -> ImplicitPoseIndicator:
    """Builds the untrained mini implicit indicator; the mean over frames takes clips of any length."""
    return ImplicitPoseIndicator(
        clip_dim=OpenCLIPConfig().embed_dim,
        keypoint_lift_dim=64,
        dim=128,
        out_dim=dim,
        keypoint_layers=2,
        keypoint_heads=4,
        keypoint_ffn_dim=256,
        max_frames=128,
        dropout=0.0,
        resampler_layers=2,
        resampler_heads=4,
        resampler_head_dim=32,
        resampler_ffn_mult=2,
        time_map="mean",
    )


def mini_pipeline(seed: int = 0) -> AnimateXPipeline:
    """Builds the untrained mini pipeline: 128x128 px, 17 frames, 12 frames a second."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw their initial weights from the global generator
        torch.manual_seed(seed)
        text_encoder, image_encoder = split_open_clip(build_open_clip(OpenCLIPConfig()), OpenCLIPConfig())
        transformer = mini_transformer()
        dim = transformer.config["num_attention_heads"] * transformer.config["attention_head_dim"]
        return AnimateXPipeline(
            text_encoder=text_encoder,
            image_encoder=image_encoder,
            ipi=mini_ipi(dim).eval(),
            epi=mini_epi(dim).eval(),
            transformer=transformer.eval(),
            vae=mini_codec().eval(),
            scheduler=euler(shift=3.0),
            reference_latents="every",
            height=128,
            width=128,
            num_frames=17,
            fps=12.0,
            num_inference_steps=20,
            guidance_scale=2.0,
        )


def tiny_pipeline(seed: int = 0) -> AnimateXPipeline:
    """Builds a pipeline of every component at the smallest sizes: 32x32 px, 9 frames, random weights.

    It is no mock: all that the mini and the released model do, it does, in a second on a CPU.
    """
    clip = OpenCLIPConfig(
        embed_dim=16,
        text_width=8,
        text_heads=2,
        text_layers=1,
        context_length=16,
        vision_width=16,
        vision_head_width=8,
        vision_layers=2,
        patch_size=8,
        image_size=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder, image_encoder = split_open_clip(build_open_clip(clip), clip)
        ipi = ImplicitPoseIndicator(
            clip_dim=16,
            keypoint_lift_dim=8,
            dim=16,
            out_dim=24,
            keypoint_layers=1,
            keypoint_heads=2,
            keypoint_ffn_dim=16,
            max_frames=32,
            dropout=0.0,
            resampler_layers=1,
            resampler_heads=2,
            resampler_head_dim=8,
            resampler_ffn_mult=2,
            time_map="mean",
        )
        torch.nn.init.normal_(ipi.to_motion.weight, std=0.2)  # zero as in a new one, it would hide its own mistakes
        return AnimateXPipeline(
            text_encoder=text_encoder,
            image_encoder=image_encoder,
            ipi=ipi.eval(),
            epi=ExplicitPoseIndicator(
                hidden_channels=4,
                strides=((1, 4, 4), (2, 1, 1), (2, 2, 2)),
                dim=24,
                reference_hidden_channels=4,
                reference_strides=(4, 2),
                reference_channels=20,
            ).eval(),
            transformer=AnimateXTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=36,
                out_channels=16,
                text_dim=8,
                freq_dim=16,
                ffn_dim=32,
                num_layers=3,
                image_dim=16,
                added_kv_proj_dim=24,
                rope_max_seq_len=64,
                motion_inject_start=1,
                motion_inject_end=1,
            ).eval(),
            vae=AutoencoderKLWan(
                base_dim=4,
                z_dim=16,
                dim_mult=[1, 1, 1],
                num_res_blocks=1,
                temperal_downsample=[True, True],
                patch_size=2,
                in_channels=12,
                out_channels=12,
            ).eval(),
            scheduler=euler(shift=3.0),
            reference_latents="every",
            height=32,
            width=32,
            num_frames=9,
            fps=12.0,
            num_inference_steps=2,
            guidance_scale=2.0,
        )
