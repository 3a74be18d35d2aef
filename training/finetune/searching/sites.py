"""Places in a network that a search switches on and off: one bit each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from torch import nn

from training.methods.scope import KINDS, find_scope

Paths = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sites:
    """What the bits of a mask stand for, in their order."""

    bits: dict[str, Paths]
    """A bit's name, and the modules that it switches."""
    always: Paths = ()
    """Modules that are trained whatever the mask says."""

    def scope(self, mask: Sequence[bool]) -> Paths:
        """The modules that a mask trains."""
        on = [paths for paths, bit in zip(self.bits.values(), mask, strict=True) if bit]
        return (*self.always, *(path for paths in on for path in paths))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A rule that makes sites of any network of diffusers."""

    about: str
    find: Callable[[nn.Module], dict[str, Paths]] = field(repr=False)


def _blocks(network: nn.Module) -> dict[str, Paths]:
    """Modules that hold attention themselves, such as a BasicTransformerBlock."""
    return {
        path: (path,)
        for path, module in network.named_modules()
        if path and any(KINDS["attention"](name, part) for name, part in module.named_children())
    }


def _layers(network: nn.Module) -> dict[str, Paths]:
    """The attention and feed-forward layers of every block."""
    found: dict[str, Paths] = {}
    for block in _blocks(network):
        for name, part in network.get_submodule(block).named_children():
            if KINDS["attention"](name, part) or KINDS["feed-forward"](name, part):
                found[f"{block}.{name}"] = (f"{block}.{name}",)
    return found


def _matrices(network: nn.Module) -> dict[str, Paths]:
    """Queries, keys, values and outputs of every attention layer, and every feed-forward layer."""
    found: dict[str, Paths] = {}
    for layer in _layers(network):
        module = network.get_submodule(layer)
        if KINDS["feed-forward"](layer, module):
            found[layer] = (layer,)
            continue
        for name, _ in module.named_children():
            if name.startswith(("to_", "add_", "to_add")):
                found[f"{layer}.{name}"] = (f"{layer}.{name}",)
    return found


def _kinds(network: nn.Module) -> dict[str, Paths]:
    """One bit for each kind of layer and half of the depth: few bits, for few trials."""
    found: dict[str, Paths] = {}
    for kind in ("self-attention", "cross-attention", "feed-forward", "convolutions"):
        paths = [path for path, module in network.named_modules() if path and KINDS[kind](path, module)]
        halves = (paths[: len(paths) // 2], paths[len(paths) // 2 :])
        for name, half in zip(("first half", "second half"), halves, strict=True):
            if half:
                found[f"{kind}, {name}"] = tuple(half)
    return found


LAYOUTS: Final = {
    "blocks": Layout(about="every transformer block", find=_blocks),
    "layers": Layout(about="every attention and feed-forward layer of every block", find=_layers),
    "matrices": Layout(about="q, k, v and output of every attention layer; every feed-forward layer", find=_matrices),
    "kinds": Layout(about="each kind of layer in each half of the depth", find=_kinds),
}
"""`[search] sites`, by name; a list of scope words makes one bit of each."""

_UP = {"sd-13": (0, 1), "sd-16": (0, 1, 2)}
"""The attentions of an up block that MemControl's masks of 13 and 16 bits switch."""


def find_sites(network: nn.Module, wanted: str | Sequence[str], always: Sequence[str] = ()) -> Sites:
    """Makes the sites of a network.

    Args:
        wanted: one of `LAYOUTS`, "sd-13" or "sd-16" for the masks of MemControl's code on a Stable Diffusion U-Net, or
            scope words, one bit each.
        always: scope words of what is trained whatever the mask says.

    Raises:
        ValueError: the network has no such places.
    """
    if not isinstance(wanted, str):
        bits = {word: find_scope(network, [word]).modules for word in wanted}
    elif wanted in _UP:
        bits = _stable_diffusion(network, _UP[wanted], wanted)
    elif wanted in LAYOUTS:
        bits = LAYOUTS[wanted].find(network)
    else:
        known = ", ".join([*LAYOUTS, *_UP])
        raise ValueError(f"sites {wanted!r}: no such layout; known are {known}, or give a list of scope words")
    if not bits:
        raise ValueError(f"sites {wanted!r}: this network has none; give a list of scope words")
    return Sites(bits=bits, always=find_scope(network, always).modules if always else ())


def _stable_diffusion(network: nn.Module, up: Sequence[int], name: str) -> dict[str, Paths]:
    """Bits in the order of the paper's code: two attentions of three down blocks, the middle, those of three up blocks.

    A bit is one whole `transformer_blocks`, never q, k or v alone.
    """
    places = [f"down_blocks.{block}.attentions.{k}" for block in (0, 1, 2) for k in (0, 1)]
    places.append("mid_block.attentions.0")
    places += [f"up_blocks.{block}.attentions.{k}" for block in (1, 2, 3) for k in up]
    there = {path for path, _ in network.named_modules()}
    paths = [f"{place}.transformer_blocks" for place in places]
    missing = [path for path in paths if path not in there]
    if missing:
        raise ValueError(f"sites {name!r} are of a Stable Diffusion 1.x or 2.x U-Net: this network has no {missing[0]}")
    return {path: (path,) for path in paths}
