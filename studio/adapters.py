"""Adapter files on pipelines: one call for any pipeline of diffusers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

    from training.methods.adapter import Adapter
    from training.methods.stack import Attached


class LoadedAdapter:
    """An adapter on a pipeline. As a context manager it comes off at the end of the block."""

    def __init__(self, attached: "Attached", adapter: "Adapter", component: str) -> None:
        self._attached = attached
        self.adapter = adapter
        """What is in the file."""
        self.component = component
        """The pipeline's part that it changes."""

    @property
    def scale(self) -> float:
        """How much of the change is applied."""
        return self._attached.scale

    def set_scale(self, scale: float) -> None:
        """Applies so much of the change: 0 is the base model, bit for bit, and 1 the trained one.

        Raises:
            ValueError: the scale is no number, or the adapter was unloaded.
        """
        _check_scale(scale)
        self._attached.set_scale(scale)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The pipeline without this adapter, for a while."""
        with self._attached.disabled():
            yield

    def unload(self) -> None:
        """Takes the adapter off; without others the base model is back, bit for bit.

        Raises:
            ValueError: it was unloaded before.
        """
        self._attached.unload()

    def __enter__(self) -> "LoadedAdapter":
        return self

    def __exit__(self, *_: Any) -> None:
        self._attached.__exit__()


def load_adapter(
    pipeline: Any, file: str | Path, *, scale: float = 1.0, folder: str | Path | None = None
) -> LoadedAdapter:
    """Puts an adapter file of this studio on a pipeline of any kind: Stable Diffusion, SDXL, SD3, Wan, ours.

    The part that it belongs to is found by its weights. Several adapters add up, in any order. A pipeline in bfloat16
    or float16 is known by the files of its folder, since its weights are rounded.

    Args:
        scale: 0 is the base model, 1 the trained one.
        folder: where the pipeline was loaded from, if it does not know it itself.

    Raises:
        ValueError: the file is damaged or not one of ours, or belongs to another model.
    """
    from training.methods.adapter import load_adapter as read
    from training.methods.changes import changes_of
    from training.methods.stack import stack_of

    _check_scale(scale)
    adapter = read(Path(file))
    component, network = _find(pipeline, adapter, Path(file), None if folder is None else Path(folder))
    stack = stack_of(network)
    with stack.base():
        changes = changes_of(network, adapter)
    return LoadedAdapter(stack.add(changes, scale), adapter, component)


def fold_lora(pipeline: Any, file: Path, *, scale: float, folder: Path) -> bool:
    """Adds a LoRA of this studio to half-precision weights for good, one layer after another.

    `load_adapter` keeps the change and the original of every weight to put them back, which of a model of 14 billion
    takes more memory than the model; whoever uses a pipeline once has no need of that.

    Returns:
        Whether it was done; not for other methods, nor in float32, where the next adapter is told by the weights.

    Raises:
        ValueError: the file is damaged or not one of ours, or belongs to another model.
    """
    import torch

    from training.methods.adapter import load_adapter as read
    from training.methods.layers import writable
    from training.methods.peft_methods import lora_factors

    _check_scale(scale)
    adapter = read(file)
    factors = lora_factors(adapter.config, adapter.delta)
    if len(adapter.delta) != 2 * len(factors) or not factors:
        return False
    half = (torch.bfloat16, torch.float16)
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    if not any(parameter.dtype in half for part in parts for parameter in part.parameters()):
        return False  # before anything is hashed
    _, network = _find(pipeline, adapter, file, folder)
    weights = {path: getattr(network.get_submodule(path), "weight", None) for path in factors}
    if not all(weight is not None and writable(weight) and weight.dtype in half for weight in weights.values()):
        return False
    with torch.no_grad():
        for path, (a, b) in factors.items():
            weight: Any = weights[path]
            change = (b.flatten(1).double() @ a.flatten(1).double()).view(weight.shape).float().to(weight.device)
            weight.copy_((weight.float() + scale * change).to(weight.dtype))
    return True


def _find(pipeline: Any, adapter: "Adapter", file: Path, folder: Path | None) -> tuple[str, "nn.Module"]:
    """The part of a pipeline that an adapter was trained on."""
    from torch import nn

    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    told = []
    for name, part in parts.items():
        if not _has_names(part, adapter):
            continue
        found, wanted, how = _hashes(pipeline, name, part, adapter, folder)
        if found == wanted:
            return name, part
        told.append(f"{name} has {found[:12]}" if found else f"{name} {how}")
    kind = type(pipeline).__name__
    reason = ", ".join(told) or f"no part of this {kind} ({', '.join(parts)}) has the layers that it changes"
    raise ValueError(
        f"{file} was trained on a model with the hash {adapter.base[:12]}; {reason}; "
        f"use {adapter.notes.get('base') or 'that model'}"
    )


def _has_names(part: "nn.Module", adapter: "Adapter") -> bool:
    """Tells whether a network has what an adapter changes, before gigabytes are hashed."""
    names = [name.replace(".base_layer.", ".") for name, _ in part.named_parameters()]
    known = {*names, *(name.rpartition(".")[0] for name in names)}
    return all(any(head in known for head in _heads(key)) for key in adapter.delta)


def _heads(key: str) -> list[str]:
    """A name with its last words taken off, one after another."""
    words = key.split(".")
    return [".".join(words[:k]) for k in range(len(words), 0, -1)]


def _hashes(
    pipeline: Any, name: str, part: "nn.Module", adapter: "Adapter", folder: Path | None
) -> tuple[str, str, str]:
    """What a part's hash is and should be, or why there is none."""
    import torch

    from training.methods.adapter import files_hash, weights_hash
    from training.methods.layers import writable
    from training.methods.stack import stack_of

    exact = all(p.dtype == torch.float32 and writable(p) for p in part.parameters())
    if exact and not any(".base_layer." in n for n, _ in part.named_parameters()):
        with stack_of(part).base():
            return weights_hash(part), adapter.base, ""
    if not adapter.files:
        return (
            "",
            adapter.base,
            "is not in float32, and the adapter does not say which files it was; load it in float32",
        )
    place = _place(pipeline, name, part, folder)
    if place is None:
        return "", adapter.files, "is not in float32, so its files are needed: give the pipeline's folder=..."
    return files_hash(place), adapter.files, ""


