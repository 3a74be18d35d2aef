"""Workers: real processes of `studio`, started, stopped and killed."""

import json
import os
import signal
import time

import psutil
import pytest


def _states(queue):
    return {job.id: job.state for job in queue.jobs(limit=1000)}


def test_jobs_run_one_after_the_other_with_their_results(queue, start_worker):
    first = queue.submit(["motions"])
    second = queue.submit(["motoins"])
    assert start_worker("--until-empty").wait(60) == 0
    done, failed = queue.job(first.id), queue.job(second.id)
    assert done.state == "done" and len(done.result["motions"]) >= 12
    assert failed.state == "failed" and "did you mean 'motions'?" in failed.error
    assert done.ended <= failed.started
    assert [text for _, text in queue.history(first.id)] == ["queued", "started for cpu (attempt 1)", "done"]


def test_a_job_waits_for_those_it_needs_and_not_for_ever_for_one_that_failed(queue, start_worker):
    bad = queue.submit(["motoins"])
    needing = queue.submit(["motions"], needs=[bad.id])
    later = queue.submit(["motions"], priority=-1)
    before = queue.submit(["motions"], needs=[later.id], priority=9)
    assert start_worker("--until-empty").wait(60) == 0
    assert queue.job(needing.id).state == "queued"
    assert queue.job(before.id).started >= queue.job(later.id).ended


def test_relative_paths_begin_where_the_job_was_submitted(queue, start_worker, tmp_path, picture):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.png").write_bytes(picture.read_bytes())
    (tmp_path / "here" / "a.txt").write_text("a figure")
    job = queue.submit(["data", "check", "."], directory=tmp_path / "here")
    start_worker("--until-empty").wait(60)
    assert queue.job(job.id).result["files"] == 1


def test_a_worker_on_a_gpu_leaves_jobs_for_others_alone(queue, start_worker):
    mine, other = queue.submit(["motions"], device="cuda:1"), queue.submit(["motions"], device="cpu")
    assert start_worker("--until-empty", "--device", "cuda:1").wait(60) == 0
    assert _states(queue) == {mine.id: "done", other.id: "queued"}


def test_a_cpu_leaves_jobs_for_any_device_to_a_gpu_that_works_beside_it(
    queue, start_worker, long_job, until, runs_now, let_go
):
    busy = long_job(device="cuda:0")
    start_worker("--device", "cuda:0")
    until(lambda: runs_now(busy))
    free, bound = queue.submit(["motions"]), queue.submit(["motions"], device="cpu")
    assert start_worker("--until-empty", "--device", "cpu").wait(60) == 0
    assert (queue.job(free.id).state, queue.job(bound.id).state) == ("queued", "done")
    let_go()
    until(lambda: queue.job(free.id).state == "done")


def test_a_second_worker_for_a_device_is_refused(queue, start_worker, until):
    start_worker()
    until(lambda: any(worker.is_alive for worker in queue.workers()))
    second = start_worker()
    assert second.wait(60) == 2
    assert "runs on this machine already" in second.stderr.read()


def test_cancelling_a_running_job_ends_all_its_processes(queue, start_worker, long_job, until, runs_now):
    from studio.jobs.process import processes_of

    job = long_job()
    start_worker()
    token = until(lambda: queue.job(job.id).token)
    runs_now(job)
    assert processes_of(token)
    assert queue.cancel(job.id).shown_state == "stopping"
    until(lambda: queue.job(job.id).state == "cancelled")
    assert not processes_of(token)


def test_a_job_that_does_not_heed_ctrl_c_is_ended_when_asked_again(queue, start_worker, long_job, until, runs_now):
    job = long_job()
    start_worker()
    runs_now(job)
    for process in _processes(queue, job):
        process.suspend()  # hears no signal but the last one
    queue.cancel(job.id)
    time.sleep(1)
    assert queue.job(job.id).shown_state == "stopping"
    queue.cancel(job.id)
    until(lambda: queue.job(job.id).state == "cancelled")


