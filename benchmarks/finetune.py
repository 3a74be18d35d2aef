"""Peak memory and time of a training step, by method, at about equal trained numbers.

    .venv/bin/python benchmarks/finetune.py [--network transformer unet] [--share 0.01] [--output out/finetune.md]

`--network sd15 transformer-4b` are for a GPU: SD 1.5's U-Net (860 M) and a transformer of 4 B, random weights.

One table a network: without and with gradient checkpointing, as ratios to the frozen floor (norm tuning, which does the
whole backward pass and trains next to nothing) within the same run. Memory is that of all tensor storages, optimizer
state included; a step is forward, backward and AdamW, of SaRA the mean over those from one low-rank term to the next.
Times are medians over rounds in which every method has its turn; with one thread on a CPU they are the processor's
time, which other work on the machine disturbs least.

PEFT's SHiRA and Super-Tuning know linear layers only, and its LoRA no norms; the rows "linear layers" have the scope
of the former, in which nothing before the first layer needs a gradient.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from peft import PeftConfig, ShiraConfig, SupertuningConfig
from storage_peak import StoragePeak
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from training.methods import METHODS, Scope, Tuner
from training.methods.inplace import InPlaceTuner
from training.methods.peft_methods import PeftTuner


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 64)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v))
        return self.to_out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ff(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        return x

    def enable_gradient_checkpointing(self) -> None:
        self.checkpointing = True


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = UNet2DModel(
            sample_size=32, block_out_channels=(128, 256, 256), layers_per_block=2, norm_num_groups=32,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x, 500).sample
        return found

    def enable_gradient_checkpointing(self) -> None:
        self.net.enable_gradient_checkpointing()


class StableDiffusionUNet(UNet):
    """Of SD 1.5's size (860 M), random weights: for a GPU."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.net = UNet2DConditionModel(cross_attention_dim=768)
        generator = torch.Generator("cpu").manual_seed(1)
        self.register_buffer("text", torch.randn(1, 77, 768, generator=generator, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x, 500, self.text.expand(len(x), -1, -1)).sample
        return found


class MaskedTuner(Tuner):
    """What LT-SFT, PaFi and FISH do: gradients of all weights, masked, and an optimizer over all."""

    def __init__(self, model: nn.Module, share: float) -> None:
        super().__init__(model)
        self.masks = {p: torch.rand(p.shape, device=p.device) < share for p in model.parameters()}
        for parameter, mask in self.masks.items():
            parameter.register_hook(lambda grad, mask=mask: grad * mask)

    def parameters(self) -> Any:
        from training.methods.base import ParamGroup

        return (ParamGroup(parameters=tuple(self.masks)),)

    @property
    def count(self) -> int:
        return sum(int(mask.sum()) for mask in self.masks.values())

    def _none(self, *args: Any) -> Any:
        raise NotImplementedError

    delta = load = set_scale = merge = unload = _none


def ours(name: str, scope: Scope = Scope(), **options: Any) -> Callable[[nn.Module], Tuner]:  # noqa: B008
    return lambda model: METHODS[name](**options).attach(model, scope, torch.Generator().manual_seed(0))


def theirs(config: Callable[[str], PeftConfig]) -> Callable[[nn.Module], Tuner]:
    def attach(model: nn.Module) -> Tuner:
        names = "|".join(n for n, m in model.named_modules() if isinstance(m, nn.Linear))
        return PeftTuner(model, config(f"({names})".replace(".", r"\.")), 0)

    return attach


def in_type(attach: Callable[[nn.Module], Tuner], dtype: torch.dtype) -> Callable[[nn.Module], Tuner]:
    def typed(model: nn.Module) -> Tuner:
        tuner = attach(model)
        for group in tuner.parameters():
            for parameter in group.parameters:
                parameter.data = parameter.data.to(dtype)
        return tuner

    return typed


def methods(model: nn.Module, share: float) -> dict[str, Callable[[nn.Module], Tuner]]:
    """Every method with the option that trains nearest to `share` of the numbers."""
    total = sum(p.numel() for p in model.parameters())
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    rows_and_columns = sum(m.weight.shape[0] + m.weight.shape[1:].numel() for m in layers)
    per_column = sum(m.weight.shape[0] * m.weight.shape[2:].numel() for m in layers)
    linear = [m for m in layers if isinstance(m, nn.Linear)]
    in_linear = sum(m.weight.numel() for m in linear)
    sides = sum(sum(m.weight.shape) for m in linear)
    only_linear = Scope(tuple(n for n, m in model.named_modules() if isinstance(m, nn.Linear)))
    outputs = sum(m.out_features for m in linear)
    in_scope = {
        "SaRA, linear layers": ours("sara", only_linear, budget=round(share * total)),
        "PaCA, linear layers": ours("paca", only_linear, rank=max(1, round(share * total / outputs))),
    }
    rank = max(1, round(share * total / rows_and_columns))
    shira = max(1, round(share * total / sides))
    return {
        "norms (floor)": ours("norms"),
        "SaRA": ours("sara", fraction=share),
        "PaCA": ours("paca", rank=max(1, round(share * total / per_column))),
        # the trainer keeps adapters in float32; in bf16 they are the lightest that PEFT has
        "LoRA bf16": in_type(ours("lora", rank=rank), torch.bfloat16),
        "LoRA fp32": in_type(ours("lora", rank=rank), torch.float32),
        "DoRA bf16": in_type(ours("dora", rank=rank), torch.bfloat16),
        "SHiRA (PEFT)": theirs(lambda names: ShiraConfig(r=shira, target_modules=names)),
        "Super-Tuning (PEFT)": theirs(
            lambda names: SupertuningConfig(sparsity=1 - share * total / in_linear, target_modules=names)
        ),
        **in_scope,
        "masked gradients": lambda model: MaskedTuner(model, share),
        "full": ours("full"),
    }


def seconds_now(device: str) -> float:
    """A clock: the processor's own where one thread does everything."""
    if torch.device(device).type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def build(network: str, flags: argparse.Namespace, checkpointing: bool) -> nn.Module:
    torch.manual_seed(0)
    make: dict[str, Callable[[], Any]] = {
        "transformer": lambda: Transformer(flags.width, flags.blocks), "unet": UNet,
        "sd15": StableDiffusionUNet, "transformer-4b": lambda: Transformer(3072, 36),
    }  # fmt: skip
    with torch.device(flags.device):  # billions of random numbers are a GPU's work
        model = make[network]()
    if checkpointing:
        model.enable_gradient_checkpointing()
    return model.to(flags.device, getattr(torch, flags.dtype)).train()


def inputs(network: str, flags: argparse.Namespace) -> Tensor:
    shapes = {
        "transformer": (2, flags.tokens, flags.width), "unet": (4, 3, 64, 64),
        "sd15": (4, 4, 64, 64), "transformer-4b": (2, flags.tokens, 3072),
    }  # fmt: skip
    made = torch.randn(shapes[network], generator=torch.Generator().manual_seed(0))
    return made.to(flags.device, getattr(torch, flags.dtype))


class Trial:
    """One method on one network, ready to step."""

    def __init__(
        self, network: str, attach: Callable[[nn.Module], Tuner], flags: argparse.Namespace, ckpt: bool
    ) -> None:
        self.model = build(network, flags, ckpt)
        self.x = inputs(network, flags)
        self.tuner = attach(self.model)
        parameters = [p for group in self.tuner.parameters() for p in group.parameters]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5, foreach=False)
        self.made = 0
        # some steps of a method may cost more than others: so many make a round
        self.cycle = int(getattr(getattr(self.tuner, "config", None), "nuclear_every", 1))

    def step(self) -> None:
        extra = self.tuner.penalty()
        loss = self.model(self.x).float().square().mean()
        (loss if extra is None else loss + extra).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.made += 1
        self.tuner.after_step(self.made)

    def steps(self) -> None:
        for _ in range(self.cycle):
            self.step()

    def tensors(self) -> list[Tensor]:
        known = [*self.model.parameters(), *self.model.buffers(), self.x]
        if isinstance(self.tuner, InPlaceTuner):
            known += [self.tuner.values]
            known += [t for p in self.tuner.pieces for t in (p.part, p.support.index())]
        if isinstance(self.tuner, MaskedTuner):
            known += list(self.tuner.masks.values())
        return [t for t in known if t.device.type == self.x.device.type]

    def peak(self) -> int:
        if self.x.is_cuda:
            self.step()
            torch.cuda.reset_peak_memory_stats(self.x.device)
            self.steps()
            return torch.cuda.max_memory_allocated(self.x.device)
        with StoragePeak(*self.tensors()) as counted:
            self.step()  # the optimizer's state is made here
            counted.peak = counted.now
            self.steps()
        return counted.peak


