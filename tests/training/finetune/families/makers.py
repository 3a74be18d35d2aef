"""Pipelines of every kind with random weights, small enough to be trained in a second."""

import json

import torch

LABELS = {0: "cat, house cat", 1: "dog"}


def codec(channels=4, **more):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, **more,
    )  # fmt: skip


def video_codec():
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def clip_words():
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]


def clip_tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab={w: k for k, w in enumerate(clip_words())}, merges=[], model_max_length=77)


def clip_text(projected=True):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    words = clip_words()
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            projection_dim=16, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
        )
    )  # fmt: skip


def t5_tokenizer():
    from transformers import T5Tokenizer

    letters = "▁abcdefghijklmnopqrstuvwxyz"
    return T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -2.0) for c in letters)], extra_ids=0
    )


def t5(multilingual=False):
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    model, config = (UMT5EncoderModel, UMT5Config) if multilingual else (T5EncoderModel, T5Config)
    return model(config(vocab_size=40, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2))


def stable_diffusion():
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=codec(), unet=unet, text_encoder=clip_text(projected=False), tokenizer=clip_tokenizer(),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True,
            timestep_spacing="trailing", steps_offset=1, clip_sample=False,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl():
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=32,
        attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=codec(scaling_factor=0.13), unet=unet, text_encoder=clip_text(projected=False), text_encoder_2=clip_text(),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), add_watermarker=False,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    )  # fmt: skip


def stable_diffusion_3(with_t5=True):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=16,
        pos_embed_max_size=16, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=codec(16, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(), tokenizer=clip_tokenizer(), text_encoder_2=clip_text(), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5() if with_t5 else None, tokenizer_3=t5_tokenizer() if with_t5 else None,
    )  # fmt: skip


def _pixart(kind, sample_size):
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, cross_attention_dim=24,
        caption_channels=32, sample_size=sample_size,
    )  # fmt: skip
    return kind(
        tokenizer=t5_tokenizer(), text_encoder=t5(), vae=codec(), transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(beta_end=0.02, beta_start=0.0001),
    )  # fmt: skip


def pixart_alpha():
    from diffusers import PixArtAlphaPipeline

    return _pixart(PixArtAlphaPipeline, 128)  # by this size diffusers knows the kind that is told sizes


def pixart_sigma():
    from diffusers import PixArtSigmaPipeline

    return _pixart(PixArtSigmaPipeline, 16)


def dit():
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, out_channels=8, num_layers=2, sample_size=16
    )
    return DiTPipeline(transformer=transformer, vae=codec(), scheduler=DDIMScheduler(), id2label=LABELS)


def _wan_parts(**more):
    from diffusers import UniPCMultistepScheduler, WanTransformer3DModel

    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2,
        rope_max_seq_len=32, **more,
    )  # fmt: skip
    return {
        "tokenizer": t5_tokenizer(), "text_encoder": t5(multilingual=True), "vae": video_codec(),
        "transformer": transformer, "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }  # fmt: skip


def wan(**more):
    from diffusers import WanPipeline

    return WanPipeline(**_wan_parts(), **more)


def wan_two():
    """As Wan 2.2 A14B: two transformers, for much noise and for little."""
    second = _wan_parts()["transformer"]
    return wan(transformer_2=second, boundary_ratio=0.875)


def wan_image():
    """As Wan 2.1: the first frame beside the noise, and an image encoder."""
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    eye = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    return WanImageToVideoPipeline(
        **_wan_parts(in_channels=36, image_dim=16, added_kv_proj_dim=24), image_encoder=CLIPVisionModel(eye),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
    )  # fmt: skip


def wan_image_in_place():
    """As Wan 2.2 5B: the first latent frame is left clean."""
    from diffusers import WanImageToVideoPipeline

    return WanImageToVideoPipeline(**_wan_parts(), expand_timesteps=True)


PICTURES = {
    make.__name__: make
    for make in (stable_diffusion, stable_diffusion_xl, stable_diffusion_3, pixart_alpha, pixart_sigma, dit, wan)
}
"""Kinds that can be trained on pictures."""
CLIPS = {make.__name__: make for make in (wan_image, wan_image_in_place)}
"""Kinds that need clips."""


def save(make, folder):
    """Writes a pipeline to disk."""
    torch.manual_seed(0)
    pipeline = make()
    pipeline.save_pretrained(folder)
    if make is dit:  # diffusers reads the classes from here, but does not write them
        index = json.loads((folder / "model_index.json").read_text())
        index["id2label"] = {str(k): name for k, name in LABELS.items()}
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder
