"""The studio in the browser: navigation and what all pages share."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import streamlit as st

from studio.errors import RequestError
from studio.ui import shell
from studio.ui.serve import why_exposed

# by section: module in `studio.ui.pages`, title, icon; no docstring, which Streamlit would draw
PAGES = {
    "Make": {
        "animate": ("Animate", "animation"),
        "background": ("Background", "landscape"),
        "pose": ("Pose", "accessibility_new"),
    },
    "Teach": {
        "fine_tune": ("Fine-tune", "model_training"),
        "search": ("Search", "query_stats"),
        "compare": ("Compare", "compare"),
    },
    "Keep": {
        "runs": ("Runs", "list_alt"),
        "library": ("Library", "photo_library"),
        "system": ("System", "settings"),
    },
}


def main() -> None:
    """Draws the page that is chosen."""
    st.set_page_config(page_title="animatex-studio", page_icon=":material/animation:", layout="wide")
    if why := why_exposed():
        st.error(why)
        st.stop()
    sections: dict[str, list[Any]] = {}
    pages = {}
    for section, entries in PAGES.items():
        sections[section] = []
        for name, (title, icon) in entries.items():
            if find_spec(f"studio.ui.pages.{name}") is None:
                continue
            draw = import_module(f"studio.ui.pages.{name}").draw
            page = st.Page(draw, title=title, icon=f":material/{icon}:", url_path=name, default=name == "animate")
            sections[section].append(page)
            pages[name] = page
    st.session_state["pages"] = pages
    chosen = st.navigation(sections)
    try:
        shell.attend(str(shell.queue().root))
    except RequestError as error:
        st.error(str(error))
        st.stop()
    chosen.run()
