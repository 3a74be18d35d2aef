"""The model card of a mini folder: what each part was trained with, on what, for how long, and how good it is.

Each recipe leaves one JSON file in `cards/`; `README.md` is made from all of them, so that it never tells of a part
that is not there.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from training.disk import write_text

_HEAD: Final = """---
license: apache-2.0
library_name: diffusers
tags: [animate-x, animation, pose, mini]
---

# mini: a small Animate-X++ for a laptop

Trained from nothing by animatex-studio on a world that it draws itself: no pictures of anybody were used. 128x128
pixels, 17 frames, 12 frames a second, drawn characters. Real pictures are outside its domain: they keep their colours
and move, and no more is claimed. The weights are the moving averages of the training, in half precision.
"""


def write_card(
    folder: Path, recipe: str, settings: Mapping[str, Any], events: Path, command: str, *, before: Path | None = None
) -> None:
    """Adds one part to the card of a folder, from the events of its run.

    Args:
        settings: what differs from the recipe's defaults.
        before: the mini folder whose weights the run went on from; its runs stand first.
    """
    rows = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines() if line]
    steps = [row for row in rows if row["event"] == "step"]
    evaluated = [row for row in rows if row["event"] == "evaluated"]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    card = {
        "recipe": recipe,
        "command": command,
        "settings": dict(settings),
        "total_steps": steps[-1]["total_steps"] if steps else 0,
        "steps": steps[-1]["step"] if steps else 0,
        "seconds": round(sum(row["seconds"] for row in steps)),
        "peak_memory_bytes": max((row["peak_bytes"] for row in steps), default=0),
        "device": device,
        "torch": torch.__version__.split("+")[0],
        "metrics": evaluated[-1]["metrics"] if evaluated else {},
    }
    (folder / "cards").mkdir(parents=True, exist_ok=True)
    earlier = before / "cards" / f"{recipe}.json" if before is not None else None
    runs = json.loads(earlier.read_text(encoding="utf-8")) if earlier is not None and earlier.exists() else []
    write_text(folder / "cards" / f"{recipe}.json", json.dumps([*runs, card], indent=2) + "\n")
    write_text(folder / "README.md", render_cards(folder))


def render_cards(folder: Path) -> str:
    """Words the card from the parts in `cards/`."""
    parts = [_HEAD]
    for path in sorted((folder / "cards").glob("*.json")):
        runs = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {path.stem}\n\n" + "\nThen, from there:\n\n".join(_worded(run) for run in runs))
    return "\n".join(parts)


def _worded(run: Mapping[str, Any]) -> str:
    stopped = f" (stopped there, of {run['total_steps']:,})" if run["steps"] < run["total_steps"] else ""
    lines = [f"| {name} | {value:.4g} |\n" for name, value in run["metrics"].items()]
    table = "".join(["\n| held-out metric | value |\n|---|---:|\n", *lines]) if lines else ""
    return (
        f"    {run['command']}\n\n"
        f"{run['steps']:,} steps{stopped} in {run['seconds'] / 60:.0f} minutes of training on {run['device']}, "
        f"torch {run['torch']}, peak memory {run['peak_memory_bytes'] / 2**30:.1f} GiB.\n{table}"
    )
