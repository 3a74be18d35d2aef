"""Where in a network a method may train: modules by path, or by what they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from torch import nn

_NORMS = ("LayerNorm", "GroupNorm", "RMSNorm", "BatchNorm", "AdaLayerNorm", "InstanceNorm")


def _is_norm(path: str, module: nn.Module) -> bool:
    return any(word in type(module).__name__ for word in _NORMS)


def _is_attention(path: str, module: nn.Module) -> bool:
    # a block such as CrossAttnDownBlock2D holds attention, a processor has no weights
    return "Attention" in type(module).__name__ and any(
        n.endswith(("to_q", "to_qkv")) for n, _ in module.named_children()
    )


def _is_self(path: str, module: nn.Module) -> bool:
    return _is_attention(path, module) and not _reads_other(path, module)


def _is_cross(path: str, module: nn.Module) -> bool:
    return _is_attention(path, module) and _reads_other(path, module)


def _reads_other(path: str, module: nn.Module) -> bool:
    # the name is no sure sign: attn2 of Stable Diffusion 3.5 reads the picture's own tokens
    told = getattr(module, "is_cross_attention", None)
    return bool(told) if told is not None else path.rsplit(".", 1)[-1] in ("attn2", "cross_attn")


def _is_feed_forward(path: str, module: nn.Module) -> bool:
    return type(module).__name__ in ("FeedForward", "MLP", "Mlp") or path.rsplit(".", 1)[-1] in ("ff", "ffn", "mlp")


def _is_conv(path: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)


KINDS: Final[dict[str, Callable[[str, nn.Module], bool]]] = {
    "attention": _is_attention,
    "self-attention": _is_self,
    "cross-attention": _is_cross,
    "feed-forward": _is_feed_forward,
    "norms": _is_norm,
    "convolutions": _is_conv,
}
"""Words that a scope understands beside paths."""


@dataclass(frozen=True)
class Scope:
    """Named modules of a network, in its order: a method touches nothing outside."""

    modules: tuple[str, ...] = ("",)
    """Dotted paths; "" is the whole network. Everything below a path is in."""

    def holds(self, name: str) -> bool:
        """Tells whether a module or parameter is in."""
        return any(not path or name == path or name.startswith(path + ".") for path in self.modules)


def parameters_in(model: nn.Module, scope: Scope) -> dict[str, nn.Parameter]:
    """The parameters that a scope holds, by name.

    Raises:
        ValueError: there are none.
    """
    found = {name: p for name, p in model.named_parameters() if scope.holds(name)}
    if not found:
        raise ValueError(f"there is nothing to train in the scope {', '.join(scope.modules)}")
    return found


def find_scope(model: nn.Module, words: Sequence[str] = ()) -> Scope:
    """Finds the modules that words name; without words it is the whole network.

    A word is a kind ("attention", see `KINDS`), a path with `*` for anything ("blocks.*.attn1"), or either with "!"
    before it, which takes out again what the words so far have put in.

    Raises:
        ValueError: a word finds nothing; the message lists what there is.
    """
    if not words:
        return Scope()
    paths = dict(model.named_modules())
    chosen: set[str] = set(paths) if words[0].startswith("!") else set()
    for word in words:
        name = word.removeprefix("!")
        if name in KINDS:
            found = {path for path, module in paths.items() if path and KINDS[name](path, module)}
        else:
            found = {path for path in paths if path and fnmatchcase(path, name)}
        if not found:
            tops = ", ".join(n for n, _ in model.named_children())
            raise ValueError(
                f"scope {word!r} finds nothing in this network; kinds are {', '.join(KINDS)}; parts are {tops}"
            )
        below = {p for p in paths if any(p == f or p.startswith(f + ".") for f in found)}
        above = {p for p in paths if any(f.startswith(p + ".") or not p for f in found)}
        chosen = chosen - below - above if word.startswith("!") else chosen | below
    if not chosen:
        raise ValueError(f"scope {' '.join(words)}: nothing is left")
    # what is below something chosen need not be said
    tops_only = [p for p in paths if p in chosen and not any(_inside(p, c) for c in chosen)]
    return Scope(tuple(tops_only))


def _inside(path: str, other: str) -> bool:
    return path != other and (not other or path.startswith(other + "."))
