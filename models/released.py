"""What the released Animate-X++ files look like: their names, and the sizes that their weights tell."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from pose.explicit import ExplicitPoseIndicator
from pose.implicit import ImplicitPoseIndicator

_BASE_RENAMES: Final = (
    (r"^model\.diffusion_model\.", ""),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"^img_emb\.emb_pos$", "condition_embedder.image_embedder.pos_embed"),
    (r"^head\.head\.", "proj_out."),
    (r"(^head\.|\.)modulation$", r"\1scale_shift_table"),
    (r"^head\.scale_shift_table$", "scale_shift_table"),
    (r"\.norm3\.", ".norm2."),  # the affine norm stands before the cross-attention, and diffusers counts it second
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.([qkv])\.", r".to_\1."),
    (r"\.o\.", ".to_out.0."),
    (r"\.([kv])_img\.", r".add_\1_proj."),
    (r"\.norm_k_img\.", ".norm_added_k."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
)
"""From the original Wan names to diffusers', applied in this order."""

_EXPLICIT_RENAMES: Final = (
    (r"^dwpose_embedding\.", "pose_encoder."),
    (r"^randomref_embedding_pose\.", "reference_encoder."),
)
_IMPLICIT_RENAMES: Final = (
    (r"^pose_embedding_before\.increase_embed_dim\.", "keypoint_encoder.lift."),
    (r"^pose_embedding_before\.pos_embed\.pos_table$", "keypoint_encoder.position_table"),
    (r"^pose_embedding_before\.encoder\.layers\.", "keypoint_encoder.layers."),
    (r"^pose_embedding_before\.pre_image_condition_p\.", "keypoint_encoder.head."),
    (r"^pose_embedding_after\.latents$", "query"),
    (r"^pose_embedding_after\.proj_in\.", "image_in."),
    (r"^pose_embedding_after\.proj_out\.", "out."),
    (r"^pose_embedding_after\.norm_out\.", "norm_out."),
    (r"^pose_embedding_after\.proj_out2\.", "to_motion."),
    (r"^pose_embedding_after\.proj_conv\.", "frame_map."),
    (r"^pose_embedding_after\.layers\.(\d+)\.0\.norm1\.", r"layers.\1.norm_image."),
    (r"^pose_embedding_after\.layers\.(\d+)\.0\.norm2\.", r"layers.\1.norm_query."),
    (r"^pose_embedding_after\.layers\.(\d+)\.0\.", r"layers.\1."),
    (r"^pose_embedding_after\.layers\.(\d+)\.1\.", r"layers.\1.ffn."),
)
_LORA: Final = re.compile(r"^(?:pipe\.dit\.)?(.+)\.lora_([AB])(?:\.default)?\.weight$")


def _rename(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


class BaseWeights:
    """The tensors of the base transformer by diffusers' names, read from disk one at a time."""

    def __init__(self, base: Path) -> None:
        self.files = _base_files(base)
        self.places: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            try:
                with safe_open(file, "pt") as reader:
                    for key in reader.keys():  # noqa: SIM118  (not a dict)
                        name = _rename(key, _BASE_RENAMES)
                        self.places[name] = (file, key)
                        self.shapes[name] = tuple(reader.get_slice(key).get_shape())
            except Exception as error:
                raise ValueError(
                    f"cannot read the base weights {file}: {error}; expected a safetensors file"
                ) from error
        if "patch_embedding.weight" not in self.shapes:
            raise ValueError(f"{base} holds no Wan transformer (no patch_embedding.weight); give the base model")

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields (name, tensor), file by file."""
        for file in self.files:
            with safe_open(file, "pt") as reader:
                for name, (place, key) in self.places.items():
                    if place == file:
                        yield name, reader.get_tensor(key)


def _base_files(base: Path) -> list[Path]:
    """Lists the safetensors files of the base transformer."""
    if base.is_file():
        return [base]
    if not base.is_dir():
        raise ValueError(f"base model {base} does not exist; give a safetensors file or a folder of them")
    folder = base / "transformer" if (base / "transformer").is_dir() else base
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"base folder {folder} holds no .safetensors file; give Wan2.1 I2V, original or diffusers")
    return files


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a file of tensors: safetensors, or torch's format without pickled code."""
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist; give the released animate-x++.ckpt")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        mmap = zipfile.is_zipfile(path)  # torch's older format cannot be mapped
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        raise ValueError(f"cannot read checkpoint {path}: {error}") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"checkpoint {path} is not a dictionary of tensors; give the released animate-x++.ckpt")
    return content


