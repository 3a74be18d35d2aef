"""One thing of the library, opened: its picture or video, all that is known of it, and what can be done with it."""

from typing import Any, Final

import streamlit as st

from studio.errors import RequestError
from studio.library import Library, Thing
from studio.library.keeper import Keeper
from studio.library.provenance import Provenance, provenance
from studio.library.shown import NAMES, placeholder, size_text
from studio.library.thumbs import source_of
from studio.library.trash import put_in_trash
from studio.ui import shell
from studio.ui.text import plain

PAGE: Final = "library"
_LARGEST_SHOWN: Final = 200_000_000
"""Bytes of a video that is given to the browser while the page is drawn; larger ones are only downloaded."""
_USE: Final = {
    "animate": "Use on the Animate page", "background": "Use on the Background page",
    "fine_tune": "Train again, changed", "search": "Open on the Search page",
}  # fmt: skip


def open_detail(number: int) -> None:
    """Opens a thing; it stands in the address, so that a reload or a bookmark finds it."""
    st.query_params["thing"] = str(number)
    st.rerun(scope="app")


def close_detail() -> None:
    """Closes it."""
    st.query_params.pop("thing", None)


def draw_detail(kept: Keeper) -> None:
    """Draws the thing that the address names, over the page."""
    text = st.query_params.get("thing", "")
    if not text:
        return
    try:
        if not (text.isascii() and text.isdigit() and len(text) < 12):
            raise RequestError("the address names no thing of the library")
        thing = kept.library.thing(int(text))
    except RequestError as error:
        close_detail()
        st.toast(str(error), icon=":material/info:")
        return
    name = NAMES[thing.kind].removesuffix("s") if thing.kind != "study" else "Study"
    st.dialog(name, width="large", on_dismiss=close_detail)(_draw_thing)(kept, thing.id)


def _draw_thing(kept: Keeper, number: int) -> None:
    library = kept.library
    thing = library.thing(number)
    told = provenance(thing, library.queue)
    seen, known = st.columns([3, 2], gap="medium")
    with seen:
        _draw_seen(thing)
    with known:
        st.subheader(plain(thing.title), anchor=False)
        if thing.prompt:
            st.caption("Prompt" if thing.kind == "result" else "About")
            st.text(thing.prompt)
        _draw_tags(library, thing)
        _draw_actions(library, thing, told)
    for note in told.notes:
        st.warning(plain(note), icon=":material/info:")
    if told.command:
        st.caption("The same from the command line")
        st.code(told.command, language="bash", wrap_lines=True)
    st.caption("All that is known of it")
    st.dataframe({"what": [name for name, _ in told.rows], "value": [value for _, value in told.rows]}, hide_index=True,
                 column_config={"what": st.column_config.TextColumn(width="small")}, height="content")  # fmt: skip


def _draw_seen(thing: Thing) -> None:
    source = source_of(thing)
    if source is None or not source.is_file():
        st.image(placeholder(thing.kind), width="stretch", alt=thing.title)
        if thing.kind == "result":
            st.caption("The file is not there any more.")
        return
    if not thing.is_video:
        st.image(str(source), width="stretch", alt=thing.title)
        return
    if source.stat().st_size > _LARGEST_SHOWN:
        st.info(f"This video has {size_text(source.stat().st_size)}; download it to see it.")
        return
    st.video(str(source), loop=True, autoplay=True, muted=True)
    if (sheet := thing.beside(".png")) is not None:
        with st.expander("Reference, pose, result"):
            st.image(str(sheet), width="stretch", alt="contact sheet: reference, pose and result")


def _draw_tags(library: Library, thing: Thing) -> None:
    options = sorted({*library.tags(), *thing.tags})
    key = f"{PAGE}.tags.{thing.id}"
    chosen = st.multiselect("Tags", options, default=list(thing.tags), key=key, accept_new_options=True,
                            placeholder="type a word and press Enter")  # fmt: skip
    if set(chosen) != set(thing.tags):
        shell.told(library.set_tags, thing.id, chosen)


def _draw_actions(library: Library, thing: Thing, told: Provenance) -> None:
    pages: dict[str, Any] = st.session_state.get("pages", {})
    with st.container(gap="xsmall"):
        if told.page in pages and not thing.trash:
            _draw_use(told)
        if thing.job is not None and "runs" in pages:
            _draw_job(thing.job)
        if thing.place.is_file():
            st.download_button("Download", thing.place.read_bytes, thing.place.name, key=f"{PAGE}.download",
                               icon=":material/download:", width="stretch", on_click="ignore")  # fmt: skip
        if thing.root == "bundled":
            st.caption("It came with the studio and stays.")
        elif thing.is_bundled:
            st.caption("It lies outside of the runs folder and is not deleted here.")
        elif not thing.trash:
            _draw_delete(library, thing)


def _draw_use(told: Provenance) -> None:
    if st.button(_USE[told.page], key=f"{PAGE}.use", type="primary", icon=":material/tune:", width="stretch",
                 help="Opens that page with these settings filled in."):  # fmt: skip
        close_detail()
        shell.hand_over(told.page, **told.values)


def _draw_job(number: int) -> None:
    if st.button(f"Job {number}", key=f"{PAGE}.job", icon=":material/list_alt:", width="stretch",
                 help="Opens the Runs page at the job that made it."):  # fmt: skip
        close_detail()
        shell.hand_over("runs", job=number)


def _draw_delete(library: Library, thing: Thing) -> None:
    asked = st.button("Move to the trash", key=f"{PAGE}.trash", icon=":material/delete:", width="stretch",
                      help="It can be put back.")  # fmt: skip
    if asked and shell.told(put_in_trash, library, [thing.id]):
        close_detail()
        st.rerun()