def test_a_paused_job_goes_on_later(queue, start_worker, long_job, until, runs_now, let_go):
    job = long_job()
    start_worker()
    runs_now(job)
    queue.pause(job.id)
    until(lambda: queue.job(job.id).state == "paused")
    queue.resume(job.id)
    runs_now(job, attempt=2)
    let_go()
    until(lambda: queue.job(job.id).state == "done")
    assert queue.job(job.id).attempt == 2


def test_a_worker_that_is_stopped_puts_its_job_back(queue, start_worker, long_job, runs_now):
    job = long_job()
    worker = start_worker()
    runs_now(job)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert queue.job(job.id).state == "queued"
    assert queue.workers() == []


def test_a_killed_workers_job_lives_on_and_the_next_worker_takes_it_over(
    queue, start_worker, long_job, until, runs_now, let_go
):
    job = long_job()
    worker = start_worker()
    runs_now(job)
    pid = psutil.Process(worker.pid).children()[0].pid
    worker.kill()
    worker.wait()
    assert psutil.pid_exists(pid)
    second = start_worker("--until-empty")
    until(lambda: "another one watches it now" in str(queue.history(job.id)))
    let_go()
    assert second.wait(60) == 0
    ended = queue.job(job.id)
    assert (ended.state, ended.attempt) == ("done", 1)


def test_a_job_asked_to_end_while_no_worker_was_there_ends_with_the_next_one(
    queue, start_worker, long_job, until, runs_now
):
    job = long_job()
    worker = start_worker()
    runs_now(job)
    worker.kill()
    worker.wait()
    queue.cancel(job.id)
    start_worker()
    until(lambda: queue.job(job.id).state == "cancelled")


def test_a_job_whose_process_is_killed_is_begun_again_and_fails_the_third_time(
    queue, start_worker, long_job, until, runs_now
):
    job = long_job()
    start_worker()
    for attempt in (1, 2, 3):
        runs_now(job, attempt=attempt)
        for process in _processes(queue, job):
            process.kill()
    until(lambda: queue.job(job.id).state == "failed")
    assert "ended 3 times without a result, as when memory runs out" in queue.job(job.id).error


def _processes(queue, job):
    from studio.jobs.process import processes_of

    return processes_of(queue.job(job.id).token)


def test_a_machine_that_lost_its_power_begins_the_job_again(queue, start_worker):
    """Nothing lives on: the database says that a worker of a boot before has the job."""
    from dataclasses import asdict

    from studio.jobs.process import new_token
    from training.owners import this_worker

    job = queue.submit(["motions"])
    gone = {**asdict(this_worker()), "pid": 2**22 + 1, "born": "1"}
    queue.change(job.id, state="running", token=new_token(), owner=gone, beaten=time.time(), attempt=1)
    assert start_worker("--until-empty").wait(60) == 0
    assert (queue.job(job.id).state, queue.job(job.id).attempt) == ("done", 2)


def test_another_machines_job_is_left_alone_until_it_was_silent_for_long(queue, start_worker):
    from dataclasses import asdict

    from studio.jobs.process import new_token
    from training.owners import this_worker

    job = queue.submit(["motions"])
    elsewhere = {**asdict(this_worker()), "machine": "another"}
    queue.change(job.id, state="running", token=new_token(), owner=elsewhere, beaten=time.time(), attempt=1)
    worker = start_worker("--idle-exit", "2")
    assert worker.wait(60) == 0
    assert queue.job(job.id).state == "running"
    queue.change(job.id, beaten=time.time() - 600)
    assert start_worker("--until-empty").wait(60) == 0
    assert queue.job(job.id).state == "done"


