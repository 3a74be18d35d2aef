"""Conversion of released Animate-X++ weights to our diffusers-style folder, and its numeric check."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import __version__ as diffusers_version
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pose.explicit import ExplicitPoseIndicator
from pose.implicit import ImplicitPoseIndicator

from .clip import OpenCLIPVisionEncoder
from .dit import AnimateXTransformer3DModel
from .open_clip_file import vision_encoder_from_file
from .released import (
    BaseWeights,
    ReleasedCheckpoint,
    explicit_indicator,
    implicit_indicator,
    read_checkpoint,
    read_settings,
    transformer_config,
)

_COMPONENTS: Final = {
    "transformer": ("models.dit", "AnimateXTransformer3DModel"),
    "epi": ("pose.explicit", "ExplicitPoseIndicator"),
    "ipi": ("pose.implicit", "ImplicitPoseIndicator"),
    "ipi_image_encoder": ("models.clip", "OpenCLIPVisionEncoder"),
}
_FROM_BASE: Final = ("scheduler", "text_encoder", "tokenizer", "image_encoder", "image_processor", "vae")
_SHARD_BYTES: Final = 5 * 2**30


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion wrote, and what did not fit."""

    output: Path
    unused_keys: tuple[str, ...]
    """Keys of either file that went nowhere; a right conversion has none."""
    missing_keys: tuple[str, ...]
    """Weights of our networks that neither file had (component.name); a right conversion has none."""
    missing_components: tuple[str, ...]
    """Parts of the pipeline to add to the folder by hand, because the base has none."""


