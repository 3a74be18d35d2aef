"""Places in a network that a search switches on and off: one bit each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
    option: str | None = None
    """The method's option that takes the mask, where it is not the scope: then a run has the whole network in scope."""

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

PRESETS: Final = ("sd-13", "sd-16")
"""MemControl's own masks on the U-Net of Stable Diffusion 1.x and 2.x."""


def find_sites(network: nn.Module, wanted: str | Sequence[str], always: Sequence[str] = (), *, method: str) -> Sites:
    """Makes the sites of a network.

    Args:
        wanted: one of `LAYOUTS` or `PRESETS`, or scope words, one bit each.
        always: scope words of what is trained whatever the mask says.
        method: the method's name; a preset leaves the rest of the network to it as the paper's code does.

    Raises:
        ValueError: the network has no such places.
    """
    if not isinstance(wanted, str):
        sites = Sites(bits={word: find_scope(network, [word]).modules for word in wanted})
    elif wanted in PRESETS:
        sites = _paper(network, wanted, method)
    elif wanted in LAYOUTS:
        sites = Sites(bits=LAYOUTS[wanted].find(network))
    else:
        known = ", ".join([*LAYOUTS, *PRESETS])
        raise ValueError(f"sites {wanted!r}: no such layout; known are {known}, or give a list of scope words")
    if not sites.bits:
        raise ValueError(f"sites {wanted!r}: this network has none; give a list of scope words")
    return replace(sites, always=(*sites.always, *(find_scope(network, always).modules if always else ())))


def _paper(network: nn.Module, name: str, method: str) -> Sites:
    """The masks of the paper's code (arXiv 2405.19458): a bit is one whole `transformer_blocks`, never q, k or v alone.

    In its order: two attentions of each of three down blocks, the middle, and of three up blocks two (13) or all three
    (16). Its masks of zeros are no frozen networks: of SV-DIFF all outside the blocks is trained always, of DiffFit all
    biases and norms, of attention tuning the norms, projections and feed-forward layers of all attentions.
    """
    up = (0, 1) if name == "sd-13" else (0, 1, 2)
    places = [f"down_blocks.{block}.attentions.{k}" for block in (0, 1, 2) for k in (0, 1)]
    places.append("mid_block.attentions.0")
    places += [f"up_blocks.{block}.attentions.{k}" for block in (1, 2, 3) for k in up]
    there = dict(network.named_modules())
    blocks = [f"{place}.transformer_blocks" for place in places]
    missing = [path for path in blocks if path not in there]
    if missing:
        raise ValueError(f"sites {name!r} are of a Stable Diffusion 1.x or 2.x U-Net: this network has no {missing[0]}")
    bits: dict[str, Paths] = {path: (path,) for path in blocks}
    if method == "difffit":
        return Sites(bits=bits, option="gain_scope")
    if method == "svdiff":
        return Sites(bits=bits, always=find_scope(network, [f"!{path}" for path in blocks]).modules)
    if method == "full" and name == "sd-16":
        return _attention_tuning(there, bits)
    return Sites(bits=bits)


def _attention_tuning(there: dict[str, nn.Module], bits: dict[str, Paths]) -> Sites:
    found: dict[str, Paths] = {}
    always: list[str] = []
    for block in bits:
        found[block] = tuple(
            path for path in there if path.startswith(f"{block}.") and KINDS["attention"](path, there[path])
        )
    for path, module in there.items():
        if path.rsplit(".", 1)[-1].isdigit() and path.rsplit(".", 2)[-2:-1] == ["attentions"]:
            inside = [f"{path}.{name}" for name, _ in module.named_modules() if name]
            last = {p: p.rsplit(".", 1)[-1] for p in inside}
            always += [p for p in inside if last[p] in ("norm", "proj_in", "proj_out", "ff", "norm1", "norm2", "norm3")]
    return Sites(bits=found, always=tuple(always))