def test_a_process_that_comes_too_late_does_nothing(queue, tmp_path):
    """A worker was killed after it had started a process; by the time that one looks, its attempt is over."""
    from studio.jobs.process import ATTEMPT, STALE, spawn

    job = queue.submit(["motions"])
    (job.folder / ATTEMPT).write_text("another attempt")
    process = spawn(job.folder, job.words, attempt=1, token="late", directory=tmp_path, environment={})
    assert process.wait(60) == STALE
    assert not job.log("out", 1).exists()


def test_a_process_finds_the_lock_taken_and_leaves(queue, tmp_path):
    import fcntl

    from studio.jobs.process import ATTEMPT, LOCK, STALE, is_locked, spawn

    job = queue.submit(["motions"])
    (job.folder / ATTEMPT).write_text("mine")
    with (job.folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_locked(job.folder)
        process = spawn(job.folder, job.words, attempt=1, token="mine", directory=tmp_path, environment={})
        assert process.wait(60) == STALE
    assert not is_locked(job.folder)


def test_a_folder_that_cannot_be_written_fails_the_job_and_not_the_worker(queue, start_worker):
    job, fine = queue.submit(["motions"]), queue.submit(["motions"])
    job.folder.rmdir()
    job.folder.write_text("a file is in the way")
    assert start_worker("--until-empty").wait(60) == 0
    assert queue.job(job.id).state == "failed"
    assert "could not be started" in queue.job(job.id).error
    assert queue.job(fine.id).state == "done"


def test_a_training_goes_on_from_its_checkpoint(tmp_path):
    from studio.jobs.kinds import words_to_go_on

    words = ["train", "cat.toml", "--output-dir", "runs/cat"]
    assert words_to_go_on(words, tmp_path) == words
    (tmp_path / "runs" / "cat").mkdir(parents=True)
    (tmp_path / "runs" / "cat" / "latest").write_text("checkpoint-3")
    assert words_to_go_on(words, tmp_path) == ["resume", str(tmp_path / "runs" / "cat")]


def test_a_worker_is_started_in_the_background_once_and_leaves_when_idle(queue, until):
    from studio.jobs.worker import ensure_worker

    job = queue.submit(["motions"])
    assert ensure_worker(queue, idle_exit_s=1)
    until(lambda: queue.job(job.id).state == "done")
    assert not ensure_worker(queue)
    until(lambda: queue.workers() == [])


def test_a_job_for_the_cpu_gets_a_worker_beside_that_of_the_gpu(queue, monkeypatch):
    from studio.jobs import worker

    started = []
    monkeypatch.setattr(worker, "first_device", lambda: "cuda:0")
    monkeypatch.setattr(worker, "start_worker", lambda queue, device, idle_exit_s: started.append(device))
    for words in (["motions"], ["train", "--device", "cpu"], ["train", "--device=cuda"], ["train", "--device=cuda:1"]):
        queue.submit(words)
    assert worker.ensure_worker(queue)
    assert started == ["cpu", "auto", "cuda:1"]
    started.clear()
    monkeypatch.setattr(worker, "first_device", lambda: "cpu")  # of several machines, one without a GPU
    worker.ensure_worker(queue)
    assert started == ["auto"]


@pytest.mark.parametrize(("first", "there", "expected"), [
    ("cuda:0", {"cpu"}, ["auto"]), ("cuda:0", {"cuda:1"}, []), ("cuda:0", set(), ["auto"]), ("cpu", {"cpu"}, []),
])  # fmt: skip
def test_what_is_for_any_device_gets_a_worker_on_the_gpu_and_nothing_else_does(
    queue, monkeypatch, first, there, expected
):
    from studio.jobs import worker

    started = []
    monkeypatch.setattr(worker, "first_device", lambda: first)
    monkeypatch.setattr(worker, "_devices_at_work", lambda queue: there)
    monkeypatch.setattr(worker, "start_worker", lambda queue, device, idle_exit_s: started.append(device))
    queue.submit(["motions"], device="cpu")
    if there:
        worker.ensure_worker(queue)
        assert started == (["cpu"] if "cpu" not in there else [])
        started.clear()
    queue.submit(["motions"])
    worker.ensure_worker(queue)
    assert [name for name in started if name != "cpu"] == expected


def test_a_gpu_without_a_number_is_the_first_for_workers_and_jobs(queue, start_worker):
    named, plain = queue.submit(["motions"], device="cuda:0"), queue.submit(["motions"], device="cuda")
    assert start_worker("--until-empty", "--device", "cuda").wait(60) == 0
    assert _states(queue) == {named.id: "done", plain.id: "done"}


def test_two_machines_on_one_database_share_the_jobs_and_take_over_from_each_other(shared_queue):
    """PostgreSQL: two workers of one queue, one of which is killed; no job is lost or runs twice."""
    import subprocess
    import sys

    queue = shared_queue
    address = queue.database.url.render_as_string(hide_password=False).replace("+psycopg", "")
    jobs = [queue.submit(["motions"], title=str(number)) for number in range(6)]

    def worker(device):
        return subprocess.Popen(
            [sys.executable, "-m", "studio", "jobs", "run", "--root", str(queue.root), "--database", address,
             "--device", device, "--until-empty"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    first, second = worker("cuda:0"), worker("cuda:1")
    end = time.monotonic() + 60
    while not queue.jobs(("done",)):
        assert time.monotonic() < end
        time.sleep(0.05)
    first.kill()
    first.communicate()
    assert second.wait(120) == 0, second.stderr.read()
    second.communicate()
    for job in jobs:
        told = [text for _, text in queue.history(job.id)]
        assert told.count("done") == 1, told
    told = " ".join(text for job in jobs for _, text in queue.history(job.id))
    assert "started for cuda:0" in told and "started for cuda:1" in told


def test_the_command_line_does_what_the_app_does(queue, capsys):
    from studio.cli.run import main

    def studio(*words):
        code = main(["jobs", *words, "--root", str(queue.root), "--json"])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    code, job = studio("submit", "animate --reference rabbit --driving wave --seed 3", "--title", "My rabbit")
    assert (code, job["state"], job["title"]) == (0, "queued", "My rabbit")
    code, clone = studio("clone", str(job["id"]), "--change", "seed=7")
    assert clone["command"].endswith("--seed=7") and clone["command"].count("--seed") == 1
    assert studio("pause", str(job["id"]))[1]["state"] == "paused"
    assert studio("resume", str(job["id"]))[1]["state"] == "queued"
    assert studio("move", str(clone["id"]))[0] == 0
    assert [one["id"] for one in studio("list")[1]["jobs"]] == [clone["id"], job["id"]]
    assert studio("cancel", str(job["id"]))[1]["state"] == "cancelled"
    assert studio("retry", str(job["id"]))[1]["state"] == "queued"
    assert studio("logs", str(job["id"]))[1]["state"] == "queued"
    assert studio("cancel", str(clone["id"]))[0] == 0
    assert studio("forget", str(clone["id"]))[0] == 0
    assert studio("show", str(clone["id"]))[0] == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("motoins", "did you mean 'motions'"),
        ("animate --reference rabbit", "driving"),
        ("animate 'rabbit", "close the quotes"),
        ("animate --help", "only shows help"),
    ],
)
def test_a_command_that_cannot_run_never_gets_into_the_queue(queue, capsys, command, message):
    from studio.cli.run import main

    assert main(["jobs", "submit", command, "--root", str(queue.root)]) == 2
    assert message in capsys.readouterr().err
    assert queue.count() == 0


def test_workers_do_not_load_torch(queue, start_worker, until):
    """They wait for days beside trainings that need the memory."""
    worker = start_worker()
    until(lambda: any(row.is_alive for row in queue.workers()))
    assert not [m.path for m in psutil.Process(worker.pid).memory_maps() if "libtorch" in m.path]
    assert os.path.exists(queue.root / "studio.db")