def convert_animate_x_plusplus(
    base: Path, checkpoint: Path, output: Path, *, clip: Path | None = None, keep_lora: bool = False
) -> ConversionReport:
    """Turns a Wan2.1 I2V base and a released Animate-X++ checkpoint into our folder layout.

    LoRA weights are folded in as W + scale B A; the scale is 1 (alpha = rank, as released) unless a config says
    otherwise. Tensors pass one by one, so that memory holds the checkpoint and one shard.

    Args:
        base: A safetensors file or folder, in Wan's own or in diffusers' names. A whole diffusers folder also gives its
            VAE, text encoder and so on.
        checkpoint: `animate-x++.ckpt`, or the simple one without the implicit indicator. Never unpickled as code.
        output: A folder that does not exist yet or is empty.
        clip: open_clip's weights of ViT-H-14 (LAION-2B), with which the implicit indicator sees the driving video.
        keep_lora: Writes the LoRA beside the base (`pytorch_lora_weights.safetensors`) instead of folding it in.

    Raises:
        ValueError: a file is missing, unreadable, not what it should be, or `output` is taken.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output folder {output} is taken; name a new one or empty it")
    weights = BaseWeights(base)
    released = read_checkpoint(checkpoint)
    settings = read_settings(weights.files[0].parent, base, checkpoint.parent)
    seeing = None if clip is None else _second_clip(clip, released)  # before hours of writing
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        unused = list(released.unknown)
        missing = _write_transformer(weights, released, settings, staging, keep_lora=keep_lora, unused=unused)
        explicit = released.explicit_tensors()
        epi = explicit_indicator(explicit)
        _check_shape("the pose encoder's output", (epi.config.dim,), weights.shapes["patch_embedding.bias"])
        missing += _fill_and_save(epi, explicit, staging / "epi")
        parts = ["transformer", "epi"]
        if implicit := released.implicit_tensors():
            missing += _fill_and_save(implicit_indicator(implicit, settings), implicit, staging / "ipi")
            parts.append("ipi")
            if seeing is not None:
                seeing.save_pretrained(staging / "ipi_image_encoder")
                parts.append("ipi_image_encoder")
        unused += _left_over(released, staging)
        absent = _write_index(base, staging, parts)
        if output.exists():
            output.rmdir()
        staging.rename(output)
    except OSError as error:
        raise ValueError(f"cannot write {output}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ConversionReport(
        output=output,
        unused_keys=tuple(sorted(unused)),
        missing_keys=tuple(missing),
        missing_components=tuple(absent),
    )


def _second_clip(clip: Path, released: ReleasedCheckpoint) -> OpenCLIPVisionEncoder:
    """What the implicit indicator of a checkpoint sees with."""
    image_in = released.implicit_tensors().get("image_in.weight")
    if image_in is None:
        raise ValueError(f"{clip}: the checkpoint has no implicit indicator that could see with it; leave it out")
    found = vision_encoder_from_file(clip)
    _check_shape(f"the pooled embedding of {clip}", (int(found.config["embed_dim"]),), (image_in.shape[1],))
    return found


def _write_transformer(
    weights: BaseWeights,
    released: ReleasedCheckpoint,
    settings: Mapping[str, Any],
    output: Path,
    *,
    keep_lora: bool,
    unused: list[str],
) -> list[str]:
    """Writes the transformer shard by shard with the LoRA folded in; returns the missing names."""
    with torch.device("meta"):
        model = AnimateXTransformer3DModel(**transformer_config(weights.shapes, settings))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    has_scale = {"lora_alpha", "lora_rank"} <= settings.keys()
    scale = float(settings["lora_alpha"]) / float(settings["lora_rank"]) if has_scale else 1.0
    lora: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, keys in released.lora.items():
        if f"{layer}.weight" in expected:
            down, up = (released.tensors[keys[half]].float() for half in "AB")
            _check_shape(f"the LoRA of {layer}", (up.shape[0], down.shape[1]), expected[f"{layer}.weight"])
            lora[layer] = (down, scale * up)
        else:
            unused += keys.values()

    shards = ShardWriter(output / "transformer")
    for name, tensor in weights.tensors():
        if name not in expected:
            unused.append(weights.places[name][1])
            continue
        _check_shape(f"transformer.{name}", tuple(tensor.shape), expected[name])
        layer = name.removesuffix(".weight")
        if layer in lora and not keep_lora:
            down, up = lora[layer]
            tensor = (tensor.float() + up @ down).to(tensor.dtype)
        shards.add(name, tensor)
    shards.close()
    model.save_config(output / "transformer")
    if keep_lora and lora:
        pairs = {f"transformer.{layer}.lora_A.weight": down for layer, (down, _) in lora.items()}
        pairs |= {f"transformer.{layer}.lora_B.weight": up for layer, (_, up) in lora.items()}
        save_file(pairs, output / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})
    return [f"transformer.{name}" for name in expected if name not in weights.places]


class ShardWriter:
    """Writes tensors as they come into numbered safetensors files with an index, as diffusers reads them."""

    def __init__(self, folder: Path, max_bytes: int = _SHARD_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.shards: list[list[str]] = []
        self.pending: dict[str, Tensor] = {}
        self.pending_bytes = 0
        self.total_bytes = 0
        folder.mkdir(parents=True)

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes one tensor."""
        size = tensor.numel() * tensor.element_size()
        if self.pending and self.pending_bytes + size > self.max_bytes:
            self._flush()
        self.pending[name] = tensor.contiguous()
        self.pending_bytes += size

    def _flush(self) -> None:
        save_file(self.pending, self.folder / f"part-{len(self.shards)}.safetensors", metadata={"format": "pt"})
        self.shards.append(list(self.pending))
        self.total_bytes += self.pending_bytes
        self.pending, self.pending_bytes = {}, 0

    def close(self) -> None:
        """Writes the rest, then gives the files their names, which hold the number of files."""
        self._flush()
        stem = "diffusion_pytorch_model"
        num = len(self.shards)
        names = [f"{stem}-{i + 1:05d}-of-{num:05d}.safetensors" for i in range(num)] if num > 1 else []
        for index, name in enumerate(names or [f"{stem}.safetensors"]):
            (self.folder / f"part-{index}.safetensors").rename(self.folder / name)
        if names:
            where = {key: name for name, keys in zip(names, self.shards, strict=True) for key in keys}
            content = {"metadata": {"total_size": self.total_bytes}, "weight_map": where}
            (self.folder / f"{stem}.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n")


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(f"{name} has shape {found}, the other weights ask for {expected}; the files do not match")


def _fill_and_save(
    model: ExplicitPoseIndicator | ImplicitPoseIndicator, tensors: dict[str, Tensor], folder: Path
) -> list[str]:
    """Loads what fits into an indicator, in its own dtype, and saves it; returns the missing names."""
    expected = model.state_dict()
    known = {name: tensor.clone() for name, tensor in tensors.items() if name in expected}
    for name, tensor in known.items():
        _check_shape(f"{folder.name}.{name}", tuple(tensor.shape), tuple(expected[name].shape))
    missing = model.load_state_dict(known, strict=False, assign=True).missing_keys
    model.save_pretrained(folder)
    return [f"{folder.name}.{name}" for name in missing]


def _left_over(released: ReleasedCheckpoint, folder: Path) -> list[str]:
    """Lists the keys of indicators that are not in the files just written."""
    left: list[str] = []
    for part, names in (("epi", released.explicit), ("ipi", released.implicit)):
        if names:
            with safe_open(folder / part / "diffusion_pytorch_model.safetensors", "pt") as reader:
                written = set(reader.keys())
            left += [key for name, key in names.items() if name not in written]
    return left


