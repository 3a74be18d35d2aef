"""open_clip models of any architecture, with weights from a file."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.clip import CLIP_MEAN, CLIP_STD, OpenCLIPVisionEncoder
from models.state import load_state, read_state


@dataclass(frozen=True, kw_only=True)
class OpenCLIP:
    """Two towers, and how pictures are given to them."""

    network: Any
    side: int
    """Of the square picture that it sees. [px]"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tokenize: Callable[[Sequence[str]], Int[Tensor, "batch tokens"]] | None
    """None where its tokenizer is not part of open_clip."""

    def images(self, normalised: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch embed"]:
        """Embeds pictures that have the side, mean and deviation above."""
        found: Tensor = self.network.encode_image(normalised)
        return found

    def texts(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embed"]:
        """Embeds texts."""
        found: Tensor = self.network.encode_text(tokens)
        return found


def known_open_clip(model: str) -> None:
    """Makes sure that open_clip has an architecture.

    Raises:
        ValueError: it has not; lists those whose names are alike.
    """
    known = open_clip.list_models()
    if model not in known:
        close = get_close_matches(model, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise ValueError(f"open_clip has no model {model!r}; {hint}open_clip.list_models() lists all {len(known)}")


def open_clip_from_file(model: str, path: Path, device: torch.device) -> OpenCLIP:
    """Builds an architecture of open_clip and loads its weights; nothing is downloaded.

    Raises:
        ValueError: there is no such architecture or file, or the weights are of another one.
    """
    known_open_clip(model)
    state = read_state(path)
    config: dict[str, Any] = open_clip.get_model_config(model)
    try:
        with _no_word_of_random_weights():
            network = open_clip.create_model(model, pretrained=None, pretrained_text=False, load_weights=False)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise ValueError(f"open_clip cannot build {model} from what is on this machine: {error}") from error
    load_state(network, state, what=f"open_clip:{model}@{path}")
    given = open_clip.get_model_preprocess_cfg(network)
    side = given["size"]
    words = config["text_cfg"]
    ours = "hf_tokenizer_name" not in words and "hf_model_name" not in words
    return OpenCLIP(
        network=network.to(device).eval(), side=side if isinstance(side, int) else side[0],
        mean=tuple(given["mean"]), std=tuple(given["std"]), tokenize=open_clip.get_tokenizer(model) if ours else None,
    )  # fmt: skip


def vision_encoder_from_file(path: Path) -> OpenCLIPVisionEncoder:
    """The image tower of an open_clip model's weights, as a part of a pipeline; the text tower is left out.

    Weights tell sizes alone: OpenAI's, DFN's and MetaCLIP's models, whose activation is QuickGELU, cannot be told from
    the plain ones that this is for, and would see wrongly.

    Raises:
        ValueError: there is no such file, or none of open_clip's vision transformers has weights of these sizes.
    """
    state = {n.removeprefix("visual."): t for n, t in read_state(path).items() if n.startswith("visual.")}
    kernel, table, out = (state.get(name) for name in ("conv1.weight", "positional_embedding", "proj"))
    if kernel is None or table is None or out is None:
        raise ValueError(f"{path} is no open_clip model that sees with a vision transformer, such as ViT-H-14")
    patch = kernel.shape[-1]
    sizes = {
        "embed_dim": out.shape[1], "width": kernel.shape[0], "patch_size": patch,
        "layers": len({name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")}),
        "image_size": patch * math.isqrt(len(table) - 1),
    }  # fmt: skip
    name = next((name for name in open_clip.list_models() if _sizes(name) == sizes), None)
    if name is None:
        told = ", ".join(f"{key} {value}" for key, value in sizes.items())
        raise ValueError(f"{path}: open_clip has no vision transformer with {told}")
    # a width tells no number of heads, so the known architecture does
    config = open_clip.get_model_config(name)["vision_cfg"]
    with torch.device("meta"):
        made = OpenCLIPVisionEncoder(
            **sizes, head_width=config.get("head_width", 64), mlp_ratio=config.get("mlp_ratio", 4.0),
            pixel_mean=CLIP_MEAN, pixel_std=CLIP_STD,
        )  # fmt: skip
    load_state(made.tower, state, what=str(path), assign=True)
    return made.eval()


def _sizes(name: str) -> dict[str, int] | None:
    """Of an architecture's plain vision transformer; None where it has another image tower."""
    config: dict[str, Any] = open_clip.get_model_config(name)
    vision = config["vision_cfg"]
    known = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
    plain = vision.keys() <= known and {"layers", "width", "patch_size"} <= vision.keys()
    if config.get("quick_gelu") or not plain or not isinstance(vision["layers"], int):
        return None
    found = {key: vision[key] for key in ("width", "patch_size", "layers")}
    return {**found, "embed_dim": config["embed_dim"], "image_size": vision.get("image_size", 224)}


@contextmanager
def _no_word_of_random_weights() -> Iterator[None]:
    """open_clip warns, through the root logger, of weights that stay random; ours come after it."""

    def other(record: logging.LogRecord) -> bool:
        return "initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)
