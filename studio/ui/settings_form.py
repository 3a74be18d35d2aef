"""The form of the studio's settings. Labels, help and bounds come from the settings' own fields."""

from typing import Any, Final

import streamlit as st

from studio.errors import RequestError
from studio.requests import make_request
from studio.settings import (
    FILE,
    AnimateDefaults,
    Settings,
    file_settings,
    runs_folder,
    set_by_environment,
    write_settings,
)
from studio.ui import shell
from studio.ui.form import field, fields
from studio.ui.text import plain
from studio.uploads.limits import Limits

PAGE: Final = "settings"
_DONE: Final = f"{PAGE}.done"


def draw_settings() -> None:
    """Draws the form."""
    path = runs_folder().absolute() / FILE
    try:
        known = file_settings()
    except RequestError as error:
        st.error(plain(error), icon=":material/error:")
        st.caption("Mend the file, or start anew with the defaults.")
        if st.button("Start anew", key=f"{PAGE}.anew", icon=":material/restart_alt:",
                     help="The file is kept beside its place as settings.toml.old."):  # fmt: skip
            path.replace(path.with_suffix(".toml.old"))
            _again()
        return
    st.caption("Everything that is made lies in the runs folder; STUDIO_RUNS names another one at the start.")
    st.code(str(runs_folder().absolute()), language=None, wrap_lines=True)
    if names := set_by_environment():
        st.info(f"Set from outside, and going before what stands here: {plain(', '.join(names))}")
    values = _draw_fields(known)
    with st.container(horizontal=True, vertical_alignment="center"):
        asked = st.button("Save", key=f"{PAGE}.save", type="primary", icon=":material/save:")
        if st.button("Undo changes", key=f"{PAGE}.undo", icon=":material/undo:", help="As the file has it."):
            _again()
        if st.session_state.pop(_DONE, False):
            st.caption("Saved.")
    st.caption(f"They stand in {plain(path)}, and can be changed there too.")
    if asked:
        _save(values)


def _draw_fields(known: Settings) -> dict[str, Any]:
    names = ["data_folders", "model_folders", "worker_idle_exit"]
    values = fields(Settings, names, page=PAGE, **{name: getattr(known, name) for name in names})
    for folder in (*values["data_folders"], *values["model_folders"]):
        if not _is_folder(folder):
            st.warning(f"{plain(folder)} is no folder on this machine.", icon=":material/warning:")
    with st.expander("What the Animate page begins with", expanded=True):
        values["animate"] = _draw_nested(AnimateDefaults, known.animate, f"{PAGE}.animate")
    with st.expander("Limits of uploads"):
        values["uploads"] = _draw_nested(Limits, known.uploads, f"{PAGE}.uploads")
    with st.expander("Names behind a proxy"):
        values["hosts"] = field(Settings, "hosts", page=PAGE, default=known.hosts)
    return values


def _draw_nested(model: Any, known: Any, page: str) -> dict[str, Any]:
    found = fields(model, list(model.model_fields), page=page, columns=3,
                   **{name: getattr(known, name) for name in model.model_fields})  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _is_folder(text: str) -> bool:
    from pathlib import Path

    try:
        return Path(text).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        return False


def _save(values: dict[str, Any]) -> None:
    settings = shell.told(make_request, Settings, values)
    if settings is not None and shell.told(write_settings, settings) is not None:
        st.session_state[_DONE] = True
        st.rerun()


def _again() -> None:
    """Forgets what was typed."""
    for key in [key for key in st.session_state if str(key).startswith(f"{PAGE}.")]:
        del st.session_state[key]
    st.rerun()