def _write_index(base: Path, output: Path, parts: list[str]) -> list[str]:
    """Writes model_index.json, copies what the base has of the other components, and returns those it has not."""
    index: dict[str, Any] = {"_class_name": "AnimateXPipeline", "_diffusers_version": diffusers_version}
    index |= {name: list(_COMPONENTS[name]) for name in parts}
    source = base / "model_index.json"
    given = json.loads(source.read_text()) if base.is_dir() and source.is_file() else {}
    absent = []
    for name in _FROM_BASE:
        if given.get(name, [None])[0] is not None and (base / name).is_dir():
            shutil.copytree(base / name, output / name)
            index[name] = given[name]
        else:
            absent.append(name)
    if "ipi" in parts and "ipi_image_encoder" not in parts:
        absent.append("ipi_image_encoder")
    (output / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return absent


def verify_conversion(output: Path, folder: Path) -> dict[str, float]:
    """Runs a converted model on `folder/inputs.safetensors` and compares with `folder/outputs.safetensors`.

    Returns ||ours - theirs|| / ||theirs|| of every stored output, in float32 on the CPU.

    Raises:
        ValueError: a file or tensor is missing, or an output is stored that we do not know how to make.
    """
    inputs, expected = (_read_tensors(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    try:
        computed = _Verification(output, inputs)
        return {name: _relative_error(computed(name), theirs) for name, theirs in sorted(expected.items())}
    except KeyError as error:
        raise ValueError(f"{folder / 'inputs.safetensors'} lacks the tensor {error}") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; --verify takes a folder with inputs and outputs.safetensors")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except Exception as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    if ours.numel() != theirs.numel():
        raise ValueError(f"an output has shape {tuple(ours.shape)}, stored is {tuple(theirs.shape)}")
    difference = ours.reshape(theirs.shape).double() - theirs.double()
    return float(difference.norm() / theirs.double().norm())


class _Verification:
    """Computes the stored outputs by name; what several of them need is computed once."""

    def __init__(self, output: Path, inputs: Mapping[str, Tensor]) -> None:
        self.inputs = inputs
        self.epi = ExplicitPoseIndicator.from_pretrained(output / "epi", torch_dtype=torch.float32).eval()
        self.transformer = AnimateXTransformer3DModel.from_pretrained(
            output / "transformer", torch_dtype=torch.float32
        ).eval()
        has_ipi = (output / "ipi").is_dir()
        self.ipi = (
            ImplicitPoseIndicator.from_pretrained(output / "ipi", torch_dtype=torch.float32).eval() if has_ipi else None
        )
        self.made: dict[str, Tensor] = {}
        self.recipes: dict[str, Callable[[], Tensor]] = {
            "pose_tokens": lambda: self.epi.encode_pose(inputs["pose_rgb"][None] / 255),
            "reference_pose": lambda: self.epi.encode_reference_pose(
                rearrange(inputs["reference_pose_rgb"], "h w c -> 1 c h w") / 255
            ),
            "keypoint_tokens": lambda: self._implicit().encode_keypoints(inputs["keypoints"]),
            "motion_tokens": lambda: self._implicit()(
                rearrange(inputs["clip_frames"], "f 1 d -> 1 f d"), inputs["keypoints"]
            ),
            "velocity_positive": lambda: self._velocity("text", "pose_tokens", "motion_tokens"),
            "velocity_negative": lambda: self._velocity("negative_text", "motion_tokens"),
            "velocity_no_implicit": lambda: self._velocity("text", "pose_tokens"),
        }

    def _implicit(self) -> ImplicitPoseIndicator:
        if self.ipi is None:
            raise ValueError(
                "the converted model has no implicit indicator (simple checkpoint), but outputs ask for it"
            )
        return self.ipi

    def _velocity(self, text: str, *conditions: str) -> Tensor:
        if self.ipi is None:
            conditions = tuple(name for name in conditions if name != "motion_tokens")
        latents, y = self.inputs["latents"], self.inputs["y"] + self("reference_pose")
        velocity: Tensor = self.transformer(
            torch.cat([latents, y], dim=1),
            self.inputs["timestep"],
            self.inputs[text],
            self.inputs["image_embeds"],
            return_dict=False,
            **{name: self(name) for name in conditions},
        )[0]
        return velocity

    @torch.no_grad()
    def __call__(self, name: str) -> Tensor:
        """Computes the output `name`."""
        if name not in self.made:
            if match := re.match(r"velocity_guided_cfg(\d+(?:\.\d+)?)$", name):
                positive, negative = self("velocity_positive"), self("velocity_negative")
                self.made[name] = negative + float(match[1]) * (positive - negative)
            elif name in self.recipes:
                self.made[name] = self.recipes[name]()
            else:
                raise ValueError(f"outputs.safetensors holds {name!r}; known are {', '.join(sorted(self.recipes))}")
        return self.made[name]
