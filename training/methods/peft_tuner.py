"""Sparse training in place as a method of PEFT: `model.add_adapter(SparseConfig(...))`, `get_peft_model`.

PEFT has no door for methods of others: a member is put into its list of them here, once, when this module is imported.
Learned changes are the adapter's parameters; they stand in the base weights from a forward pass until somebody looks
at these, when the originals are put back bit for bit.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from peft import PeftConfig
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, PeftType, register_peft_method
from torch import Tensor, nn

from training.methods.changes import Change
from training.methods.layers import Layer, layer_of
from training.methods.sparse import Sparse
from training.methods.supports import Columns, Rows, Scattered, Support

NAME: Final = "studio_sparse"
"""The method's name in PEFT; with "_" it begins what is its own in a state dict."""
_KINDS: Final[dict[str, type[Support]]] = {"single": Scattered, "rows": Rows, "columns": Columns}


def _add_type(name: str) -> PeftType:
    """Puts a member into PEFT's list of methods."""
    members: dict[str, PeftType] = PeftType._member_map_
    if name not in members:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        type.__setattr__(PeftType, name, member)
        PeftType._member_names_.append(name)
        PeftType._value2member_map_[name] = members[name] = member
    return members[name]


STUDIO_SPARSE: Final = _add_type(NAME.upper())


