"""The Library page: all that was made and all that came with the studio, to be found, used again and thrown away."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast, get_args

import streamlit as st

from studio.errors import RequestError
from studio.library import KINDS, Kind, Library, Order, Thing
from studio.library.keeper import Keeper
from studio.library.shown import ICONS, NAMES, TEACHING, card_line, count_text, placeholder, size_text
from studio.library.trash import empty, put_in_trash, restore
from studio.settings import studio_settings
from studio.ui import shell
from studio.ui.library_detail import draw_detail, open_detail
from studio.ui.text import plain

PAGE: Final = "library"
A_PAGE: Final = 24
_COLUMNS: Final = 4
_TRASH: Final = "trash"
_ASKED: Final = f"{PAGE}.asked"
"""What shall be deleted for good, while the question is open: a thing's number, or all."""
_ORDERS: Final[dict[Order, str]] = {
    "newest": "Newest first", "oldest": "Oldest first", "largest": "Largest first", "title": "By title",
}  # fmt: skip


@st.cache_resource(show_spinner=False, max_entries=4)
def _keeper(root: str, models: tuple[Path, ...], _library: Library) -> Keeper:
    return Keeper(_library)


def keeper() -> Keeper:
    """The library of this studio, and who keeps it in step with the files."""
    queue = shell.queue()
    try:
        models = studio_settings().model_folders
    except RequestError:
        models = ()  # the System page says what is wrong with the settings
    return _keeper(str(queue.root), models, Library(queue, models))


def draw() -> None:
    """Draws the page."""
    kept = keeper()
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.title("Library")
        with st.container(horizontal=True, horizontal_alignment="right"):
            with st.popover("Disk use", icon=":material/pie_chart:"):
                _draw_usage(kept.library)
            if st.button("Look again", key=f"{PAGE}.rescan", icon=":material/refresh:",
                         help="Looks for files that were added or taken away outside of the studio."):  # fmt: skip
                shell.told(kept.look_now)
    if kept.is_new:
        with st.spinner("Looking at what is there"):
            shell.told(kept.look_now)
    else:
        kept.look()
    if kept.error:
        st.warning(f"The files could not be looked at: {kept.error}", icon=":material/warning:")
    view = st.segmented_control("Kind", [*KINDS, _TRASH], default="result", required=True, key=f"{PAGE}.view",
                                label_visibility="collapsed", persist_state="session",
                                format_func=lambda kind: NAMES.get(cast(Kind, kind), "Trash"))  # fmt: skip
    wanted = _draw_filters(kept.library, view)
    if view == _TRASH:
        _draw_trash(kept, wanted)
    else:
        _draw_things(kept, wanted, cast(Kind, view))
    draw_detail(kept)
    _draw_question(kept.library)


def _draw_filters(library: Library, view: str) -> dict[str, Any]:
    search, tags, order = st.columns([5, 3, 2], vertical_alignment="bottom")
    text = search.text_input("Search", key=f"{PAGE}.text", placeholder="words of title, prompt, tags, model",
                             icon=":material/search:", persist_state="session")  # fmt: skip
    known = library.tags()
    chosen = tags.multiselect("Tags", known, key=f"{PAGE}.tags", persist_state="session", disabled=not known,
                              placeholder="all" if known else "none yet")  # fmt: skip
    by = order.selectbox("Order", list(get_args(Order)), key=f"{PAGE}.order", persist_state="session",
                         format_func=lambda name: _ORDERS[name])  # fmt: skip
    return {"text": text, "tags": [tag for tag in chosen if tag in known], "order": by, "trashed": view == _TRASH}


# --- things -----------------------------------------------------------------------------------------------------


def _draw_things(kept: Keeper, wanted: dict[str, Any], kind: Kind) -> None:
    things, total = _one_page(kept.library, wanted, kind)
    if not things:
        _draw_none(wanted, kind)
        return
    chosen = _draw_selecting(kept.library, things, total)
    _grid(kept, things, chosen is not None)
    _draw_pages(total, wanted, kind)


