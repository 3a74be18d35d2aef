"""The data of a fine-tuning: folders and uploads, what is wrong with them, what the model will see."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from studio.data_problems import problem_rows, quarantines, summary
from studio.finetune_form import LEARNED, SEEN
from studio.jobs import Job, runs_folder
from studio.ui import shell
from studio.ui.form import field, fields
from studio.ui.text import plain
from studio.ui.tune.shared import PAGE, latest_job, submit_with, trainer, why_not_read
from studio.uploads import limits_of_settings, shown_name

_UNPACKING = f"{PAGE}.unpacking"


def draw_sets() -> list[dict[str, Any]]:
    """Draws the folders and the upload; each set's values."""
    _take_unpacked()
    count = st.session_state.setdefault(f"{PAGE}.sets", 1)
    sets = []
    for number in range(count):
        with st.container(border=count > 1):
            sets.append(_draw_set(number, count))
    with st.container(horizontal=True):
        if st.button("Add a folder", key=f"{PAGE}.add", icon=":material/create_new_folder:", disabled=count >= 20):
            st.session_state[f"{PAGE}.sets"] = count + 1
            st.rerun()
        with st.popover("Upload a zip", icon=":material/upload:"):
            _draw_upload()
        if earlier := _uploads():
            with st.popover("Earlier uploads", icon=":material/history:"):
                for folder in earlier:
                    if st.button(plain(folder.name), key=f"{PAGE}.use.{folder.parent.name}", width="stretch"):
                        _use(folder)
                        st.rerun()
    unpacking = st.session_state.get(_UNPACKING)
    if unpacking is not None and (job := shell.told(shell.queue().job, unpacking)) is not None:
        if job.is_open:
            shell.watch(job.id)
        elif job.state != "done":
            st.error(plain(job.error or "The upload was cancelled."), icon=":material/error:")
    return sets


def _draw_set(number: int, count: int) -> dict[str, Any]:
    model, page = trainer().DataSet, f"{PAGE}.data.{number}"
    values = {"folder": field(model, "folder", page=page, label="Folder of pictures and videos")}
    with st.expander("Caption, repeats and weight of this folder", expanded=False):
        values |= fields(model, ["caption", "repeats", "weight"], page=page, columns=3)
    if count > 1 and st.button("Take it out", key=f"{page}.remove", icon=":material/delete:"):
        _remove(number, count)
        st.rerun()
    folder = str(values["folder"] or "").strip()
    if folder and (why := why_not_read(folder)):
        st.error(plain(why), icon=":material/folder_off:")
    return {**values, "folder": folder}


def _remove(number: int, count: int) -> None:
    """Moves the sets after one forward by one place."""
    names = list(trainer().DataSet.model_fields)
    for place in range(number, count):
        for name in names:
            value = st.session_state.pop(f"{PAGE}.data.{place + 1}.{name}", None)
            st.session_state.pop(f"{PAGE}.data.{place}.{name}", None)
            if value is not None:
                st.session_state[f"{PAGE}.data.{place}.{name}"] = value
    st.session_state[f"{PAGE}.sets"] = count - 1


# --- uploads -----------------------------------------------------------------------------------------------------


def _draw_upload() -> None:
    limits = shell.told(limits_of_settings)
    if limits is None:
        return
    upload = st.file_uploader(
        "Zip of pictures, videos and captions",
        type=["zip"],
        key=f"{PAGE}.zip",
        max_upload_size=limits.zip_mb,
        help="Captions are .txt files of the same name, metadata.jsonl or metadata.csv.",
    )
    if st.button("Unpack it", key=f"{PAGE}.unpack", disabled=upload is None, type="primary"):
        job = shell.told(_unpack, upload)
        if job is not None:
            st.session_state[_UNPACKING] = job.id
            st.rerun()
    if upload is None:
        st.caption("Choose a zip first. Every file in it is looked at before it is used.")


def _unpack(upload: Any) -> Job:
    folder = shell.queue().new_folder()
    archive = folder / "upload.zip"
    with archive.open("wb") as file:
        while chunk := upload.read(1 << 20):
            file.write(chunk)
    words = ["data", "unpack", str(archive), f"--into={runs_folder() / 'uploads'}", f"--name={upload.name}"]
    return shell.submit(words, title=f"unpack {shown_name(upload.name)}", folder=folder)


def _take_unpacked() -> None:
    """Puts the folder of an upload that is unpacked into the form."""
    number = st.session_state.get(_UNPACKING)
    if number is None:
        return
    job = shell.told(shell.queue().job, number)
    if job is None or job.state == "done":
        st.session_state.pop(_UNPACKING)
    if job is not None and job.state == "done":
        (job.folder / "upload.zip").unlink(missing_ok=True)
        _use(Path(job.result["folder"]))


def _use(folder: Path) -> None:
    """Takes a folder as the data: in the first set without one, or in a new one."""
    count = st.session_state.get(f"{PAGE}.sets", 1)
    for number in range(count):
        if not st.session_state.get(f"{PAGE}.data.{number}.folder"):
            st.session_state[f"{PAGE}.data.{number}.folder"] = str(folder)
            return
    st.session_state[f"{PAGE}.data.{count}.folder"] = str(folder)
    st.session_state[f"{PAGE}.sets"] = count + 1