@dataclass
class SparseConfig(PeftConfig):
    """Trains a share of every targeted layer's weights in place: linear layers and convolutions."""

    fraction: float = field(default=0.01, metadata={"help": "Share of the weights that is trained."})
    rank: int | None = field(default=None, metadata={"help": "So many rows or columns of each layer instead (PaCA)."})
    selector: Literal["smallest", "largest", "random"] = field(
        default="largest", metadata={"help": "Which: by size (smallest is SaRA's), or at random."}
    )
    structure: Literal["single", "rows", "columns"] = field(
        default="single", metadata={"help": "Single weights, or whole rows or input columns."}
    )
    per_tensor: bool = field(default=True, metadata={"help": "The share is that of every layer, not of all together."})
    seed: int = field(default=0, metadata={"help": "Of the random choice."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "As in LoraConfig."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "As in LoraConfig."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "As in LoraConfig."})

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: one is out of range.
        """
        super().__post_init__()
        self.peft_type = STUDIO_SPARSE
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # as PEFT's own configs do
        if self.rank is not None and (self.rank < 1 or self.structure == "single"):
            raise ValueError(f"rank {self.rank}: must be 1 or more, and goes with structure='columns' or 'rows'")
        self.rule()

    def rule(self, share: float | None = None) -> Sparse:
        """The rule of choice, for a share of its own where there is a rank."""
        return Sparse(
            fraction=self.fraction if share is None else share, selector=self.selector, structure=self.structure,
            per_tensor=self.per_tensor,
        )  # fmt: skip

    def choose(self, weights: dict[str, nn.Parameter]) -> dict[str, Support]:
        """What is trained of each weight."""
        rng = torch.Generator().manual_seed(self.seed)
        if self.rank is None:
            return self.rule().choose(nn.Module(), weights, rng)
        axis = 1 if self.structure == "columns" else 0
        chosen: dict[str, Support] = {}
        for name, weight in weights.items():
            rule = self.rule(min(1.0, self.rank / weight.shape[axis]))
            chosen |= rule.choose(nn.Module(), {name: weight}, rng)
        return chosen


class SparseLayer(nn.Module, BaseTunerLayer):
    """A linear layer or convolution with adapters in its weights."""

    adapter_layer_names = ("studio_sparse_values",)
    other_param_names = ("studio_sparse_index", "structure", "scaling")

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        arithmetic = layer_of(base_layer)
        if arithmetic is None:
            raise ValueError(f"SparseConfig trains linear layers and convolutions, not a {type(base_layer).__name__}")
        self.base_layer = base_layer
        self.arithmetic: Layer = arithmetic
        self.studio_sparse_values = nn.ParameterDict({})
        self.studio_sparse_index = BufferDict(persistent=True)
        self.structure: dict[str, str] = {}
        self.scaling: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._key: tuple[object, ...] = ()
        self._learned: list[Tensor] = []
        self._written: list[_Touched] = []
        self._merges: list[_Touched] = []
        self._supports: dict[str, tuple[object, Support, Tensor]] = {}
        # a state dict, a copy or whoever else reads the weights sees the base
        self.register_state_dict_pre_hook(lambda module, prefix, keep_vars: module.restore())

    def add(self, name: str, support: Support, structure: str) -> None:
        """Adds an adapter that changes nothing yet."""
        weight = self._weight
        self.studio_sparse_values[name] = nn.Parameter(torch.zeros(support.count))
        self.studio_sparse_index[name] = support.index().int() if weight.numel() < 2**31 else support.index().long()
        self.structure[name], self.scaling[name] = structure, 1.0
        self._move_adapter_to_device_of_base_layer(name)
        self.activate(self._active())

    def activate(self, names: list[str]) -> None:
        """Applies and trains these adapters."""
        BaseTunerLayer.set_adapter(self, names)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The plain layer on weights that hold the active adapters."""
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            self.restore()
        elif not self.merged:
            self._write()
            names = self._active()
            values = [self.studio_sparse_values[name] for name in names]
            if torch.is_grad_enabled() and any(v.requires_grad for v in values):
                supports = [(self._support(name), self.scaling[name]) for name in names]
                weight, bias = self._weight, self.base_layer.bias
                result: Tensor = _SparseLinear.apply(x, weight, bias, self.arithmetic, supports, *values)
                return result
        plain: Tensor = self.base_layer(x, *args, **kwargs)
        return plain

    def restore(self) -> None:
        """Puts the original weights back."""
        for touched in reversed(self._written):
            touched.undo(self.base_layer)
        self._written, self._key, self._learned = [], (), []

    def get_base_layer(self) -> nn.Module:
        """The layer with its original weights, or merged ones."""
        self.restore()
        return super().get_base_layer()

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Leaves adapters in the weights.

        Raises:
            ValueError: `safe_merge` finds a number that is not finite; the weights are as before.
        """
        self.restore()
        for name in check_adapters_to_merge(self, adapter_names) or ():
            if name in self.studio_sparse_values:
                if safe_merge and not bool(torch.isfinite(self.studio_sparse_values[name]).all()):
                    raise ValueError(f"adapter {name} holds numbers that are not finite; it cannot be merged")
                self._merges.append(self._put_in(name))
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Takes merged adapters out again, bit for bit."""
        while self._merges:
            self._merges.pop().undo(self.base_layer)
        self.merged_adapters.clear()

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What an adapter adds to the weight."""
        index, values = self.studio_sparse_index[adapter].cpu(), self.studio_sparse_values[adapter].detach().float()
        change = self._change(adapter, index, values.cpu() * self.scaling[adapter])
        return change.dense().to(self._weight.device)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Applies so much of an adapter."""
        if adapter in self.scaling:
            self.scaling[adapter] = scale

    def scale_layer(self, scale: float) -> None:
        """Multiplies the scales of the active adapters."""
        for name in self._active():
            self.scaling[name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divides the scales of the active adapters again, or sets them to 1."""
        for name in self._active():
            self.scaling[name] = 1.0 if scale is None else self.scaling[name] / scale

    def delete_adapter(self, adapter_name: str) -> None:
        """Takes an adapter away."""
        self.restore()
        self._supports.pop(adapter_name, None)
        super().delete_adapter(adapter_name)

    def enable_adapters(self, enabled: bool) -> None:
        """Switches adapters on, or off: the original weights are back at once."""
        if not enabled:
            self.restore()
        super().enable_adapters(enabled)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """`studio export` makes LoRAs of sparse changes."""
        return False

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # values stay float32 and indices whole numbers, whatever the weights are
        device = self._weight.device if device is None else device
        values = self.studio_sparse_values[adapter_name]
        if device.type != "meta" and values.device.type != "meta":
            values.data = values.data.to(device)
            self.studio_sparse_index[adapter_name] = self.studio_sparse_index[adapter_name].to(device)

    @property
    def _weight(self) -> nn.Parameter:
        weight = self.base_layer.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def _active(self) -> list[str]:
        own: Any = self
        active: list[str] = own.active_adapters
        return [name for name in active if name in self.studio_sparse_values]

    def _support(self, name: str) -> Support:
        return self._place(name)[0]

    def _place(self, name: str) -> tuple[Support, Tensor]:
        """What an adapter trains, and its flat positions."""
        index = self.studio_sparse_index[name]
        key = (id(index), index._version, index.device)
        if name not in self._supports or self._supports[name][0] != key:
            # read from what a file has brought, which is not to be trusted
            support = _KINDS[self.structure[name]].read(index.cpu(), self._weight)
            where = self._change(name, index.cpu(), torch.zeros(0)).positions().to(index.device)
            support.to(index.device)
            self._supports[name] = key, support, where
        return self._supports[name][1:]

    def _change(self, name: str, index: Tensor, values: Tensor) -> Change:
        kind: Any = {"single": "scattered"}.get(self.structure[name], self.structure[name])
        return Change(shape=self._weight.shape, kind=kind, index=index, values=values)

    def _write(self) -> None:
        """Brings the weights up to date, where an optimizer, a file or a scale has changed something."""
        names = self._active()
        values = [self.studio_sparse_values[name] for name in names]
        key = tuple((name, self.scaling[name], id(self.studio_sparse_index[name])) for name in names)
        versions = tuple((id(v), v._version, v.device) for v in values)
        same = (key, versions) == self._key
        if same and torch.is_grad_enabled():
            # some optimizers write past autograd's eyes
            same = all(map(torch.equal, values, self._learned))
        if not same:
            self.restore()
            self._written = [self._put_in(name) for name in names]
            self._key, self._learned = (key, versions), [v.detach().clone() for v in values]

    @torch.no_grad()
    def _put_in(self, name: str) -> "_Touched":
        """Adds an adapter to the weights."""
        where = self._place(name)[1]
        original = self._weight.detach().reshape(-1)[where]
        touched = _Touched(where, original)
        if self.scaling[name] != 0:
            added = original.float() + self.scaling[name] * self.studio_sparse_values[name].detach().float()
            _put(self.base_layer, where, added.to(original.dtype))
        return touched


@dataclass(frozen=True)
class _Touched:
    """Flat positions of a weight, and the numbers that were there."""

    where: Tensor
    original: Tensor

    def undo(self, layer: nn.Module) -> None:
        """Puts the numbers back."""
        _put(layer, self.where, self.original)


@torch.no_grad()
def _put(layer: nn.Module, where: Tensor, values: Tensor) -> None:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    where = where.to(weight.device)  # a model may have moved meanwhile
    whole = weight.detach() if weight.is_contiguous() else weight.detach().contiguous()
    whole.view(-1)[where] = values.to(weight.device, weight.dtype)
    if not weight.is_contiguous():  # channels_last: logical order is not that of the memory
        weight.copy_(whole)


class _SparseLinear(torch.autograd.Function):
    """The plain layer, whose backward pass gives the gradients of the adapters' values alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer,
        supports: list[tuple[Support, float]], *values: Tensor,
    ) -> Tensor:  # fmt: skip
        kind = x.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        ctx.layer, ctx.supports, ctx.shape, ctx.x_dtype = layer, supports, x.shape, x.dtype
        cast = x.to(ctx.dtype)
        ctx.save_for_backward(weight, *(support.keep(layer, cast) for support, _ in supports))
        return layer.forward(cast, weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype))

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        upstream = upstreams[0].to(ctx.dtype)
        needs = ctx.needs_input_grad
        grads: list[Tensor | None] = []
        for number, ((support, scale), part) in enumerate(zip(ctx.supports, kept, strict=True)):
            grads.append(scale * support.grad(ctx.layer, upstream, part) if needs[5 + number] else None)
        x_grad = None
        if needs[0]:
            x_grad = ctx.layer.input_grad(upstream, ctx.shape, weight.to(ctx.dtype)).to(ctx.x_dtype)
        bias_grad = ctx.layer.bias_grad(upstream) if needs[2] else None
        return x_grad, None, bias_grad, None, None, *grads


