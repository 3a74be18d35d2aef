"""What each of two processes does in `test_split.py`: trains with split weights, and tells how many it holds."""

import json
import sys
from pathlib import Path

from torch.distributed.tensor import DTensor

from training.finetune import frugal
from training.finetune.config import FinetuneConfig
from training.finetune.run import finetune
from training.methods import quantized, split
from training.run_folder import is_main


def main(folder: Path) -> None:
    """Runs every config of the folder, the first half of it and then the rest."""
    quantized.SMALLEST = 64  # type: ignore[misc]  # the tests' model is tiny
    real = split.split

    def told(tuner, device, **how):
        tuner = real(tuner, device, **how)
        parameters = list(tuner.model.parameters())
        held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters)
        print(f"holds {held} of {sum(p.numel() for p in parameters)}", flush=True)
        return tuner

    frugal.split = told
    for path in sorted(folder.glob("*.json")):
        values = json.loads(path.read_text())
        for steps, resume in ((values["max_train_steps"] // 2, False), (values["max_train_steps"], True)):
            config = FinetuneConfig.model_validate({**values, "max_train_steps": steps})
            for event in finetune(config, folder / path.stem, resume=resume, device="cpu"):
                if is_main():
                    print(f"{path.stem} {event.kind}", flush=True)


main(Path(sys.argv[1]))