def _place(pipeline: Any, name: str, part: "nn.Module", folder: Path | None) -> Path | None:
    """The folder of a part's files."""
    own = str(getattr(getattr(part, "config", None), "_name_or_path", "") or "")
    whole = str(getattr(pipeline.config, "_name_or_path", "") or "")
    places = [folder / name] if folder else [Path(p) for p in (own, whole and f"{whole}/{name}") if p]
    return next((place for place in places if any(place.glob("*.safetensors"))), None)


def _check_scale(scale: float) -> None:
    import math

    if not math.isfinite(scale):
        raise ValueError(f"scale {scale}: must be a number, 0 for the base model and 1 for the trained one")


def find_adapter(text: str, flag: str) -> str:
    """The adapter file of a run's folder; what is no folder is left as it is.

    Raises:
        RequestError: the run has no adapter.
    """
    folder, colon, weight = (text, "", "") if Path(text).is_dir() else text.rpartition(":")
    if not folder or not Path(folder).is_dir():
        return text
    file = Path(folder) / "adapter.safetensors"
    if not file.is_file():
        raise RequestError(f"{flag} {folder}: has no adapter.safetensors; is it a finished run of `studio train`?")
    return f"{file}{colon}{weight}"


def part_scale(text: str) -> tuple[str, float | None]:
    """Takes FILE:NUMBER apart, whether or not the file is there; None where there is no number behind a colon."""
    import math

    head, colon, tail = text.rpartition(":")
    try:
        scale = float(tail) if head and colon and not Path(text).exists() else math.nan
    except (ValueError, OSError):
        scale = math.nan
    return (head, scale) if math.isfinite(scale) else (text, None)


def split_scale(text: str, flag: str) -> tuple[Path, float]:
    """Reads FILE or FILE:NUMBER.

    Raises:
        RequestError: there is no such file, or what follows the colon is no number.
    """
    import math

    head, colon, tail = text.rpartition(":")
    file, scale = Path(text), 1.0
    if colon and not file.exists():
        try:
            file, scale = Path(head), float(tail)
        except ValueError:
            raise RequestError(f"{flag} {text}: {tail!r} is not a number; write FILE or FILE:NUMBER") from None
        if not math.isfinite(scale):
            raise RequestError(f"{flag} {text}: {tail} is not a number to multiply by; write FILE or FILE:NUMBER")
    if not file.is_file():
        raise RequestError(f"{flag} {file}: no such file")
    return file, scale
