"""An adapter with the model that it belongs to, found and checked, and what an export came to."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from models.components import load_component
from models.loading import NETWORKS, component_names, resolve_folder
from training.methods.adapter import Adapter, AdapterError, files_hash, weights_hash
from training.methods.changes import Change, changes_of


@dataclass(frozen=True, kw_only=True)
class Base:
    """The network that an adapter was trained on."""

    folder: Path
    """Of the pipeline."""
    component: str
    network: nn.Module
    """In float32."""

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of every tensor, by name."""
        return {name: p.numel() for name, p in self.network.named_parameters()}

    def changes(self, adapter: Adapter) -> dict[str, Change]:
        """What the adapter does to it."""
        return changes_of(self.network, adapter)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was written, and how well it says what the adapter says."""

    output: Path
    max_error: float
    """The worst layer's difference between what was read back and the adapter applied here: by the norm of its change
    in a LoRA, by that of the weight in a merged model, which is applied in the type of the base's files."""
    lost: float
    """The difference between what was read back and the change over all tensors, by its norm: what had no place in
    the format, thin matrices or the files' type."""
    round_trip: float
    """The worst layer's difference between what was read back and what was meant to be written."""
    approximate: dict[str, float] = field(default_factory=dict)
    """Layers that the format cannot hold exactly, with the relative error of each."""
    dropped: tuple[str, ...] = ()
    """Tensors that the format cannot hold at all."""
    dropped_share: float = 0.0
    """Their share of the change's energy, the sum of squares."""


def open_base(adapter: Adapter, model: str | None = None) -> Base:
    """Loads the network that an adapter was trained on.

    Args:
        model: folder, name or hub id; by default what the adapter's notes say.

    Raises:
        AdapterError: the model is not the adapter's.
        ValueError: there is no such model.
    """
    named = model or adapter.notes.get("base", "")
    if not named:
        raise AdapterError("the adapter does not say what it was trained on; name the model with --model")
    try:
        folder = resolve_folder(named)
    except ValueError as error:
        told = "" if model else "the adapter was trained on it; say where it is now with --model: "
        raise ValueError(f"{told}{error}") from error
    names = component_names(folder)
    for name in names:
        if adapter.files and files_hash(folder / name) == adapter.files:
            return Base(folder=folder, component=name, network=load_component(folder, name))
    for name in names:
        if name not in NETWORKS:  # not gigabytes of text encoders
            continue
        network = load_component(folder, name)
        if weights_hash(network) == adapter.base:
            return Base(folder=folder, component=name, network=network)
    raise AdapterError(
        f"the adapter was trained on {adapter.notes.get('base') or 'a model'} ({adapter.base[:12]}), and nothing in "
        f"{folder} ({', '.join(names) or 'no networks'}) has those weights; name the right model with --model"
    )