def read_settings(*folders: Path) -> dict[str, Any]:
    """Reads what weights cannot tell (heads, eps, LoRA alpha) from config.json; earlier folders win.

    Raises:
        ValueError: a config.json is not a JSON object.
    """
    settings: dict[str, Any] = {}
    for folder in folders:
        file = folder / "config.json"
        if folder.is_dir() and file.is_file():
            try:
                settings = dict(json.loads(file.read_text())) | settings
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file} is not a JSON object: {error}") from error
    return settings


@dataclass(frozen=True, kw_only=True)
class ReleasedCheckpoint:
    """The tensors of a checkpoint under our names, and the keys that they had."""

    tensors: dict[str, Tensor]
    """By released key."""
    lora: dict[str, dict[str, str]]
    """Layer of the transformer -> {"A", "B"} -> released key."""
    explicit: dict[str, str]
    """Name in `ExplicitPoseIndicator` -> released key."""
    implicit: dict[str, str]
    """Name in `ImplicitPoseIndicator` -> released key; empty in the simple checkpoint."""
    unknown: tuple[str, ...]
    """Keys of no known family."""

    def explicit_tensors(self) -> dict[str, Tensor]:
        """Lists the tensors of the explicit indicator by our names."""
        return {name: self.tensors[key] for name, key in self.explicit.items()}

    def implicit_tensors(self) -> dict[str, Tensor]:
        """Lists the tensors of the implicit indicator by our names."""
        return {name: self.tensors[key] for name, key in self.implicit.items()}


def read_checkpoint(path: Path) -> ReleasedCheckpoint:
    """Reads the released checkpoint and sorts its keys; code in it is never run.

    Raises:
        ValueError: the file is missing, unreadable or not an Animate-X++ checkpoint.
    """
    tensors = _read_tensors(path)
    lora: dict[str, dict[str, str]] = {}
    explicit: dict[str, str] = {}
    implicit: dict[str, str] = {}
    unknown: list[str] = []
    for key in tensors:
        if match := _LORA.match(key):
            layer = _rename(f"{match[1]}.", _BASE_RENAMES).removesuffix(".")
            lora.setdefault(layer, {})[match[2]] = key
        elif (name := _rename(key, _EXPLICIT_RENAMES)) != key:
            explicit[name] = key
        elif (name := _rename(key, _IMPLICIT_RENAMES)) != key:
            implicit[name] = key
        else:
            unknown.append(key)
    if not explicit:
        raise ValueError(f"{path} has no dwpose_embedding.* weights, so it is not an Animate-X++ checkpoint")
    for layer in [layer for layer, pair in lora.items() if len(pair) < 2]:
        unknown += lora.pop(layer).values()
    return ReleasedCheckpoint(tensors=tensors, lora=lora, explicit=explicit, implicit=implicit, unknown=tuple(unknown))


def _count(names: Mapping[str, Any], pattern: str) -> int:
    """Counts the numbered layers whose names match `pattern`, which has the number as its group."""
    found = {int(match[1]) for name in names if (match := re.match(pattern, name))}
    return max(found) + 1 if found else 0


def _num_heads(settings: Mapping[str, Any], name: str, dim: int, default_head_dim: int) -> int:
    """Takes the number of heads from the config, else from the released head width."""
    if name in settings:
        return int(settings[name])
    if dim % default_head_dim:
        raise ValueError(f"cannot tell {name} from a width of {dim}: put a config.json with {name} beside the weights")
    return dim // default_head_dim


