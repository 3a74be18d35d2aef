"""Training a few numbers of many tensors in place.

The weights hold the trained values at every moment, so the forward pass and the gradients of the inputs are exactly
those of a frozen model: no branch, no copy of a weight, no mask. Only the trained numbers have a gradient. They live in
one flat float32 vector, which is all that the optimizer sees, and are written into the weights after each of its steps.
SaRA's unstructural backpropagation (arXiv 2409.06633, sec. 3.4) made general: any support, linear layers and
convolutions, and no dense gradient of a whole layer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from training.methods.base import MethodConfig, Moved, ParamGroup, Tuner
from training.methods.layers import Layer, layer_of
from training.methods.recompute import recompute_of
from training.methods.scope import Scope
from training.methods.supports import SUPPORTS, Scattered, Singular, Support


@dataclass(eq=False)
class Piece:
    """One tensor's share of the flat vector."""

    name: str
    """The parameter's name in the model."""
    parameter: nn.Parameter
    support: Support
    """What is trained of it now."""
    start: int
    """Where its values begin in the flat vector."""
    part: Tensor
    """What `touched` rewrites, as it was before training."""
    touched: Support
    """All that was ever trained of it: the support, and what was left where it had got to."""
    learned: Float[Tensor, "touched"] | None = None
    """Values of all that was touched; None where that is the support itself."""
    where: Int[Tensor, "count"] | None = None
    """The support's values among the touched ones."""

    @property
    def span(self) -> slice:
        """Its values in the flat vector."""
        return slice(self.start, self.start + self.support.count)

    def all_values(self, values: Float[Tensor, "count"]) -> Float[Tensor, "touched"]:
        """The values of all that was touched; `values` are the support's."""
        if self.learned is None:
            return values
        assert self.where is not None
        self.learned[self.where] = values
        return self.learned


@dataclass(eq=False)
class _Site:
    """A layer whose forward pass goes through `_InPlace`."""

    layer: Layer
    module: nn.Module
    attribute: str
    weight: Piece | None = None
    bias: Piece | None = None


