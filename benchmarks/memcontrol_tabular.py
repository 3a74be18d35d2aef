"""How fast strategies find the front of a search whose every result is known, and whether the loop around them holds.

    .venv/bin/python benchmarks/memcontrol_tabular.py [--seeds 20] [--output out/memcontrol] [--study FOLDER]

The tables (`benchmarks/data`, made by `memcontrol_table.py`) hold a small diffusion model adapted with each of 2^8
masks and two learning rates, measured at five checkpoints: Frechet distance and copy rate. A budget is a number of
runs to the end. Every strategy is also measured with its last checkpoints alone, as the paper does it. Tests are
Wilcoxon's, paired by seed and table.

Hypervolumes are divided by that of all results. Their reference point is the 95 % quantile of the table in each
objective; it was set from the tables alone. `--reference 60 0.45` takes one for all, the pilot's.

A5 to A7 are of `training.search.bilevel` in processes of its own: killed, in pairs, and with its anchors on record.
"""

import argparse
import csv
import itertools
import math
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from training.search.bilevel import DEATHS, bilevel
from training.search.entries import Budget, Entry, Finished, Header, Measured, Taken, to_json
from training.search.ledger import open_ledger
from training.search.pareto import Objectives, hypervolume
from training.search.space import Candidate, Choice, Space
from training.search.strategies import STRATEGIES
from training.search.study import open_study
from training.search.trial import Inner, Point

PLACE = Path(__file__).parent / "data"
BUDGETS = (5, 10, 20, 40, 80)
RATES = (1e-3, 4e-3)
CHECKPOINTS = (40, 75, 150, 300, 600)
SPACE = Space(
    sites=tuple(f"block{k // 2}.{'inner' if k % 2 == 0 else 'outer'}" for k in range(8)),
    numbers={"learning_rate": Choice(options=RATES)},
)
OURS, LAST = "memcontrol-2", " (last checkpoint)"
KILLS, PAIRED_BUDGET, PAUSE_S = 24, 20, 0.004

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


def every_point(table: Table) -> list[Objectives]:
    return list(itertools.chain.from_iterable(table.values()))


def reference_of(table: Table) -> Objectives:
    """What all but the worst twentieth of a table's results are better than, in each objective."""
    quality, copying = np.quantile(every_point(table), 0.95, axis=0)
    return (float(quality), float(copying))


