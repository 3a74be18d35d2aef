"""Nothing is lost on the way into the trash and out of it."""

import os

import pytest


class KilledError(BaseException):
    """Stands for a kill: nothing of the program's own handling may catch it."""


@pytest.fixture
def trash(library):
    from studio.library import trash

    return trash


def only(library, kind="result", **where):
    (thing,) = library.search(kinds=[kind], **where)
    return thing


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_result_goes_with_its_sidecar_and_sheet_and_comes_back_the_same(library, trash, make_result):
    video = make_result()
    library.rescan()
    before = files_below(video.parent)
    library.set_tags(only(library).id, ["kept"])
    (thing,) = trash.put_in_trash(library, [only(library).id])
    assert files_below(video.parent) == {}
    assert library.count(kinds=["result"]) == 0
    assert only(library, trashed=True).place.is_file()
    back = trash.restore(library, thing.id)
    assert files_below(video.parent) == before
    assert (back.id, back.tags, back.trash) == (thing.id, ("kept",), None)
    assert list((library.root / "trash").iterdir()) == []


def test_a_run_goes_with_all_that_is_in_it(library, trash, make_run):
    folder = make_run()
    library.rescan()
    before = files_below(folder)
    (thing,) = trash.put_in_trash(library, [only(library, "run").id])
    assert not folder.exists()
    assert library.count(kinds=["adapter"]) == 0
    trash.restore(library, thing.id)
    assert files_below(folder) == before
    assert library.count(kinds=["adapter"]) == 1


def test_restoring_is_refused_when_something_is_in_the_way(library, trash, make_result):
    from studio.errors import RequestError

    video = make_result()
    library.rescan()
    (thing,) = trash.put_in_trash(library, [only(library).id])
    video.write_bytes(b"a new one")
    with pytest.raises(RequestError, match="is there again"):
        trash.restore(library, thing.id)
    assert video.read_bytes() == b"a new one"
    assert only(library, trashed=True).place.is_file()


def test_emptying_deletes_for_good_and_only_what_is_in_the_trash(library, trash, make_result):
    make_result(prompt="goes")
    stays = make_result(prompt="stays")
    library.rescan()
    size = library.search("goes")[0].bytes
    trash.put_in_trash(library, [library.search("goes")[0].id])
    assert trash.empty(library) == (1, size)
    assert list((library.root / "trash").iterdir()) == []
    assert library.count(trashed=True) == 0
    assert stays.is_file()


def test_one_thing_of_the_trash_can_be_deleted_alone(library, trash, make_result):
    make_result(prompt="first")
    make_result(prompt="second")
    library.rescan()
    trash.put_in_trash(library, [thing.id for thing in library.search(kinds=["result"])])
    trash.empty(library, [library.search("first", trashed=True)[0].id])
    assert [thing.prompt for thing in library.search(trashed=True)] == ["second"]


@pytest.mark.parametrize("kind", ["character", "motion", "model"])
def test_what_came_with_the_studio_is_not_deleted(kind, library, trash):
    from studio.errors import RequestError

    library.rescan()
    with pytest.raises(RequestError, match="came with the studio"):
        trash.put_in_trash(library, [library.search(kinds=[kind])[0].id])


@pytest.mark.parametrize("state", ["queued", "paused"])
def test_what_a_job_still_needs_is_not_deleted(state, library, trash, queue, make_run):
    from studio.errors import RequestError

    folder = make_run()
    library.rescan()
    job = queue.submit(
        ["animate", "--reference", "cat", "--driving", "wave", f"--adapter={folder}/adapter.safetensors:0.5"]
    )
    if state == "paused":
        queue.pause(job.id)
    for kind in ("run", "adapter"):
        with pytest.raises(RequestError, match=f"used by job {job.id}"):
            trash.put_in_trash(library, [only(library, kind).id])
    queue.cancel(job.id)
    trash.put_in_trash(library, [only(library, "run").id])


def test_paths_in_a_job_may_be_relative(library, trash, queue, make_run):
    from studio.errors import RequestError

    make_run()
    library.rescan()
    queue.submit(["resume", "cat"], directory=queue.root)
    with pytest.raises(RequestError, match="used by job"):
        trash.put_in_trash(library, [only(library, "run").id])


