"""Puts the two tables of scripts/study_methods.sh into docs/fine-tuning.md as one, and its plot beside.

.venv/bin/python scripts/methods_table.py OUT
"""

import csv
import shutil
import sys
from pathlib import Path

from fill_table import fill

PAGE = Path(__file__).parents[1] / "docs" / "fine-tuning.md"
FIRST, SECOND = "compared_five", "compared_some_xrays"


def cell(row: dict[str, str] | None, key: str, form: str) -> str:
    return "–" if row is None or not row.get(key) else form.format(float(row[key]))


def read(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return {(row["method"], row["trainable_share"]): row for row in csv.DictReader(file) if not row["error"]}


def main() -> None:
    out = Path(sys.argv[1])
    subjects, xrays = read(out / FIRST), read(out / SECOND)
    lines = [
        "| method | trained | loss | KD | identity | retrieval | drift | loss | KD | retrieval | drift | adapter kB |",
        "|---|" + "---:|" * 11,
    ]
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
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    fill(PAGE, "methods", "\n".join(lines))
    shutil.copyfile(out / FIRST / "plot.png", PAGE.parent / "media" / "methods.png")


if __name__ == "__main__":
    main()