def run(table: Table, strategy: str, seed: int, reference: Objectives) -> tuple[list[float], list[float]]:
    """The hypervolume after each budget, as a share of what there is: of all checkpoints, and of the last ones."""
    searcher = STRATEGIES[strategy](SPACE, seed=seed)
    whole = hypervolume(every_point(table), reference)
    every: list[Objectives] = []
    last: list[Objectives] = []
    found: tuple[list[float], list[float]] = ([], [])
    for made in range(1, max(BUDGETS) + 1):
        candidate = searcher.ask()
        result = table[candidate.key]
        searcher.tell(candidate, result)
        every += result
        last.append(result[-1])
        if made in BUDGETS:
            for shares, points in zip(found, (every, last), strict=True):
                shares.append(hypervolume(points, reference) / whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=["a", "b", "c"])
    parser.add_argument("--strategies", nargs="+", default=[s for s in STRATEGIES if s != "gp"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--reference", nargs=2, type=float, help="of both tables; by default each has its own")
    parser.add_argument("--study", type=Path, help="the study of a real model, for A4")
    parser.add_argument("--output", type=Path, default=Path("out/memcontrol"))
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    tables = {name: read(name) for name in flags.tables}
    places = {name: tuple(flags.reference or reference_of(table)) for name, table in tables.items()}
    # first, for a process that has computed must not be forked
    of_the_loop = [*judging(flags.study), *processes(tables, places, flags.seeds, flags.output / "studies")]
    scores: dict[tuple[str, str], np.ndarray] = {}
    for name, table in tables.items():
        for strategy in flags.strategies:
            rows = [run(table, strategy, seed, places[name]) for seed in range(flags.seeds)]
            for kind, part in ((LAST, 1), ("", 0)):
                scores[name, strategy + kind] = np.array([row[part] for row in rows])
            print(f"table {name}: {strategy}", flush=True)
    told = ", ".join(f"{name} ({x:.1f}, {y:.3f})" for name, (x, y) in places.items())
    text = "\n".join(
        [
            *lines(scores, flags.tables), "", f"Reference points: {told}; {flags.seeds} seeds.", "",
            *criteria(scores, flags.tables), *of_the_loop,
        ]
    )  # fmt: skip
    print(text)
    (flags.output / "table.md").write_text(text + "\n", encoding="utf-8")
    plot(scores, flags.tables, flags.output / "plot.png")


def verdict(holds: bool) -> str:
    return "holds" if holds else "FAILS"


def judging(folder: Path | None) -> list[str]:
    """A4: what measuring costs beside training."""
    if folder is None:
        return ["A4: needs the study of a real model (--study FOLDER)"]
    spent = open_study(folder).spent()
    share = spent.judge_seconds / spent.train_seconds
    return [
        f"A4: {spent.judge_seconds:.0f} s of measuring for {spent.train_seconds:.0f} s of training in "
        f"{spent.trials} trials, {share:.0%}: {verdict(share <= 0.35)}"
    ]


def tabular(table: Table) -> Inner:
    """A training whose results are those of the table; it goes on where it was."""

    def inner(candidate: Candidate, folder: Path) -> Iterator[Point]:
        made = folder / "made"
        for number, (step, (quality, copying)) in enumerate(zip(CHECKPOINTS, table[candidate.key], strict=True)):
            if not made.is_file() or made.stat().st_size <= number:
                time.sleep(PAUSE_S)
                with made.open("a") as file:
                    file.write(".")
            yield Point(step=step, quality=quality, copying=copying)

    return inner


def begin(folder: Path, header: Header, inner: Inner) -> int:
    """A worker in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            for _ in bilevel(folder, header, inner):
                pass
        finally:
            os._exit(0)
    return child


def work(folder: Path, header: Header, inner: Inner, workers: int) -> None:
    for child in [begin(folder, header, inner) for _ in range(workers)]:
        os.waitpid(child, 0)


def entries(folder: Path) -> list[Entry]:
    with closing(open_ledger(folder)) as ledger:
        return ledger.read()[0]


def kill_often(folder: Path, header: Header, inner: Inner) -> int:
    """Kills workers at random moments, then lets one end the search; how many were amid their work."""
    draw, amid, in_vain = random.Random(0), 0, 0
    for _ in range(KILLS):
        before = progress(folder)
        child = begin(folder, header, inner)
        time.sleep(draw.uniform(0.01, 0.2))
        # a trial whose workers die again and again is given up, and on a busy machine none would get anywhere
        patience = time.monotonic() + 60
        while in_vain == DEATHS - 1 and progress(folder) == before and time.monotonic() < patience:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        amid += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        in_vain = in_vain + 1 if progress(folder) == before else 0
    work(folder, header, inner, 1)
    return amid


def progress(folder: Path) -> int:
    """How much was measured so far."""
    return sum(isinstance(entry, Measured) for entry in entries(folder)) if folder.exists() else 0


def processes(tables: dict[str, Table], places: dict[str, Objectives], seeds: int, output: Path) -> list[str]:
    """A5 to A7: the loop in processes that are killed, and in pairs."""
    shutil.rmtree(output, ignore_errors=True)
    amid, same, lost = 0, True, 0
    gaps, means, anchored = [], [], True
    for name, table in tables.items():
        inner, whole = tabular(table), hypervolume(every_point(table), places[name])
        header = Header(name=name, space=SPACE, budget=Budget(trials=40), reference=places[name])
        amid += kill_often(output / f"killed-{name}", header, inner)
        work(output / f"straight-{name}", header, inner, 1)
        killed, straight = (entries(output / f"{kind}-{name}") for kind in ("killed", "straight"))
        same &= lasting(killed) == lasting(straight)
        finished = Counter(entry.trial for entry in killed if isinstance(entry, Finished))
        lost += sum(abs(finished[number] - 1) for number in range(40))
        for seed in range(seeds):
            shares = []
            header = Header(
                name=name, space=SPACE, budget=Budget(trials=PAIRED_BUDGET), reference=places[name], seed=seed
            )
            for workers in (1, 2):
                folder = output / f"{workers}-{name}-{seed}"
                work(folder, header, inner, workers)
                study = open_study(folder)
                shares.append((study.hypervolume() or 0) / whole)
                there = {trial.candidate.key for trial in study.trials()}
                anchored &= len(study.trials()) == PAIRED_BUDGET and {c.key for c in SPACE.anchors()} <= there
            means.append(shares)
            gaps.append(shares[1] - shares[0])
        print(f"table {name}: workers", flush=True)
    one, two = np.mean(means, axis=0)
    gap, error = float(np.mean(gaps)), float(np.std(gaps, ddof=1) / math.sqrt(len(gaps)))
    return [
        f"A5: {amid} workers killed amid their work, then the same entries as without: {verdict(same)}; "
        f"{lost} finished trials lost or repeated: {verdict(lost == 0)}",
        f"A6: at {PAIRED_BUDGET} runs one worker {one:.3f}, two {two:.3f}, difference {gap:+.3f} ± {error:.3f} over "
        f"{len(gaps)} pairs: {verdict(gap >= -0.02)}",
        f"A7: both anchors in all {2 * len(gaps)} ledgers: {verdict(anchored)}",
    ]


def lasting(found: list[Entry]) -> list[dict[str, object]]:
    """What does not depend on who worked when."""
    rows = [to_json(entry) for entry in found if not isinstance(entry, Taken)]
    return [{k: v for k, v in row.items() if k not in ("worker", "at")} for row in rows]


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

    def of(strategy: str, budget: int) -> np.ndarray:
        return np.concatenate([scores[table, strategy][:, at[budget]] for table in tables])

    difference = of(OURS, 10) - of("nsga2" + LAST, 80)
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    found = [
        f"A1: {OURS} at 10 runs {of(OURS, 10).mean():.3f}, NSGA-II(50) at 80 runs {of('nsga2' + LAST, 80).mean():.3f}, "
        f"standard error of the difference {error:.3f}: {'holds' if difference.mean() >= -error else 'FAILS'}"
    ]
    # as it is usually done, and with the advantage of every checkpoint given to all
    for other in (f"{name}{how}" for how in (LAST, "") for name in ("random", "tpe", "tpe-multivariate", "nsga2-10")):
        a, b = of(OURS, 20), of(other, 20)
        p = float(wilcoxon(a, b, alternative="greater").pvalue)
        found.append(
            f"A2: at 20 runs {a.mean():.3f} against {other} {b.mean():.3f}, p = {p:.1e}: "
            f"{'holds' if p < 0.01 else 'FAILS'}"
        )
    found.append(f"A3: at 40 runs {of(OURS, 40).mean():.3f}: {'holds' if of(OURS, 40).mean() >= 0.95 else 'FAILS'}")
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
