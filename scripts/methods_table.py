"""Puts the tables of scripts/study_methods.sh into docs/fine-tuning.md as one, and the plot of the first set beside.

.venv/bin/python scripts/methods_table.py OUT
"""

import csv
import sys
from pathlib import Path

from fill_table import fill

from studio.comparison import Row
from studio.plots import quality_plot

PAGE = Path(__file__).parents[1] / "docs" / "fine-tuning.md"
FIRST, SECOND = "compared_five", "compared_some_xrays"
"""Folders of comparisons; others whose names begin so are of the same set."""


def cell(row: dict[str, str] | None, key: str, form: str) -> str:
    return "–" if row is None or not row.get(key) else form.format(float(row[key]))


def read(out: Path, name: str) -> dict[tuple[str, str], dict[str, str]]:
    found = {}
    for path in sorted(out.glob(f"{name}*/table.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found |= {(row["method"], row["trainable_share"]): row for row in csv.DictReader(file) if not row["error"]}
    return found


def plot(rows: dict[tuple[str, str], dict[str, str]], path: Path) -> None:
    told = [
        Row(
            method=row["method"], trainable_share=None, trainable_parameters=int(row["trainable_parameters"]),
            scores={name: float(row[name]) for name in ("kd", "drift")},
        )
        for row in rows.values()
        if row["kd"] and row["drift"]
    ]  # fmt: skip
    quality_plot(told, path)


def main() -> None:
    out = Path(sys.argv[1])
    subjects, xrays = read(out, FIRST), read(out, SECOND)
    quality = ["loss", "KD", "identity", "retrieval", "drift"]
    again = [name for name in quality if name != "identity"]  # pictures of chests have none
    head = ["method", "trained", *quality, *again, "adapter kB", "step, x LoRA"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    # by one row of the same run, so that rows of another machine can stand beside
    lora = float(subjects["lora", "0.02"]["seconds_per_step"]) if ("lora", "0.02") in subjects else None
    seen: set[tuple[str, str]] = set()
    for key, row in subjects.items():
        # a method without as many sizes has been trained at one of them twice
        if (same := (row["method"], row["trainable_parameters"] + row["adapter_bytes"])) in seen:
            continue
        seen.add(same)
        other = xrays.get(key)
        trained = f"{int(row['trainable_parameters']):,}"
        if row["method"] == "lt-sft":
            trained += f", then {float(key[1]):.1%}"
        cells = [
            row["method"], trained, cell(row, "loss", "{:.3f}"), cell(row, "kd", "{:.2f}"),
            cell(row, "identity", "{:.3f}"), cell(row, "retrieval", "{:.2f}"), cell(row, "drift", "{:.2f}"),
            cell(other, "loss", "{:.3f}"), cell(other, "kd", "{:.2f}"), cell(other, "retrieval", "{:.2f}"),
            cell(other, "drift", "{:.2f}"), f"{int(row['adapter_bytes']) / 1000:,.0f}",
            "–" if lora is None else f"{float(row['seconds_per_step']) / lora:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    fill(PAGE, "methods", "\n".join(lines))
    plot(subjects, PAGE.parent / "media" / "methods.png")


if __name__ == "__main__":
    main()
