"""What the Compare page decides of methods: the command, the comparisons there are, tables to paste."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from studio.cli.flags import parse_flags
from studio.cli.verbs.compare import CompareRequest
from studio.cli.words import words_for
from studio.errors import RequestError
from studio.jobs import Job
from studio.places import folders_with
from training.toml import dump_toml

MARK: Final = "comparison.json"
TEMPLATE: Final = """\
model = "mini"
max_train_steps = 300

[[data]]
folder = "/where/your/pictures/are"
"""
_MOST_BYTES: Final = 4_000_000
_LATEX: Final = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
                 "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}  # fmt: skip


def compare_words(file: Path, methods: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """The command of a comparison.

    Args:
        methods: names, or NAME@RATE.

    Raises:
        RequestError: a value is wrong.
    """
    if not methods:
        raise RequestError("choose a method at least; two make a comparison")
    return words_for("compare", CompareRequest, {**values, "config": file, "methods": ",".join(methods)})


def base_toml(base: Mapping[str, Any], *, steps: int | None, seed: int | None) -> str:
    """The TOML file of the runs, with other steps or another seed."""
    changed = {"max_train_steps": steps, "seed": seed}
    told = {name: value for name, value in base.items() if name != "search"}
    return dump_toml({**told, **{name: value for name, value in changed.items() if value is not None}})


def folder_of(job: Job) -> Path | None:
    """Where a job that compares writes; None for any other job."""
    if job.kind != "compare":
        return None
    try:
        return Path(job.directory / parse_flags("studio compare", CompareRequest, job.words[1:]).output_dir)
    except RequestError:
        return None


def find_comparisons(roots: Sequence[Path], jobs: Iterable[Job]) -> list[Path]:
    """The folders of comparisons, the latest first; those of jobs that have not begun are among them."""
    found = {folder.resolve(): folder for folder in folders_with([MARK], roots)}
    times = {folder: (folder / MARK).stat().st_mtime for folder in found}
    for job in jobs:
        folder = folder_of(job)
        if folder is not None and (folder.is_dir() or job.is_open):
            times.setdefault(folder.resolve(), job.created)
    return sorted(times, key=lambda folder: -times[folder])


def read_table(folder: Path) -> str | None:
    """The table of a comparison as Markdown; None until it has ended."""
    try:
        return (folder / "table.md").read_bytes()[:_MOST_BYTES].decode(errors="replace").strip() or None
    except OSError:
        return None


def cells_of(markdown: str) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table in Markdown."""
    lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in markdown.splitlines()]
    lines = [line for line in lines if len(line) > 1 and not all(re.fullmatch(r":?-+:?", cell) for cell in line)]
    return (lines[0], lines[1:]) if lines else ([], [])


def numbers_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Rows for a table that can be sorted: numbers as numbers."""
    return [{name: _number(cell) for name, cell in zip(head, row, strict=False)} for row in rows]


def _number(cell: str) -> float | str | None:
    try:
        return float(cell.replace(",", "")) if cell else None
    except ValueError:
        return cell


def csv_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as CSV; numbers without commas in them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([cell.replace(",", "") if isinstance(_number(cell), float) else cell for cell in r] for r in rows)
    return text.getvalue()


def latex_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as LaTeX, for the package booktabs."""
    lines = [" & ".join(map(_escaped, line)) + r" \\" for line in [head, *rows]]
    body = "\n".join(lines[1:])
    return (
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\toprule\n{lines[0]}\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in cell)
