"""A table to look at and to paste."""

from collections.abc import Sequence

import streamlit as st

from studio.compare_form import csv_of, latex_of, numbers_of


def draw_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, key: str, name: str) -> None:
    """Draws a table that can be sorted, and the same as Markdown, CSV and LaTeX with a button to copy."""
    st.dataframe(numbers_of(head, rows), hide_index=True, width="stretch")
    with st.expander("To paste"):
        kind = st.segmented_control("As", ["Markdown", "CSV", "LaTeX"], default="Markdown", key=f"{key}.as",
                                    required=True)  # fmt: skip
        text = {"CSV": csv_of, "LaTeX": latex_of}.get(str(kind), markdown_of)(head, rows)
        st.code(text, language={"LaTeX": "latex", "CSV": None}.get(str(kind), "markdown"))
        st.download_button("Download CSV", csv_of(head, rows), f"{name}.csv", "text/csv", key=f"{key}.csv",
                           icon=":material/download:", on_click="ignore")  # fmt: skip


def markdown_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
