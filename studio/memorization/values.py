"""What an audit found as plain values, and its pairs as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from studio.files import moved_in
from studio.sheet import contact_sheet, write_png

if TYPE_CHECKING:
    from training.finetune.audit import Audit, Figure


def figure_values(figure: "Figure") -> dict[str, Any]:
    """One figure."""
    return {
        "name": figure.title, "figure": figure.name, "features": figure.space, "n": figure.count,
        "value": figure.value, "low": figure.low, "high": figure.high, "background": figure.background,
        "background_low": figure.background_low, "background_high": figure.background_high,
        "verdict": figure.verdict, "meaning": figure.meaning, "why": figure.why,
    }  # fmt: skip


def report_values(audit: "Audit") -> dict[str, Any]:
    """All of it, but the pixels."""
    twins = audit.twins
    return {
        "run": audit.run, "copies": audit.copies, "verdict": audit.words,
        "settings": {
            "samples": audit.samples, "num_inference_steps": audit.steps, "seed": audit.seed, "features": audit.space,
            "trained": audit.trained, "held_out": audit.held_out,
        },
        "metrics": [figure_values(figure) for figure in audit.figures],
        "risks": [vars(risk) for risk in audit.risks],
        "canaries": [
            {"file": str(c.sample.path), "caption": c.sample.caption, "repeats": c.repeats, "scores": c.scores}
            for c in audit.canaries
        ],
        "duplicates": {
            "identical": [{"file": file, "count": count} for file, count in twins.identical],
            "near": [[str(one.path), str(other.path)] for one, other in twins.trained],
        },
        "leakage": [{"trained": str(one.path), "held_out": str(other.path)} for one, other in twins.leaked],
        "pairs": [
            {"caption": p.caption, "seed": p.seed, "file": p.file, "features": p.space, "distance": p.distance}
            for p in audit.pairs
        ],
        "distances": {name: list(values) for name, values in audit.distances.items()},
    }  # fmt: skip


def write_pairs(path: Path, audit: "Audit") -> None:
    """Samples above the trained pictures that they are nearest to, nearest first."""
    rows = [
        ("made", torch.stack([pair.made for pair in audit.pairs])),
        ("nearest trained", torch.stack([pair.trained for pair in audit.pairs])),
    ]
    with moved_in(path) as staged:
        write_png(staged, contact_sheet(rows, columns=len(audit.pairs)))
