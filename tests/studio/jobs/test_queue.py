"""The queue: what may be done with jobs, and in which order they wait."""

import pytest


def test_a_job_waits_with_its_command_and_a_title_made_from_it(queue):
    job = queue.submit(["animate", "--reference", "/x/rabbit.png", "--driving", "wave"])
    assert (job.state, job.title, job.attempt) == ("queued", "animate rabbit.png with wave", 0)
    assert job.command == "studio animate --reference /x/rabbit.png --driving wave"
    assert job.folder.is_dir()
    assert [text for _, text in queue.history(job.id)] == ["queued"]


def test_another_object_for_the_same_folder_sees_the_same_jobs(queue):
    from studio.jobs import Queue

    job = queue.submit(["motions"])
    assert Queue(queue.root).job(job.id) == job


def test_waiting_jobs_stand_by_priority_then_by_age(queue):
    first, second, urgent = (queue.submit(["motions"], priority=p) for p in (0, 0, 5))
    assert [job.id for job in queue.jobs(("queued",))] == [urgent.id, first.id, second.id]


def test_a_job_can_be_moved_before_another_and_to_the_front(queue):
    a, b, c = (queue.submit(["motions"]).id for _ in range(3))
    queue.move(c, before=b)
    assert [job.id for job in queue.jobs(("queued",))] == [a, c, b]
    queue.move(b)
    assert [job.id for job in queue.jobs(("queued",))] == [b, a, c]


def test_a_job_moved_before_an_urgent_one_is_as_urgent(queue):
    urgent, plain = queue.submit(["motions"], priority=9), queue.submit(["motions"])
    assert queue.move(plain.id, before=urgent.id).priority == 9
    assert [job.id for job in queue.jobs(("queued",))] == [plain.id, urgent.id]


def test_waiting_jobs_are_paused_resumed_and_cancelled_at_once(queue):
    job = queue.submit(["motions"])
    assert queue.pause(job.id).state == "paused"
    assert queue.resume(job.id).state == "queued"
    assert queue.cancel(job.id).state == "cancelled"
    assert queue.retry(job.id).state == "queued"


@pytest.mark.parametrize("what", ["pause", "resume", "set_priority"])
def test_a_job_that_ended_is_left_as_it_is_and_the_message_says_so(queue, what):
    from studio.errors import RequestError

    job = queue.cancel(queue.submit(["motions"]).id)
    with pytest.raises(RequestError, match=f"job {job.id} is cancelled"):
        getattr(queue, what)(job.id, *([3] if what == "set_priority" else []))


def test_an_unknown_number_is_refused_with_where_to_look(queue):
    from studio.errors import RequestError

    with pytest.raises(RequestError, match="no job 77; `studio jobs list`"):
        queue.cancel(77)


def test_a_needed_job_has_to_be_there_and_cannot_be_forgotten_before(queue):
    from studio.errors import RequestError

    with pytest.raises(RequestError, match="no job 5"):
        queue.submit(["motions"], needs=[5])
    assert queue.count() == 0
    first = queue.submit(["motions"])
    second = queue.submit(["motions"], needs=[first.id])
    queue.cancel(first.id)
    with pytest.raises(RequestError, match=f"job {second.id} needs job {first.id}"):
        queue.forget(first.id)
    queue.cancel(second.id)
    queue.forget(first.id)
    assert queue.job(second.id).needs == ()


def test_jobs_are_found_by_state_kind_and_title(queue):
    queue.submit(["animate", "--reference", "a.png", "--driving", "walk"])
    train = queue.submit(["train", "cat.toml"], title="My 100 % cat")
    assert [job.id for job in queue.jobs(kinds=["train"])] == [train.id]
    assert queue.count(text="100 % C") == 1
    assert queue.count(text="_") == 0
    assert queue.count(("done",)) == 0
    assert queue.counts()["queued"] == 2


def test_the_last_that_ended_comes_first(queue):
    a, b = queue.submit(["motions"]), queue.submit(["motions"])
    queue.cancel(b.id)
    queue.cancel(a.id)
    assert [job.id for job in queue.jobs()] == [a.id, b.id]


def test_a_newer_schema_is_refused_and_not_touched(queue):
    import sqlite3

    from studio.errors import RequestError
    from studio.jobs import Queue

    with sqlite3.connect(queue.root / "studio.db") as database:
        database.execute("update studio_schema set version = 99")
    with pytest.raises(RequestError, match="newer version of the studio"):
        Queue(queue.root)


def test_a_file_that_is_no_database_is_told(tmp_path):
    from studio.errors import RequestError
    from studio.jobs import Queue

    (tmp_path / "studio.db").write_bytes(b"no database" * 100)
    with pytest.raises(RequestError, match="cannot be opened"):
        Queue(tmp_path)


def test_readers_are_not_kept_waiting_by_a_writer(queue):
    from studio.jobs import Queue

    job = queue.submit(["motions"])
    with queue.database.exclusive("studio queue"):
        queue.change(job.id, title="changed")
        assert Queue(queue.root).job(job.id).title == "motions"


def test_a_change_that_fails_half_way_changes_nothing(queue):
    job = queue.submit(["motions"])
    with pytest.raises(ZeroDivisionError), queue.database.exclusive("studio queue"):
        queue.change(job.id, title="changed")
        queue.tell(job.id, 1 / 0)
    assert queue.job(job.id).title == "motions"


def test_progress_is_read_from_the_end_of_the_log(tmp_path):
    from studio.jobs.job import read_progress

    log = tmp_path / "err"
    log.write_text(
        "note: a limb is cut off\n" * 3 + "denoising: 3/20 steps, 1.0 steps/s\ndecoding: 1/4 parts, peak 1 GiB\n"
    )
    progress = read_progress(log)
    assert (progress.stage, progress.share) == ("decoding", 0.25)
    assert progress.notes == ("a limb is cut off",)
    assert "1 of 4 parts" in progress.detail


def test_a_long_log_is_read_only_at_its_end(tmp_path):
    from studio.jobs.job import tail

    log = tmp_path / "err"
    log.write_bytes(b"x" * 300_000 + b"\nlast line\n")
    assert tail(log) == "last line\n"


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (["train", "a.toml", "--output-dir=runs/cat"], "train cat"),
        (["evaluate", "memorization", "/x/runs/cat"], "evaluate memorization cat"),
        (["background", "--image", "sea.png", "--prompt", "waves"], "background of sea.png"),
    ],
)
def test_titles(words, title):
    from studio.jobs.kinds import title_of

    assert title_of(words) == title


def test_another_value_of_a_flag_replaces_all_it_had():
    from studio.jobs.kinds import with_value

    assert with_value(["animate", "--seed", "1", "--seed=2", "--fps", "3"], "--seed", "9") == [
        "animate", "--fps", "3", "--seed=9"
    ]  # fmt: skip
