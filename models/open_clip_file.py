"""open_clip models of any architecture, with weights from a file."""

import logging
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