def _uploads() -> list[Path]:
    found = [path for path in (runs_folder() / "uploads").glob("data-*/*") if path.is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:12]


# --- what is learned of them -------------------------------------------------------------------------------------


def draw_fields() -> dict[str, Any]:
    """Draws how the files are read and what is learned."""
    config = trainer().FinetuneConfig
    values = fields(config, [*LEARNED, "resolution"], page=PAGE, columns=2)
    with st.expander("How files are cut and read"):
        values |= fields(config, [name for name in SEEN if name != "resolution"], page=PAGE, columns=2)
    return values


# --- the doctor --------------------------------------------------------------------------------------------------


def draw_doctor(text: str | None, folders: list[Path]) -> None:
    """Draws the check of the data, what can be done about it, and what the model will see.

    Args:
        text: the settings of the data as TOML; None where there are none yet.
    """
    with st.container(horizontal=True):
        check = st.button("Check the data", key=f"{PAGE}.check", icon=":material/stethoscope:", disabled=text is None)
        show = st.button("Show what the model will see", key=f"{PAGE}.preview", icon=":material/visibility:",
                         disabled=text is None)  # fmt: skip
    if text is None:
        st.caption("Give a folder first; then every file in it can be decoded and looked at.")
        return
    names = ", ".join(folder.name for folder in folders)
    if check:
        shell.told(submit_with, text, ["data", "check", "{toml}"], title=f"check {names}")
    if show:
        words = ["data", "preview", "{toml}", "--output={folder}/preview.png"]
        shell.told(submit_with, text, words, title=f"preview {names}")
    _draw_check(text, names, folders)
    _draw_preview(text)


def _draw_check(text: str, names: str, folders: list[Path]) -> None:
    for flag in ("--quarantine", "--restore"):
        moving = latest_job(("data", "check"), text, flag=flag)
        if moving is not None and moving.is_open:
            shell.watch(moving.id)
        elif moving is not None and moving.state == "failed":
            st.error(plain(moving.error), icon=":material/error:")
    job = latest_job(("data", "check"), text)
    if job is None:
        st.caption("Not checked yet with these settings.")
    elif job.is_open:
        shell.watch(job.id)
    elif job.state != "done":
        st.error(plain(job.error or "The check was cancelled."), icon=":material/error:")
    else:
        _draw_problems(text, names, job, folders)
    moved = quarantines(folders)
    if moved:
        with st.container(horizontal=True, vertical_alignment="center"):
            count = sum(moved.values())
            lie = "1 file lies" if count == 1 else f"{count} files lie"
            st.caption(f"{lie} in quarantine ({plain('_quarantine')} in the data folder).")
            if st.button("Put them back", key=f"{PAGE}.restore", icon=":material/undo:"):
                shell.told(_move, text, "--restore", f"put back the quarantine of {names}", names)
                st.rerun()


def _draw_problems(text: str, names: str, job: Job, folders: list[Path]) -> None:
    result: Mapping[str, Any] = job.result
    words, bad = summary(result)
    ago = max(0, int((time.time() - (job.ended or time.time())) / 60))
    (st.success if result.get("ok") else st.warning)(f"{words} Checked {f'{ago} min ago' if ago else 'just now'}.")
    for note in result.get("notes", ()):
        st.caption(plain(note))
    rows = problem_rows(result, folders)
    if rows:
        st.dataframe(rows, hide_index=True, height=min(280, 40 + 36 * len(rows)), key=f"{PAGE}.problems",
                     column_config={"why": st.column_config.TextColumn("why", width="large")})  # fmt: skip
    if bad:
        label = f"Move {bad} bad file{'' if bad == 1 else 's'} to quarantine"
        if st.button(label, key=f"{PAGE}.quarantine", icon=":material/move_to_inbox:", type="primary",
                     help="With their captions; nothing is deleted, and one click puts them back."):  # fmt: skip
            shell.told(_move, text, "--quarantine", f"quarantine bad files of {names}", names)
            st.rerun()


def _move(text: str, flag: str, title: str, names: str) -> None:
    """Moves files, and looks at the data again afterwards."""
    moving = submit_with(text, ["data", "check", "{toml}", flag], title=title)
    submit_with(text, ["data", "check", "{toml}"], title=f"check {names}", needs=[moving.id])


def _draw_preview(text: str) -> None:
    job = latest_job(("data", "preview"), text)
    if job is None:
        return
    if job.is_open:
        shell.watch(job.id)
    elif job.state != "done":
        st.error(plain(job.error or "It was cancelled."), icon=":material/error:")
    elif (sheet := Path(job.result["output"])).is_file():
        st.image(
            str(sheet),
            width="stretch",
            caption=f"The first {job.result['drawn']} of {job.result['samples']} samples, as they are trained",
        )
        st.dataframe(job.result["buckets"], hide_index=True, key=f"{PAGE}.buckets")
