"""A process that trains with too little memory: `memory_worker.py FOLDER`. The allocations that fail are real."""

import importlib.util
import json
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor

from training.loop import train

spec = importlib.util.spec_from_file_location("training_toys", Path(__file__).with_name("toys.py"))
assert spec is not None and spec.loader is not None
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
MIB = 2**20


class Wide(toys.Toy):  # type: ignore[misc,name-defined]
    """A toy that holds 16 MiB a sample for its backward pass, twice."""

    def forward(self, batch: dict[str, Tensor], task: object, generator: torch.Generator) -> dict[str, Tensor]:
        losses = super().forward(batch, task, generator)
        wide = self.head.weight.mean() * batch["x"][:, :1].expand(-1, 4 * MIB)
        return {"loss": losses["loss"] + (wide.square() * wide).mean()}


def held() -> int:
    """Address space of this process. [bytes]"""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def tell(name: str, room: int, **options: object) -> None:
    """Trains with so many MiB beyond what is held now, and prints the events."""
    resource.setrlimit(resource.RLIMIT_AS, (held() + room * MIB, resource.RLIM_INFINITY))
    events = []
    try:
        for event in train(Wide(noise=0.0), toys.config(steps=3, batch_size=8), folder / name, device="cpu", **options):
            events.append(event.as_dict())
    except RuntimeError as error:
        events.append({"event": type(error).__name__, "error": str(error)})
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(json.dumps(events))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    list(train(Wide(noise=0.0), toys.config(steps=1, batch_size=1), folder / "warm", device="cpu"))
    answers = iter([None, "enough"])
    tell("tight", 200, should_stop=lambda: next(answers))
    tell("tight", 200, resume=True)
    tell("hopeless", 12)
    parts = json.loads((folder / "tight" / "checkpoint-3" / "state.json").read_text())["memory"]["parts"]
    config = toys.config(steps=3, batch_size=8, gradient_accumulation_steps=parts)
    list(train(Wide(noise=0.0), config, folder / "parts", device="cpu"))
