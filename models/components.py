"""Parts of a diffusers pipeline's folder, one at a time: finding the network, loading it, loading little else."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import diffusers.utils.logging
import torch
from torch import nn

import models.pipeline  # noqa: F401  (makes our pipeline known to diffusers)
from models.loading import check_folder, read_index
from models.quiet import quiet_loading
from pose.wording import in_a_line


def load_component(folder: Path, name: str, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Loads one part of a pipeline.

    Raises:
        ValueError: it is missing or damaged.
    """
    library, kind = read_index(folder)[name]
    try:
        with quiet_loading():
            part: nn.Module = getattr(import_module(library), kind).from_pretrained(
                str(folder / name), torch_dtype=dtype, use_safetensors=True, local_files_only=True
            )
    except (OSError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{folder / name} could not be loaded: {error}") from error
    return part.eval().requires_grad_(False)


def load_pipeline_around(folder: Path, network: nn.Module, name: str) -> Any:
    """The folder's pipeline with a network that is loaded already, and without other networks and codecs.

    It cannot make pictures, but it reads LoRA files as the whole one does.
    """
    check_folder(folder, pipeline=None)
    index = read_index(folder)
    kind: Any = getattr(diffusers, index["_class_name"])  # ours is there as well, see `models.pipeline`
    parts: dict[str, Any] = {
        part: None
        for part, told in index.items()
        if isinstance(told, list) and (told[0] is None or any((folder / part).glob("*.safetensors")))
    }
    with quiet_loading():
        return kind.from_pretrained(
            str(folder), **{**parts, name: network}, use_safetensors=True, local_files_only=True
        )


@contextmanager
def read_lora(folder: Path, network: nn.Module, name: str, file: Path) -> Iterator[None]:
    """Puts a LoRA file on a network for a while, as the pipeline in its folder reads it.

    Raises:
        RuntimeError: it cannot be read.
    """
    logs: Any = diffusers.utils.logging
    level = logs.get_verbosity()
    logs.set_verbosity_error()  # it would say that there is nothing for the text encoders, which are not there
    try:
        # of two transformers diffusers reads a file into the first, or into the second if both are there
        pipeline = load_pipeline_around(folder, network, "transformer" if name == "transformer_2" else name)
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="read")
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise RuntimeError(in_a_line(error)) from error
    finally:
        logs.set_verbosity(level)
    try:
        yield
    finally:
        pipeline.unload_lora_weights()
