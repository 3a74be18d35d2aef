"""The Search page: which parameters to train, so that a model learns without copying."""

from pathlib import Path
from typing import Final

import streamlit as st

from studio.jobs import Job, runs_folder
from studio.places import roots
from studio.studies import Place, find_places, is_search, jobs_of
from studio.ui import shell
from studio.ui.base import TYPED
from studio.ui.search_start import draw_start
from studio.ui.search_study import draw_study
from studio.ui.serve import typed_path

PAGE: Final = "search"
STUDIES: Final = "Studies"
NEW: Final = "New study"
_ELSEWHERE: Final = "Another folder"


def draw() -> None:
    """Draws the page."""
    st.title("Search")
    handed = shell.take_over(PAGE)
    if "toml" in handed:
        st.session_state[f"{PAGE}.view"], st.session_state[f"{PAGE}.base"] = NEW, TYPED
    if folder := handed.get("study"):
        st.query_params["study"] = _address(Path(str(folder)))
        st.session_state.pop(f"{PAGE}.place", None)
        st.session_state[f"{PAGE}.view"] = STUDIES
    jobs = [job for job in shell.queue().jobs(kinds=["search"], limit=1000) if is_search(job)]
    places = shell.told(find_places, roots(), jobs) or []
    view = _choose_view(bool(places))
    if view == NEW:
        job = draw_start(PAGE, places)
        if job is not None:
            _open(Path(st.session_state[f"{PAGE}.made"]), job)
        return
    if not places:
        _teach()
    place = _choose_place(places, jobs)
    if place is not None:
        draw_study(PAGE, place, jobs_of(place, jobs))


def _choose_view(any_there: bool) -> str:
    key = f"{PAGE}.view"
    if key not in st.session_state:
        st.session_state[key] = STUDIES if any_there or "study" in st.query_params else NEW
    if wanted := st.session_state.pop(f"{PAGE}.go_to", None):
        st.session_state[key] = wanted
    found = st.segmented_control("View", [STUDIES, NEW], key=key, persist_state="session", required=True,
                                 label_visibility="collapsed")  # fmt: skip
    return str(found or STUDIES)


def _open(folder: Path, job: Job) -> None:
    """Goes to the study that was just begun."""
    shell.choose_job(PAGE, job)
    st.query_params["study"] = _address(folder)
    st.session_state.pop(f"{PAGE}.place", None)
    st.session_state[f"{PAGE}.go_to"] = STUDIES
    st.rerun()


def _teach() -> None:
    st.info(
        "There is no study yet. A study trains your model in many ways, each with other layers and another rate, and "
        "shows which of them learn your pictures without giving them back. Begin with **New study**; "
        "`studio search CONFIG.toml` on the command line appears here too.",
        icon=":material/query_stats:",
    )


def _choose_place(places: list[Place], jobs: list[Job]) -> Place | None:
    """Draws the choice of a study; the address keeps it, so that a reload or a bookmark finds it again."""
    by_address = {_address(place.folder): place for place in places}
    asked = st.query_params.get("study")
    if asked is None and (job := shell.chosen_job(PAGE)) is not None and is_search(job):
        asked = next((name for name, place in by_address.items() if job.id in _ids(place, jobs)), None)
    key = f"{PAGE}.place"
    options = [*by_address, _ELSEWHERE]
    if st.session_state.get(key) not in options:
        st.session_state[key] = asked if asked in by_address else options[0]
    where = st.selectbox("Study", options, key=key, persist_state="session",
                         format_func=lambda name: _label(name, by_address))  # fmt: skip
    if where != _ELSEWHERE:
        st.query_params["study"] = where
        return by_address[where]
    st.query_params.pop("study", None)
    folder = st.text_input(
        "Folder of the study",
        key=f"{PAGE}.folder",
        persist_state="session",
        help="A folder that `studio search --output-dir` made, below the runs or a declared folder.",
    )
    if not folder.strip():
        st.caption("Name the folder of a study.")
        return None
    found = shell.told(typed_path, folder, what="the study")
    return None if found is None else Place(folder=found)


def _ids(place: Place, jobs: list[Job]) -> list[int]:
    return [job.id for job in jobs_of(place, jobs)]


def _label(name: str, places: dict[str, Place]) -> str:
    if name == _ELSEWHERE:
        return f"{_ELSEWHERE} …"
    place = places[name]
    return f"{place.title}  ({name})" if place.title != name else name


def _address(folder: Path) -> str:
    """A study's folder as an address has it: relative to the runs where it is there."""
    real, root = folder.resolve(), runs_folder().resolve()
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else str(real)