class InPlaceTuner(Tuner):
    """A tuner whose trained numbers are parts of the model's own tensors."""

    only_in_place: ClassVar[str] = ""
    """What it does beside training its numbers, which cannot be done where weights are quantized."""
    recompute: bool = True
    """Whether inputs that a cheap function made are made again in the backward pass instead of being kept."""

    def __init__(self, model: nn.Module, supports: Mapping[str, Support]) -> None:
        super().__init__(model)
        # by the names of now: another tuner may wrap layers later
        self._parameters = dict(model.named_parameters())
        self._was_trainable = {n: p.requires_grad for n, p in self._parameters.items()}
        for parameter in self._parameters.values():
            parameter.requires_grad_(False)
        self.pieces: list[Piece] = []
        self._values = nn.Parameter(torch.zeros(0))
        self._sites: list[_Site] = []
        self._hooks: list[Any] = []
        self._set(supports)

    @property
    def values(self) -> nn.Parameter:
        """The trained numbers, float32, in the order of `pieces`."""
        return self._values

    def parameters(self) -> Iterable[ParamGroup]:
        """The flat vector."""
        return (ParamGroup(parameters=(self._values,)),)

    def after_step(self, step: int) -> bool:
        """Writes the values into the weights."""
        self._write(1.0)
        return False

    def refresh(self) -> None:
        """Writes the values into the weights."""
        self._write(1.0)

    def state(self) -> dict[str, Tensor]:
        """The values, and for every tensor what is trained, what ever was, and where that had got to."""
        found = {"values": self._values.detach()}
        for piece in self.pieces:
            found[f"{piece.name}.{piece.support.kind}"] = piece.support.index()
            if piece.learned is not None:
                found[f"{piece.name}.touched"] = piece.touched.index()
                found[f"{piece.name}.learned"] = piece.all_values(self._values.detach()[piece.span])
        return found

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes over values and choices; the weights are the base's."""
        learned = {n.removesuffix(".learned"): v for n, v in state.items() if n.endswith(".learned")}
        kept = {piece.name: piece.support for piece in self.pieces}
        self._detach()
        supports: dict[str, Support] = {}
        for name, parameter in self._parameters.items():
            for kind in SUPPORTS:
                if f"{name}.{kind}" in state:
                    # a decomposition is not made again where it is there already
                    same = isinstance(kept.get(name), Singular)
                    supports[name] = kept[name] if same else SUPPORTS[kind].read(state[f"{name}.{kind}"], parameter)
        if sum(s.count for s in supports.values()) != len(state["values"]):
            raise ValueError("the state does not fit this model: another method, scope or model")
        self._set(supports)
        for piece in self.pieces:
            if piece.name in learned:
                touched = state[f"{piece.name}.touched"].to(piece.parameter.device)
                piece.touched = Scattered(touched, piece.parameter.shape)
                piece.touched.to(piece.parameter.device)
                piece.part = piece.touched.take(piece.parameter)
                piece.learned = learned[piece.name].to(piece.parameter.device, copy=True)
                piece.where = torch.searchsorted(touched.long(), piece.support.index().long())
        self._values.copy_(state["values"])
        self._write(1.0)

    def set_scale(self, scale: float) -> None:
        """Writes the weights with so much of the change."""
        self._write(scale)

    def delta(self) -> dict[str, Tensor]:
        """For every tensor what is trained of it and by how much it changed, float32."""
        found = {}
        with torch.no_grad():
            for piece in self.pieces:
                values = piece.all_values(self._values[piece.span].to(piece.parameter.device))
                change = values - piece.touched.start(piece.part)
                found[f"{piece.name}.{piece.touched.kind}"] = piece.touched.index().cpu()
                found[f"{piece.name}.change"] = change.cpu()
        return found

    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over supports and changes.

        Raises:
            ValueError: a tensor is not in this model, or does not fit.
        """
        self._write(0.0)
        supports, changes = read_delta(self._parameters, delta)
        self._detach()
        self._set(supports)
        with torch.no_grad():
            for piece in self.pieces:
                change = changes[piece.name].to(self._values)
                self._values[piece.span] += change
        self._write(1.0)

    def merge(self) -> None:
        """Keeps the weights as they are and lets go of the layers."""
        self._write(1.0)
        self._release()

    def unload(self) -> None:
        """Puts the original numbers back and lets go of the layers."""
        for piece in self.pieces:
            piece.touched.put(piece.parameter, piece.part)
        self._release()

    def choose_anew(self, chosen: Mapping[str, Int[Tensor, "_"]]) -> None:
        """Goes on with other numbers, by sorted flat index; only for scattered ones.

        What leaves stays in the weights at its learned value. What stays keeps its value, and `moved` tells the
        optimizer where its state goes; what is new begins at its present value and without any state.
        """
        old, grad = self._values, self._values.grad
        pieces, kept, values, start = [], [], [], 0
        known = {piece.name: piece for piece in self.pieces}
        for name in [n for n in self._parameters if n in known or n in chosen]:
            parameter = self._parameters[name]
            device = parameter.device
            new = chosen.get(name, torch.zeros(0, dtype=torch.int64)).to(device).long()
            before = known.get(name)
            had, place = (before.support.index().long(), before.start) if before else (new[:0], 0)
            touched = torch.unique(torch.cat([before.touched.index().long(), new])) if before else new
            all_touched = Scattered(touched, parameter.shape)
            all_touched.to(device)
            part = all_touched.take(parameter)
            learned = part.to(torch.float32, copy=True)
            if before:
                at = torch.searchsorted(touched, before.touched.index().long())
                part[at] = before.part
                learned[at] = before.all_values(old.detach()[before.span].to(device))
            support = Scattered(new, parameter.shape)
            support.to(device)
            where = torch.searchsorted(touched, new)
            spot = torch.searchsorted(had, new).clamp(max=max(0, len(had) - 1))
            stays = had[spot] == new if len(had) else torch.zeros_like(new, dtype=torch.bool)
            kept.append(torch.where(stays, spot + place, -1).to(old.device))
            values.append(learned[where].to(old.device))
            pieces.append(
                Piece(
                    name=name, parameter=parameter, support=support, start=start, part=part, touched=all_touched,
                    learned=learned, where=where,
                )
            )  # fmt: skip
            start += support.count
        self._detach()
        self.pieces = pieces
        self._values = nn.Parameter(torch.cat(values))
        move = Moved(old=old, new=self._values, kept=torch.cat(kept))
        if grad is not None:
            self._values.grad = move.carry(grad)
        self._attach()
        self.moved = (move,)

    # what follows is how it is done

    def _set(self, supports: Mapping[str, Support]) -> None:
        self.pieces = []
        start, values = 0, []
        device = next(iter(self._parameters.values())).device
        # in the model's order, whatever the method's or the file's is
        for name, parameter in self._parameters.items():
            support = supports.get(name)
            if support is None:
                continue
            support.to(parameter.device)
            part = support.take(parameter)
            piece = Piece(name=name, parameter=parameter, support=support, start=start, part=part, touched=support)
            self.pieces.append(piece)
            values.append(support.start(part).to(device))
            start += support.count
        self._values = nn.Parameter(torch.cat(values) if values else torch.zeros(0, device=device))
        self._attach()

    def _attach(self) -> None:
        waiting = {id(piece.parameter): piece for piece in self.pieces}
        reached: set[int] = set()
        for module in self.model.modules():
            own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
            mine = {key: waiting[id(p)] for key, p in own.items() if id(p) in waiting}
            layer = layer_of(module) if mine else None
            if layer is None:
                continue
            attribute = "forward" if isinstance(module, nn.Linear) else "_conv_forward"
            if attribute == "forward" and hasattr(module, "_hf_hook"):
                attribute = "_old_forward"  # accelerate's hook wraps the forward pass and calls this one
            site = _Site(layer, module, attribute, mine.get("weight"), mine.get("bias"))
            self._sites.append(site)
            reached |= {id(piece.parameter) for piece in mine.values()}
            _lend(site, self)
        for piece in self.pieces:
            if id(piece.parameter) not in reached:
                # a norm, an embedding, a table: autograd makes its gradient, of which the chosen numbers are taken
                piece.parameter.requires_grad_(True)
                hook = piece.parameter.register_post_accumulate_grad_hook(partial(self._take_grad, piece))
                self._hooks.append(hook)

    def _detach(self) -> None:
        for site in self._sites:
            site.module.__dict__.pop(site.attribute, None)
            if site.attribute == "_old_forward":
                site.module.__dict__[site.attribute] = partial(type(site.module).forward, site.module)
        for hook in self._hooks:
            hook.remove()
        for piece in self.pieces:
            piece.parameter.requires_grad_(False)
            piece.parameter.grad = None
        self._sites, self._hooks = [], []

    def _release(self) -> None:
        self._detach()
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(self._was_trainable[name])
        self.pieces = []

    def _take_grad(self, piece: Piece, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.accumulate(piece, piece.support.of_dense(parameter.grad))
        parameter.grad = None

    def accumulate(self, piece: Piece, grad: Float[Tensor, "count"]) -> None:
        """Adds to the gradient of one tensor's values."""
        if self._values.grad is None:
            self._values.grad = torch.zeros_like(self._values)
        self._values.grad[piece.span] += grad.to(self._values.device)

    @torch.no_grad()
    def _write(self, scale: float) -> None:
        for piece in self.pieces:
            values = piece.all_values(self._values[piece.span].to(piece.parameter.device))
            # nothing of the change must be the original itself, which rounding may miss
            part = piece.part if scale == 0 else piece.touched.make(piece.part, values, scale)
            piece.touched.put(piece.parameter, part)


