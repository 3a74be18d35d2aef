"""How fast strategies find the front of a search whose every result is known.

    .venv/bin/python benchmarks/memcontrol_tabular.py [--seeds 20] [--output out/memcontrol]

The tables (`benchmarks/data`, made by `memcontrol_table.py`) hold a small diffusion model adapted with each of 2^8
masks and two learning rates, measured at five checkpoints: Frechet distance and copy rate. A budget is a number of
runs to the end. Hypervolumes are measured from a fixed reference point and divided by that of all results. Every
strategy is also measured with its last checkpoints alone, as the paper does it. Tests are Wilcoxon's, paired by seed
and table.
"""

import argparse
import csv
import itertools
import math
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from training.search.pareto import Objectives, hypervolume
from training.search.space import Candidate, Choice, Space
from training.search.strategies import STRATEGIES

PLACE = Path(__file__).parent / "data"
BUDGETS = (5, 10, 20, 40, 80)
REFERENCE: Objectives = (60.0, 0.45)
RATES = (1e-3, 4e-3)
SPACE = Space(
    sites=tuple(f"block{k // 2}.{'inner' if k % 2 == 0 else 'outer'}" for k in range(8)),
    numbers={"learning_rate": Choice(options=RATES)},
)
LAST = " (last checkpoint)"

Table = dict[str, list[Objectives]]
"""The points of every candidate, by its key, in the order of the checkpoints."""


def read(name: str) -> Table:
    found: Table = {}
    with (PLACE / f"memcontrol_{name}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            mask = tuple(bit == "1" for bit in row["mask"])
            key = Candidate(mask=mask, values={"learning_rate": float(row["learning_rate"])}).key
            found.setdefault(key, []).append((float(row["frechet_distance"]), float(row["copy_rate"])))
    return found


def run(table: Table, strategy: str, seed: int, *, all_checkpoints: bool) -> list[float]:
    """The hypervolume after each budget, as a share of what there is."""
    searcher = STRATEGIES[strategy](SPACE, seed=seed)
    whole = hypervolume(list(itertools.chain.from_iterable(table.values())), REFERENCE)
    points: list[Objectives] = []
    found = []
    for made in range(1, max(BUDGETS) + 1):
        candidate = searcher.ask()
        result = table[candidate.key]
        searcher.tell(candidate, result)
        points += result if all_checkpoints else result[-1:]
        if made in BUDGETS:
            found.append(hypervolume(points, REFERENCE) / whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=["a", "b"])
    parser.add_argument("--strategies", nargs="+", default=[s for s in STRATEGIES if s != "gp"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("out/memcontrol"))
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    scores: dict[tuple[str, str], np.ndarray] = {}
    for name in flags.tables:
        table = read(name)
        for strategy in flags.strategies:
            for every in (False, True):
                rows = [run(table, strategy, seed, all_checkpoints=every) for seed in range(flags.seeds)]
                scores[name, strategy + ("" if every else LAST)] = np.array(rows)
            print(f"table {name}: {strategy}", flush=True)
    text = "\n".join([*lines(scores, flags.tables), "", *criteria(scores, flags.tables)])
    print(text)
    (flags.output / "table.md").write_text(text + "\n", encoding="utf-8")
    plot(scores, flags.tables, flags.output / "plot.png")


def lines(scores: dict[tuple[str, str], np.ndarray], tables: list[str]) -> list[str]:
    found = [
        f"| strategy ({', '.join(tables)}) | " + " | ".join(f"{b} runs" for b in BUDGETS) + " |",
        "|---|" + "---:|" * len(BUDGETS),
    ]
    for name in dict.fromkeys(strategy for _, strategy in scores):
        cells = []
        for k in range(len(BUDGETS)):
            parts = [scores[table, name][:, k] for table in tables]
            cells.append(" / ".join(f"{p.mean():.3f} ± {p.std(ddof=1) / math.sqrt(len(p)):.3f}" for p in parts))
        found.append(f"| {name} | " + " | ".join(cells) + " |")
    return found


def criteria(scores: dict[tuple[str, str], np.ndarray], tables: list[str]) -> list[str]:
    """Whether the default does what it is the default for."""
    at = {budget: k for k, budget in enumerate(BUDGETS)}
    ours = "memcontrol-2"

    def of(strategy: str, budget: int) -> np.ndarray:
        return np.concatenate([scores[table, strategy][:, at[budget]] for table in tables])

    difference = of(ours, 10) - of("nsga2" + LAST, 80)
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    found = [
        f"A1: {ours} at 10 runs {of(ours, 10).mean():.3f}, NSGA-II(50) at 80 runs {of('nsga2' + LAST, 80).mean():.3f}, "
        f"standard error of the difference {error:.3f}: {'holds' if difference.mean() >= -error else 'FAILS'}"
    ]
    for other in ("random", "tpe", "tpe-multivariate", "nsga2-10"):
        a, b = of(ours, 20), of(other + LAST, 20)
        p = float(wilcoxon(a, b, alternative="greater").pvalue)
        found.append(
            f"A2: at 20 runs {a.mean():.3f} against {other} {b.mean():.3f}, p = {p:.1e}: "
            f"{'holds' if p < 0.01 else 'FAILS'}"
        )
    found.append(f"A3: at 40 runs {of(ours, 40).mean():.3f}: {'holds' if of(ours, 40).mean() >= 0.95 else 'FAILS'}")
    return found


def plot(scores: dict[tuple[str, str], np.ndarray], tables: list[str], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(tables), 4.5), layout="constrained")
    for axes, table in zip(np.atleast_1d(figure.subplots(1, len(tables), sharey=True)), tables, strict=True):
        for number, name in enumerate(dict.fromkeys(strategy for _, strategy in scores)):
            found = scores[table, name]
            middle, error = found.mean(0), found.std(0, ddof=1) / math.sqrt(len(found))
            style = "--" if name.endswith(LAST) else "-"
            axes.errorbar(
                BUDGETS, middle, error, fmt=style, color=f"C{number // 2}", label=name, linewidth=1, capsize=2
            )
        axes.set(xscale="log", xlabel="runs", title=f"table {table}")
        axes.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
        axes.grid(alpha=0.3)
    np.atleast_1d(figure.axes)[0].set_ylabel("hypervolume, share of the whole")
    figure.axes[-1].legend(fontsize=6)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