class SparseModel(BaseTuner):
    """Puts `SparseLayer`s into a model."""

    prefix = f"{NAME}_"
    tuner_layer_cls = SparseLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self, peft_config: SparseConfig, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module,
        current_key: str, **_: Any,
    ) -> None:  # fmt: skip
        support = self._chosen(peft_config, adapter_name).get(current_key)
        if support is None:
            return
        layer = target if isinstance(target, SparseLayer) else SparseLayer(target)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)
        layer.add(adapter_name, support, peft_config.structure)
        if adapter_name not in self.active_adapters:
            layer.activate(self.active_adapters)

    def _chosen(self, config: SparseConfig, adapter_name: str) -> dict[str, Support]:
        """What is trained of every targeted layer, chosen at once when the first is replaced."""
        found: dict[str, dict[str, Support]] = self.__dict__.setdefault("_supports_of", {})
        if adapter_name not in found:
            weights = {}
            for path, module in self.model.named_modules():
                if not self._check_target_module_exists(config, path):
                    continue
                layer = module.get_base_layer() if isinstance(module, SparseLayer) else module
                grouped = config.structure != "single" and getattr(layer, "groups", 1) != 1
                if layer_of(layer) is not None and not grouped:
                    assert isinstance(layer.weight, nn.Parameter)
                    weights[path] = layer.weight
            if not weights:
                raise ValueError("target_modules finds no linear layer or convolution that SparseConfig can train")
            found[adapter_name] = config.choose(weights)
        return found[adapter_name]

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Makes room for what a file brings: other weights of the base would choose other numbers."""
        found: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        for path, layer in model.named_modules():
            if isinstance(layer, SparseLayer) and adapter_name in layer.studio_sparse_values:
                ends = f"{path}.studio_sparse_values.{adapter_name}"
                given = next((v for k, v in found.items() if ends.endswith(k) or k.endswith(ends)), None)
                values = layer.studio_sparse_values[adapter_name]
                if given is not None and given.shape != values.shape:
                    layer.restore()
                    index_ends = f"{path}.studio_sparse_index.{adapter_name}"
                    index = next(v for k, v in found.items() if index_ends.endswith(k) or k.endswith(index_ends))
                    layer.studio_sparse_values[adapter_name] = nn.Parameter(
                        values.new_zeros(given.shape), requires_grad=values.requires_grad
                    )
                    layer.studio_sparse_index[adapter_name] = torch.zeros_like(index, device=values.device)
        return found


if PeftType.__members__.get(NAME.upper()) is STUDIO_SPARSE:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if STUDIO_SPARSE not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=NAME, config_cls=SparseConfig, model_cls=SparseModel)
