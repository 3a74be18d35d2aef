"""Captions of a data folder, to be read and changed."""

import io
import math
from pathlib import Path
from typing import Any, Final

import streamlit as st
from PIL import Image, UnidentifiedImageError

from studio.errors import RequestError
from studio.ui.serve import typed_path
from studio.ui.text import plain
from studio.ui.tune.shared import PAGE, why_not_write

_PER_PAGE: Final = 8
_MOST_PIXELS: Final = 50_000_000
_SOURCES: Final = {
    "text": "from its .txt", "metadata": "from metadata, which goes before a .txt; change it there",
    "set": "the data set's, for it has none of its own", "folder": "the folder's name, for it has none of its own",
    "unreadable": "its .txt is not UTF-8; save to mend it",
}  # fmt: skip


@st.fragment
def draw_captions(folders: list[Path], set_captions: list[str]) -> None:
    """Draws the files of a data folder, some at a time, with their captions."""
    from studio.data_captions import MAX_CAPTION, captioned

    number = 0
    if len(folders) > 1:
        number = st.selectbox("Folder", range(len(folders)), key=f"{PAGE}.captions.folder",
                              format_func=lambda k: plain(str(folders[k])))  # fmt: skip
    folder = folders[number]
    try:
        listing = _listing(str(folder), folder.stat().st_mtime)
    except (RequestError, OSError) as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    words = st.text_input("Find a file", key=f"{PAGE}.captions.find", placeholder="part of its name")
    files = [path for path in listing.files if words.lower() in path.relative_to(folder).as_posix().lower()]
    if not files:
        st.info("No picture or video here" + (" has such a name." if words else "."))
        return
    pages = math.ceil(len(files) / _PER_PAGE)
    page = 1
    if pages > 1:
        key = f"{PAGE}.captions.page"
        st.session_state[key] = min(int(st.session_state.get(key, 1)), pages)
        page = int(st.number_input(f"Page of {pages}", 1, pages, key=key))
    why_not = why_not_write(folder)
    if why_not:
        st.caption(plain(why_not))
    for one in captioned(listing, files[(page - 1) * _PER_PAGE : page * _PER_PAGE], set_caption=set_captions[number]):
        picture, text = st.columns([1, 4], vertical_alignment="center")
        _draw_picture(picture, one.path, one.name, one.is_video)
        key = f"{PAGE}.caption.{one.path}"
        if key not in st.session_state:
            st.session_state[key] = one.caption
        text.text_area(
            plain(one.name),
            key=key,
            height=68,
            max_chars=MAX_CAPTION,
            help=_SOURCES[one.source],
            disabled=bool(why_not) or not one.is_editable,
            on_change=_write,
            args=(folder, one.name, key),
        )
        if one.source != "text":
            text.caption(_SOURCES[one.source])


def _write(folder: Path, name: str, key: str) -> None:
    from studio.data_captions import write_caption

    try:
        write_caption(folder, name, str(st.session_state[key]))
    except RequestError as error:
        st.toast(plain(str(error)), icon=":material/error:")
    else:
        st.toast(f"Saved the caption of {plain(name)}", icon=":material/check:")


@st.cache_data(ttl=10, max_entries=8, show_spinner=False)
def _listing(folder: str, changed: float) -> Any:
    from studio.data_captions import look_at

    return look_at(Path(folder))


def _draw_picture(place: Any, path: Path, name: str, is_video: bool) -> None:
    try:
        typed_path(str(path))  # a link in the folder may lead elsewhere
        picture = _thumbnail(str(path), path.stat().st_mtime, is_video)
    except (RequestError, OSError):
        picture = None
    if picture is None:
        place.caption(f":material/broken_image: {plain(name)} cannot be shown")
    else:
        place.image(picture, width=120)


@st.cache_data(max_entries=512, show_spinner=False)
def _thumbnail(path: str, changed: float, is_video: bool) -> bytes | None:
    """A small picture of a file; of a video, its first frame. None where it cannot be read."""
    try:
        image = _first_frame(path) if is_video else Image.open(path)
        if image is None or image.width * image.height > _MOST_PIXELS:
            return None
        image.draft("RGB", (240, 240))
        image.thumbnail((240, 240))
        kept = io.BytesIO()
        image.convert("RGB").save(kept, format="JPEG", quality=85)
        return kept.getvalue()
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError):
        return None


def _first_frame(path: str) -> Image.Image | None:
    import av
    import av.error

    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            for frame in container.decode(video=0):
                return frame.to_image()
    except (av.error.FFmpegError, IndexError):
        pass
    return None