def table(network: str, flags: argparse.Namespace) -> list[str]:
    chosen = methods(build(network, flags, False), flags.share)
    chosen = {
        n: m for n, m in chosen.items() if not flags.methods or any(w.lower() in n.lower() for w in flags.methods)
    }
    found: dict[tuple[str, bool], tuple[int, int, float]] = {}
    bar = tqdm(total=2 * len(chosen) * (1 + flags.rounds), desc=network, unit="look", mininterval=10)
    for ckpt in (False, True):
        peaks, counts, mark = {}, {}, ", checkpointed" if ckpt else ""
        for name, attach in chosen.items():
            trial = Trial(network, attach, flags, ckpt)
            peaks[name], counts[name] = trial.peak(), trial.tuner.count
            del trial
            gc.collect()
            bar.write(f"{name}{mark}: {peaks[name] / 2**20:.0f} MiB", sys.stderr)
            bar.update()
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(flags.rounds):
            for name, attach in chosen.items():
                trial = Trial(network, attach, flags, ckpt)
                trial.step()
                for _ in range(2):
                    if trial.x.is_cuda:
                        torch.cuda.synchronize()
                    began = seconds_now(flags.device)
                    trial.steps()
                    if trial.x.is_cuda:
                        torch.cuda.synchronize()
                    seconds[name].append((seconds_now(flags.device) - began) / trial.cycle)
                del trial
                gc.collect()
                bar.write(f"{name}{mark}: {seconds[name][-1]:.3f} s a step", sys.stderr)
                bar.update()
        for name in chosen:
            middle = statistics.median(seconds[name]) if seconds[name] else float("nan")
            found[name, ckpt] = (counts[name], peaks[name], middle)
    bar.close()
    size = sum(p.numel() for p in build(network, flags, False).parameters())
    lines = [
        f"{network}, {size / 1e6:.1f} M numbers, {flags.dtype}, {flags.device}",
        "",
        "| method | trained | peak MiB | x floor | time x floor | checkpointed: peak MiB | x floor | time x floor |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    floor = {ckpt: found[next(iter(chosen)), ckpt] for ckpt in (False, True)}
    for name in chosen:
        cells = [name, f"{found[name, False][0]:,}"]
        for ckpt in (False, True):
            _, peak, middle = found[name, ckpt]
            cells += [f"{peak / 2**20:.0f}", f"{peak / floor[ckpt][1]:.2f}", f"{middle / floor[ckpt][2]:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--network",
        nargs="+",
        choices=("transformer", "unet", "sd15", "transformer-4b"),
        default=["transformer", "unet"],
    )
    parser.add_argument("--share", type=float, default=0.01, help="share of the numbers that is trained")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the weights")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; 0 measures memory alone")
    parser.add_argument("--methods", nargs="+", default=[], help="parts of names; the first row is the floor")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path)
    flags = parser.parse_args()
    lines: list[str] = []
    for network in flags.network:
        lines += [*table(network, flags), ""]
        print("\n".join(lines[-len(lines) :]), flush=True)
    if flags.output:
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        flags.output.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