def test_when_one_is_refused_none_is_moved(library, trash, queue, make_result):
    from studio.errors import RequestError

    make_result(prompt="free")
    folder = queue.new_folder()
    make_result(folder, prompt="used")
    queue.submit(["animate"], folder=folder)
    library.rescan()
    with pytest.raises(RequestError, match="used by job"):
        trash.put_in_trash(library, [library.search("free")[0].id, library.search("used")[0].id])
    assert library.count(kinds=["result"]) == 2


def test_a_path_in_the_database_that_leads_outside_is_refused(library, trash, make_result, tmp_path):
    import sqlalchemy as sa

    from studio.errors import RequestError
    from studio.library.tables import THINGS

    outside = tmp_path / "precious.mp4"
    outside.write_bytes(b"x")
    make_result()
    library.rescan()
    thing = only(library)
    with library.database.exclusive("studio library") as connection:
        connection.execute(sa.update(THINGS).where(THINGS.c.id == thing.id).values(path="../precious.mp4"))
    with pytest.raises(RequestError, match="is not below"):
        trash.put_in_trash(library, [thing.id])
    assert outside.is_file()


def test_a_manifest_that_leads_outside_is_not_heeded(library, trash, queue, tmp_path):
    folder = queue.root / "trash" / "20260101-000000-abcdef01"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "a").write_bytes(b"x")
    (folder / "manifest.json").write_text('{"aim": "out", "row": {"path": "a"}, "moved": {"../../evil": "a"}}')
    library.rescan()
    assert (folder / "files" / "a").is_file()
    assert not (tmp_path.parent / "evil").exists()


def kill_at(monkeypatch, step):
    """Lets the step-th change of a name on the disk never happen."""
    made = {"rename": os.rename, "replace": os.replace}
    count = iter(range(1000))

    def counted(name):
        def act(*arguments, **named):
            if next(count) == step:
                raise KilledError
            return made[name](*arguments, **named)

        return act

    for name in made:
        monkeypatch.setattr(os, name, counted(name))


@pytest.mark.parametrize("step", range(4))
def test_a_kill_on_the_way_in_leaves_a_thing_here_or_there(step, library, trash, make_result, monkeypatch):
    video = make_result()
    library.rescan()
    whole = set(files_below(video.parent).values())
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(KilledError):
            trash.put_in_trash(library, [only(library).id])
    library.rescan()
    found = library.search(kinds=["result"]) + library.search(kinds=["result"], trashed=True)
    assert len(found) == 1
    if found[0].trash:
        trash.restore(library, found[0].id)
    assert set(files_below(video.parent).values()) == whole


@pytest.mark.parametrize("step", range(4))
def test_a_kill_on_the_way_out_leaves_a_thing_here_or_there(step, library, trash, make_result, monkeypatch):
    video = make_result()
    library.rescan()
    whole = set(files_below(video.parent).values())
    (thing,) = trash.put_in_trash(library, [only(library).id])
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(KilledError):
            trash.restore(library, thing.id)
    library.rescan()
    if library.count(kinds=["result"], trashed=True):
        trash.restore(library, only(library, trashed=True).id)
    assert library.count(kinds=["result"]) == 1
    assert set(files_below(video.parent).values()) == whole


def test_a_kill_while_emptying_is_finished_later(library, trash, make_result, monkeypatch):
    import shutil

    make_result()
    library.rescan()
    trash.put_in_trash(library, [only(library).id])

    def killed(*_, **__):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KilledError):
            trash.empty(library)
    library.rescan()
    assert list((library.root / "trash").iterdir()) == []
    assert library.count(trashed=True) == 0


def test_a_new_database_finds_the_trash_again(library, trash, queue, make_result):
    from studio.jobs import Queue
    from studio.library import Library

    video = make_result()
    library.rescan()
    library.set_tags(only(library).id, ["kept"])
    trash.put_in_trash(library, [only(library).id])
    for path in queue.root.glob("studio.db*"):
        path.unlink()
    fresh = Library(Queue(queue.root))
    fresh.rescan()
    thing = only(fresh, trashed=True)
    assert thing.tags == ("kept",)
    trash.restore(fresh, thing.id)
    assert video.is_file()
