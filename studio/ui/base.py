"""Draws where the settings of a fine-tuning run come from: typed, uploaded, or of an earlier run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.jobs import runs_folder
from studio.places import folders_with, roots
from studio.search_form import MOST_BYTES, read_base
from studio.ui import shell
from studio.ui.serve import typed_path
from studio.ui.text import plain

RUN: Final = "An earlier run"
TYPED: Final = "TOML"
FILE: Final = "Upload"


def draw_base(page: str, template: str, note: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any] | None:
    """Draws where the settings of a run come from; None where there are none, or wrong ones.

    Args:
        template: what stands in the box of text at first.
        note: draws what there is to say of them.
    """
    key = f"{page}.base"
    if key not in st.session_state:
        st.session_state[key] = TYPED
    source = st.segmented_control(
        "Settings of the runs",
        [TYPED, RUN, FILE],
        key=key,
        persist_state="session",
        required=True,
        help="As for `studio train`; a table [search] may stand in it too.",
    )
    text, folder = "", Path()
    if source == RUN:
        runs = {_title(path): path for path in folders_with(["config.toml"], roots())}
        if not runs:
            st.caption("There is no run yet. Train one on the Fine-tune page, or write TOML.")
            return None
        name = st.selectbox("Run", list(runs), key=f"{page}.run", persist_state="session")
        folder = runs[str(name)]
        text = shell.told(_read, folder / "config.toml") or ""
    elif source == FILE:
        upload = st.file_uploader("TOML file", type=["toml"], key=f"{page}.file", max_upload_size=1,
                                  help="Relative folders in it begin where the studio was started.")  # fmt: skip
        text = upload.getvalue().decode(errors="replace") if upload is not None else ""
    else:
        if f"{page}.toml" not in st.session_state:
            st.session_state[f"{page}.toml"] = template
        text = st.text_area("TOML", key=f"{page}.toml", height=260, persist_state="session", max_chars=MOST_BYTES,
                            help="Relative folders in it begin where the studio was started.")  # fmt: skip
    if not text.strip():
        st.caption("The settings of the runs come first.")
        return None
    if text.strip() == template.strip():
        st.info("Write where your pictures are; everything else may stay as it is.", icon=":material/edit:")
        return None
    # what was trained once may be trained again; what is typed must lie in the studio's folders
    allowed = Path if source == RUN else partial(typed_path, what="data folder")
    base: dict[str, Any] | None = shell.told(read_base, text, folder, allow=allowed)
    if base is not None:
        _draw_facts(base)
        if note is not None:
            note(base)
    return base


def _title(folder: Path) -> str:
    real, root = folder.resolve(), runs_folder().resolve()
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else str(folder)


def _read(path: Path) -> str:
    return path.read_bytes()[:MOST_BYTES].decode(errors="replace")


def _draw_facts(base: dict[str, Any]) -> None:
    told = [f"model {base.get('model', 'mini')}", f"method {base.get('method', 'sara')}",
            f"{base.get('max_train_steps', 500)} steps a run"]  # fmt: skip
    told += [f"pictures of {Path(str(one.get('folder', ''))).name}" for one in base["data"] if isinstance(one, dict)]
    st.caption(plain(", ".join(map(str, told))))
