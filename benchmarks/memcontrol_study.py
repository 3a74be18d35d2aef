"""The study of MemControl on a real model: hypervolumes and fronts of what `scripts/study_search.sh` leaves.

    .venv/bin/python benchmarks/memcontrol_study.py OUT

Every checkpoint of a study counts, but for "last", where only those at the end of runs do, as in the paper. The
hypervolume is from the studies' own reference point and divided by its area. `final` is of the front's points as they
were measured again, on held-out pictures and seeds that the search had not seen.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from studio.search_report import name_of, read_finals
from training.search.pareto import Objectives, front, hypervolume
from training.search.study import Study, open_study

NAMES = {
    "memcontrol-2": "the default, all checkpoints", "nsga2": "NSGA-II(50) = random masks, all checkpoints",
    "nsga2 last": "the paper's: NSGA-II(50), last checkpoints", "full": "full fine-tuning", "lora": "LoRA",
    "difffit": "DiffFit", "svdiff": "SV-DIFF",
}  # fmt: skip


def volume(points: list[Objectives], reference: Objectives) -> float:
    return hypervolume(points, reference) / (reference[0] * reference[1])


def last_points(study: Study) -> list[Objectives]:
    return [trial.points[-1].objectives for trial in study.trials() if trial.points]


def measured(study: Study) -> dict[str, float]:
    reference = study.reference()
    assert reference is not None
    finals = read_finals(study.folder)
    again = [(f["quality"], f["copying"]) for r in study.front() if (f := finals.get(name_of(r))) is not None]
    spent = study.spent()
    return {
        "every": volume([r.objectives for r in study.points()], reference),
        "last": volume(last_points(study), reference), "final": volume(again, reference), "runs": float(spent.finished),
        "judge share": spent.judge_seconds / max(1e-9, spent.train_seconds),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    studies = {tuple(path.name.split("-", 3)[1:]): open_study(path) for path in sorted(folder.glob("study-*"))}
    sizes = sorted({int(size) for size, _, _ in studies})
    rows: dict[str, dict[int, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for (size, _, name), study in studies.items():
        rows[name][int(size)].append(measured(study))
    text = [
        "| way of choosing | " + " | ".join(f"{n} pictures, search | final | judge/train" for n in sizes) + " |",
        "|---|" + "---:|---:|---:|" * len(sizes),
    ]
    for name, worded in NAMES.items():
        kind, which = (name.split()[0], "last") if name.endswith(" last") else (name, "every")
        if kind in rows:
            cells = []
            for n in sizes:
                found = rows[kind][n]
                cells.append(spread([f[which] for f in found]))
                cells.append("" if which == "last" else spread([f["final"] for f in found]))
                cells.append(f"{statistics.mean(f['judge share'] for f in found):.2f}" if found else "")
            text.append(f"| {worded} | " + " | ".join(cells) + " |")
    print("\n".join(text))
    (folder / "table.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    plot(studies, sizes, folder / "fronts.png")


def spread(values: list[float]) -> str:
    """The mean and the range over the data seeds."""
    if not values:
        return ""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def plot(studies: dict[tuple[str, ...], Study], sizes: list[int], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(sizes), 5), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        for (n, seed, name), study in studies.items():
            if int(n) == size:
                points = front([r.objectives for r in study.points()], lambda p: p)
                colour = f"C{[*NAMES].index(name)}"
                label = NAMES[name].split(",")[0] if seed == "0" else None
                style, fill = ("-", colour) if seed == "0" else ("--", "white")
                axes.step(
                    *zip(*points, strict=True), style, where="post", color=colour, marker="o", markerfacecolor=fill,
                    label=label,
                )  # fmt: skip
        axes.axhline(0.05, color="0.5", linestyle=":", linewidth=1)
        axes.set(xlim=(0, 1.0), ylim=(-0.005, 0.2), title=f"{size} X-rays (second data seed dashed, hollow)")
        axes.set(xlabel="kernel distance to held-out pictures, latents", ylabel="copy rate (dotted: without copying)")
        axes.grid(alpha=0.3)
    figure.axes[-1].legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