def transformer_config(shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the sizes of the transformer from its weights.

    Raises:
        ValueError: weights are missing, or the number of heads is nowhere to be found.
    """
    try:
        return _transformer_config(shapes, settings)
    except KeyError as error:
        raise ValueError(f"the base weights lack {error}; give a whole Wan2.1 transformer") from error


def _transformer_config(shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]) -> dict[str, Any]:
    dim, in_channels, *patch_size = shapes["patch_embedding.weight"]
    heads = int(settings.get("num_attention_heads", 0)) or _num_heads(settings, "num_heads", dim, 128)
    image_norm = shapes.get("condition_embedder.image_embedder.norm1.weight")
    image_positions = shapes.get("condition_embedder.image_embedder.pos_embed")
    added = shapes.get("blocks.0.attn2.add_k_proj.weight")
    patch_volume = patch_size[0] * patch_size[1] * patch_size[2]
    return {
        "patch_size": tuple(patch_size),
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "in_channels": in_channels,
        "out_channels": shapes["proj_out.weight"][0] // patch_volume,
        "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": _count(shapes, r"blocks\.(\d+)\."),
        "cross_attn_norm": "blocks.0.norm2.weight" in shapes,
        "eps": float(settings.get("eps", 1e-6)),
        "image_dim": image_norm[0] if image_norm else None,
        "added_kv_proj_dim": added[1] if added else None,
        "pos_embed_seq_len": image_positions[1] if image_positions else None,
        "rope_max_seq_len": int(settings.get("rope_max_seq_len", 1024)),
    }


def explicit_indicator(tensors: Mapping[str, Tensor]) -> ExplicitPoseIndicator:
    """Builds the explicit indicator in the sizes of its weights.

    Weights do not tell strides: the released ones are 1, with (1, 2, 2), 2, 2 at the end for the clip and 2, 2, 2 for
    the reference (8x space and 4x time).
    """
    clip = _convolutions(tensors, "pose_encoder")
    reference = _convolutions(tensors, "reference_encoder")
    down, reference_down = ((1, 2, 2), (2, 2, 2), (2, 2, 2)), (2, 2, 2)
    if len(clip) <= len(down) or len(reference) < len(reference_down):
        raise ValueError(
            f"the pose encoders have {len(clip)} and {len(reference)} convolutions, too few for 8x space; "
            "the checkpoint is incomplete"
        )
    num_plain = len(clip) - 1 - len(down)
    return ExplicitPoseIndicator(
        in_channels=clip[0].shape[1],
        hidden_channels=[weight.shape[0] for weight in clip[:-1]],
        strides=[(1, 1, 1)] * num_plain + list(down),
        patch_size=tuple(clip[-1].shape[2:]),
        dim=clip[-1].shape[0],
        reference_hidden_channels=[weight.shape[0] for weight in reference[:-1]],
        reference_strides=[1] * (len(reference) - 3) + list(reference_down),
        reference_channels=reference[-1].shape[0],
    )


def _convolutions(tensors: Mapping[str, Tensor], prefix: str) -> list[Tensor]:
    """Lists the convolution weights of one encoder in order."""
    found = {int(m[1]): tensors[n] for n in tensors if (m := re.match(rf"{prefix}\.(\d+)\.weight$", n))}
    return [found[index] for index in sorted(found)]


def implicit_indicator(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> ImplicitPoseIndicator:
    """Builds the implicit indicator in the sizes of its weights."""
    config: Mapping[str, Any] = settings.get("implicit", {})
    try:
        _, num_queries, dim = tensors["query"].shape
        inner = tensors["layers.0.to_q.weight"].shape[0]
        heads = _num_heads(config, "resampler_heads", inner, 64)
        num_latent_frames, num_frames, _ = tensors["frame_map.weight"].shape
        if num_queries != 1:
            raise ValueError(f"the implicit indicator has {num_queries} queries a frame; only 1 is known (Animate-X++)")
        return ImplicitPoseIndicator(
            clip_dim=tensors["image_in.weight"].shape[1],
            keypoint_dim=tensors["keypoint_encoder.lift.0.weight"].shape[1],
            keypoint_lift_dim=tensors["keypoint_encoder.lift.0.weight"].shape[0],
            dim=dim,
            out_dim=tensors["to_motion.weight"].shape[0],
            keypoint_layers=_count(tensors, r"keypoint_encoder\.layers\.(\d+)\."),
            keypoint_heads=int(config.get("keypoint_heads", 8)),  # released: 8 heads of 128
            keypoint_ffn_dim=tensors["keypoint_encoder.layers.0.linear1.weight"].shape[0],
            max_frames=tensors["keypoint_encoder.position_table"].shape[1],
            dropout=float(config.get("dropout", 0.1)),
            resampler_layers=_count(tensors, r"layers\.(\d+)\."),
            resampler_heads=heads,
            resampler_head_dim=inner // heads,
            resampler_ffn_mult=tensors["layers.0.ffn.1.weight"].shape[0] // dim,
            time_map="conv",
            num_frames=num_frames,
            num_latent_frames=num_latent_frames,
        )
    except KeyError as error:
        raise ValueError(f"the implicit indicator lacks {error}; the checkpoint is incomplete") from error