class InPlaceMethod(MethodConfig):
    """A method whose trained numbers are parts of the model's tensors."""

    def restore(self, model: nn.Module, scope: Scope, delta: Mapping[str, Tensor]) -> Tuner:
        """What is trained stands in the delta: nothing is chosen again."""
        tuner = InPlaceTuner(model, {})
        tuner.load(delta)
        return tuner


class ScatteredMethod(InPlaceMethod):
    """A method whose numbers lie anywhere in a weight, so that it needs the whole input of a layer."""

    recompute: bool = True
    """Inputs that a cheap function made (an activation, a norm) are made again in the backward pass instead of being
    kept: less memory for a few hundredths of the time."""


def _lend(site: _Site, tuner: InPlaceTuner) -> None:
    """Puts `_InPlace` in the place of a layer's arithmetic."""
    module = site.module

    def linear(x: Tensor) -> Tensor:
        return _InPlace.apply(x, module.weight, module.bias, tuner.values, site, tuner)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _InPlace.apply(x, weight, bias, tuner.values, site, tuner)

    module.__dict__[site.attribute] = convolve if site.attribute == "_conv_forward" else linear


class _InPlace(torch.autograd.Function):
    """The plain layer, whose backward pass leaves the gradients of the trained numbers in the flat vector.

    They do not go through autograd: a slice of the flat vector would have a gradient as long as the whole for every
    layer.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, values: Tensor, site: _Site, tuner: InPlaceTuner
    ) -> Tensor:
        kind = x.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        ctx.site, ctx.tuner, ctx.shape, ctx.x_dtype = site, tuner, x.shape, x.dtype
        cast = x.to(ctx.dtype)
        kept = None
        # what is thin anyway is kept: to make it again, all of the input would have to be made
        ctx.again = recompute_of(x) if tuner.recompute and site.weight and site.weight.support.wants_all else None
        if site.weight and ctx.again is None:
            kept = site.weight.support.keep(site.layer, cast)
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
        if hooks is None:
            ctx.save_for_backward(weight, kept)
            ctx.unpack = None
        else:
            # before the product: checkpointing's second forward pass ends with the last thing that is saved
            pack, ctx.unpack = hooks
            ctx.weight, ctx.packed = weight, None if kept is None else pack(kept)
        return site.layer.forward(cast, weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype))

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        site, tuner = ctx.site, ctx.tuner
        if ctx.unpack is None:
            weight, kept = ctx.saved_tensors
        else:
            weight, kept = ctx.weight, None if ctx.packed is None else ctx.unpack(ctx.packed)
            if not torch._C._autograd._get_current_graph_task_keep_graph():
                # checkpointing's hook holds the inputs of its block, and this node lives until the whole pass has ended
                ctx.packed = ctx.unpack = None
        upstream = upstreams[0].to(ctx.dtype)
        # the weight's first: what was kept for it may be gone before the input's gradient takes its room
        if site.weight:
            support = site.weight.support
            if ctx.again is not None:
                found = support.grad_again(site.layer, upstream, ctx.again)
            else:
                found = support.grad(site.layer, upstream, kept)
            tuner.accumulate(site.weight, found)
            del found
        del kept
        if site.bias:
            tuner.accumulate(site.bias, site.bias.support.bias_grad(site.layer, upstream))
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = site.layer.input_grad(upstream, ctx.shape, weight.to(ctx.dtype)).to(ctx.x_dtype)
        return x_grad, None, None, None, None, None


def read_delta(
    tensors: Mapping[str, Tensor], delta: Mapping[str, Tensor]
) -> tuple[dict[str, Support], dict[str, Tensor]]:
    """The supports and changes in what `InPlaceTuner.delta` gave.

    Raises:
        ValueError: a tensor is not in this model, or does not fit.
    """
    supports: dict[str, Support] = {}
    changes: dict[str, Tensor] = {}
    for key, value in delta.items():
        name, _, kind = key.rpartition(".")
        if name not in tensors:
            raise ValueError(
                f"the adapter changes {name or key!r}, which this model does not have; it is of another model"
            )
        if kind == "change":
            changes[name] = value
        elif kind in SUPPORTS:
            supports[name] = SUPPORTS[kind].read(value, tensors[name])
        else:
            raise ValueError(
                f"the adapter has {key!r}, which is of no known kind; known are {', '.join(sorted(SUPPORTS))}"
            )
    for name, support in supports.items():
        count = len(changes[name]) if name in changes else 0
        if count != support.count:
            raise ValueError(f"the adapter has {count} values for {name}, its indices want {support.count}")
    return supports, changes