def _one_page(library: Library, wanted: dict[str, Any], kind: Kind) -> tuple[list[Thing], int]:
    filters = {"text": wanted["text"], "tags": wanted["tags"], "kinds": [kind]}
    total = library.count(**filters)
    at = min(int(st.session_state.get(_page_key(wanted, kind)) or 1), max(1, -(-total // A_PAGE)))
    return library.search(**filters, order=wanted["order"], limit=A_PAGE, offset=(at - 1) * A_PAGE), total


def _page_key(wanted: dict[str, Any], kind: str) -> str:
    """Another search begins at its first page."""
    return f"{PAGE}.at.{kind}.{wanted['order']}.{wanted['text']}.{','.join(wanted['tags'])}"


def _draw_pages(total: int, wanted: dict[str, Any], kind: str) -> None:
    pages = -(-total // A_PAGE)
    if pages > 1:
        with st.container(horizontal_alignment="center"):
            st.pagination(pages, key=_page_key(wanted, kind))


def _draw_none(wanted: dict[str, Any], kind: Kind) -> None:
    if wanted["text"] or wanted["tags"]:
        st.info("Nothing has all these words and tags. Take some away.", icon=":material/search_off:")
        return
    st.info(TEACHING[kind], icon=":material/lightbulb:")
    page, label = {"result": ("animate", "Animate a character"), "run": ("fine_tune", "Fine-tune a model"),
                   "adapter": ("fine_tune", "Fine-tune a model"), "study": ("search", "Search what to train"),
                   }.get(kind, ("", ""))  # fmt: skip
    if page in st.session_state.get("pages", {}) and st.button(label, key=f"{PAGE}.first", type="primary"):
        st.switch_page(st.session_state["pages"][page])


def _draw_selecting(library: Library, things: Sequence[Thing], total: int) -> list[int] | None:
    """Draws how many there are, and the choice of several; None while none is to be chosen."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(count_text(total), width="stretch")
        ours = [thing for thing in things if not thing.is_bundled]
        if not ours:
            return None
        if not st.toggle("Select", key=f"{PAGE}.selecting"):
            return None
        chosen = [thing.id for thing in ours if st.session_state.get(f"{PAGE}.chosen.{thing.id}")]
        label = f"Move {len(chosen)} to the trash" if chosen else "Move to the trash"
        asked = st.button(label, key=f"{PAGE}.delete", icon=":material/delete:", disabled=not chosen,
                          help="Choose some below first." if not chosen else "They can be put back.")  # fmt: skip
    if asked and shell.told(put_in_trash, library, chosen):
        st.rerun()
    return chosen


def _grid(kept: Keeper, things: Sequence[Thing], selecting: bool) -> None:
    """Draws the cards; again and again while small pictures are still being made."""
    coming = any(kept.thumbs.get(thing)[1] for thing in things)
    st.fragment(_draw_cards, run_every="1s" if coming else None)(kept, things, selecting, coming)


def _draw_cards(kept: Keeper, things: Sequence[Thing], selecting: bool, coming: bool) -> None:
    pictures = [kept.thumbs.get(thing) for thing in things]
    if coming and not any(waits for _, waits in pictures):
        st.rerun()
    for start in range(0, len(things), _COLUMNS):
        columns = st.columns(_COLUMNS)
        for column, thing, (picture, _) in zip(columns, things[start:], pictures[start:], strict=False):
            with column, st.container(border=True, gap="xxsmall", height="stretch"):
                _draw_card(thing, picture, selecting)


def _draw_card(thing: Thing, picture: Path | None, selecting: bool) -> None:
    st.image(placeholder(thing.kind) if picture is None else str(picture), width="stretch", alt=thing.title)
    if st.button(plain(thing.title), key=f"{PAGE}.open.{thing.id}", type="tertiary", help="Opens it"):
        open_detail(thing.id)
    st.caption(plain(card_line(thing)))
    if selecting and not thing.is_bundled:
        st.checkbox("Chosen", key=f"{PAGE}.chosen.{thing.id}")


# --- trash ------------------------------------------------------------------------------------------------------


def _draw_trash(kept: Keeper, wanted: dict[str, Any]) -> None:
    library = kept.library
    total = library.count(wanted["text"], tags=wanted["tags"], trashed=True)
    if not total:
        text = "Nothing in the trash has all these words and tags." if wanted["text"] or wanted["tags"] else (
            "The trash is empty. What is deleted comes here first and can be put back.")  # fmt: skip
        st.info(text, icon=":material/delete:")
        return
    size = next(use.bytes for use in library.usage() if use.kind == _TRASH)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{total:,} in the trash; all of it takes {size_text(size)} of the disk.", width="stretch")
        if st.button("Empty the trash", key=f"{PAGE}.empty", icon=":material/delete_forever:"):
            st.session_state[_ASKED] = "all"
    at = min(int(st.session_state.get(_page_key(wanted, _TRASH)) or 1), -(-total // A_PAGE))
    for thing in library.search(wanted["text"], tags=wanted["tags"], trashed=True, order=wanted["order"], limit=A_PAGE,
                                offset=(at - 1) * A_PAGE):  # fmt: skip
        _draw_thrown(library, thing)
    _draw_pages(total, wanted, _TRASH)


def _draw_thrown(library: Library, thing: Thing) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f":material/{ICONS[thing.kind]}: {plain(thing.title)}", width="stretch")
        st.caption(plain(f"{card_line(thing)} · {size_text(thing.bytes)}"))
        back = st.button("Put back", key=f"{PAGE}.restore.{thing.id}", icon=":material/undo:")
        if st.button("Delete for good", key=f"{PAGE}.gone.{thing.id}", icon=":material/delete_forever:"):
            st.session_state[_ASKED] = thing.id
    if back and shell.told(restore, library, thing.id) is not None:
        st.rerun()


def _draw_question(library: Library) -> None:
    """Draws the question before something is deleted for good."""
    asked = st.session_state.get(_ASKED)
    if asked is None:
        return
    st.dialog("Delete for good?", icon=":material/delete_forever:", on_dismiss=_forget_question)(_ask)(library, asked)


def _ask(library: Library, asked: int | str) -> None:
    if asked == "all":
        size = next(use for use in library.usage() if use.kind == _TRASH)
        what = f"{count_text(size.things)}, {size_text(size.bytes)},"
    else:
        thing = library.thing(int(asked))
        what = f"{plain(thing.title)}, {size_text(thing.bytes)},"
    st.write(f"{what} will be deleted for good. There is no way back.")
    if st.button("Delete for good", key=f"{PAGE}.yes", type="primary"):
        _forget_question()
        if shell.told(empty, library, None if asked == "all" else [int(asked)]) is not None:
            st.rerun()


def _forget_question() -> None:
    st.session_state.pop(_ASKED, None)


# --- disk use ---------------------------------------------------------------------------------------------------


def _draw_usage(library: Library) -> None:
    rows = [use for use in library.usage() if use.bytes]
    if not rows:
        st.caption("Nothing takes any room yet.")
        return
    st.bar_chart({"kind": [NAMES.get(cast(Kind, use.kind), "Trash") for use in rows],
                  "MB": [round(use.bytes / 1e6, 2) for use in rows]}, x="kind", y="MB", horizontal=True,
                 height=40 + 36 * len(rows), width=360, x_label="", y_label="MB")  # fmt: skip
    total = sum(use.bytes for use in rows if use.kind != "adapter")
    st.caption(f"{size_text(total)} in all. An adapter that lies in a run's folder counts with the run.")
