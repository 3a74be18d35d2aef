"""A job once more, with changes that are shown before it is put in."""

from pathlib import Path

import streamlit as st

from studio.errors import RequestError
from studio.job_changes import as_lines, config_of, diff, from_lines, rehomed
from studio.jobs import Job
from studio.ui import shell
from studio.ui.runs.listing import PAGE
from studio.ui.text import plain


def draw_clone(job: Job) -> None:
    """Draws the command and its TOML for editing, what differs, and the button that puts it in."""
    config = config_of(job)
    page = f"{PAGE}.clone.{job.id}"
    if job.kind == "train" and config is not None:
        st.caption("Or change it in the form of Fine-tune:")
        if st.button("Open in the form", key=f"{page}.form", icon=":material/tune:"):
            _open_in_form(config)
    before = as_lines(rehomed(job, job.words, Path("{folder}")))
    words_text = st.text_area("Command, a word a line", before, key=f"{page}.words", height=180)
    old = config.read_text(encoding="utf-8", errors="replace") if config is not None else ""
    text = st.text_area("Its TOML file", old, key=f"{page}.toml", height=220) if config is not None else ""
    changes = diff(as_lines(job.words), words_text or "") + "\n" + diff(old, text or "")
    st.caption("What differs")
    st.code(changes.strip() or "nothing", language="diff", wrap_lines=True)
    if st.button("Put it into the queue", key=f"{page}.go", type="primary", icon=":material/queue:"):
        made = shell.told(clone, job, words_text or "", text if config is not None and text != old else None)
        if made is not None:
            shell.choose_job(PAGE, made)
            st.rerun()


def clone(job: Job, words_text: str, toml: str | None) -> Job:
    """Puts a changed job in.

    Args:
        words_text: the words, `{folder}` for the new job's folder.
        toml: the changed TOML file; None where it is as it was.

    Raises:
        RequestError: the command is wrong.
    """
    folder = shell.queue().new_folder()
    words = [word.replace("{folder}", str(folder)) for word in from_lines(words_text)]
    if toml is not None and (config := config_of(job)) is not None:
        changed = folder / config.name
        changed.write_text(toml, encoding="utf-8")
        words = [str(changed) if job.directory / word == config else word for word in words]
    try:
        return shell.submit(words, folder=folder, clone_of=job)
    except RequestError:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        raise


def _open_in_form(config: Path) -> None:
    import tomllib

    try:
        settings = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        st.error(plain(f"{config} cannot be read: {error}"))
        return
    shell.hand_over("fine_tune", settings=settings.get("finetune", settings))
