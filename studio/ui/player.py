"""Several videos that play in step: one play button, one scrubber, one speed, steps by a frame.

`st.video` has a clock of its own for each video. The files go through Streamlit's media files, as those of `st.video`
do: they can be sought in by ranges, are covered by the door, and do not travel through the page's connection again with
every click as data addresses would.
"""

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit import runtime

from studio.side_by_side import Clip, in_step

_HERE = Path(__file__).parent


@cache
def _component() -> Any:
    html, css, js = ((_HERE / f"player.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return st.components.v2.component("animatex-studio.player", html=html, css=css, js=js)


def play_in_step(clips: list[Clip], labels: list[str], *, key: str) -> None:
    """Draws the player.

    Args:
        labels: what stands below each video; shown as plain text.
    """
    fps, frames = in_step(clips)
    videos = [
        {"url": _address(clip, f"{key}.{number}"), "label": label}
        for number, (clip, label) in enumerate(zip(clips, labels, strict=True))
    ]
    _component()(key=key, data={"videos": videos, "fps": fps, "frames": frames})


def _address(clip: Clip, place: str) -> str:
    if not runtime.exists():
        return ""
    return str(runtime.get_instance().media_file_mgr.add(str(clip.path), clip.mime, place))
