"""What a job made is in the library when the job is done, whatever happens there."""

import os

import pytest


@pytest.fixture
def work(queue):
    def run():
        from studio.jobs import Worker

        said = []
        Worker(queue, "cpu", poll_s=0.05, on_event=said.append).run(until_empty=True)
        return said

    return run


@pytest.fixture
def draw(queue, tmp_path):
    """Submits a job that draws a skeleton video, with a keypoint file made before."""

    def submit(output):
        import torch

        from pose.motions import make_motion
        from pose.readers import write_keypoints

        del torch
        keypoints = tmp_path / "k.json"
        write_keypoints(keypoints, make_motion("wave", num_frames=3, frame_size=(64, 64)))
        return queue.submit(["pose", "draw", str(keypoints), "--output", str(output)])

    return submit


def test_the_output_of_a_job_is_in_the_library_at_its_end(queue, library, draw, work):
    job = draw(queue.root / "made" / "skeleton.mp4")
    work()
    assert queue.job(job.id).state == "done", queue.job(job.id).error
    (thing,) = library.search(kinds=["result"])
    assert (thing.path, thing.job) == ("made/skeleton.mp4", job.id)
    library.rescan()
    assert library.count(kinds=["result"]) == 1


def test_what_a_job_made_outside_of_the_runs_folder_is_not_listed(queue, library, draw, work, tmp_path):
    job = draw(tmp_path / "elsewhere.mp4")
    work()
    assert queue.job(job.id).state == "done"
    assert library.count(kinds=["result"]) == 0


def test_a_library_that_breaks_does_not_fail_the_job(queue, draw, work, monkeypatch):
    def broken(*_):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("studio.library.scan.take_in_job", broken)
    job = draw(queue.root / "made.mp4")
    said = work()
    assert queue.job(job.id).state == "done"
    assert any("could not take in" in text for text in said)


def test_a_finished_run_below_the_runs_folder_is_taken_in(queue, library, make_run):
    from studio.library.scan import take_in_job

    folder = make_run()
    job = queue.submit(["train", "--output-dir", os.path.relpath(folder, queue.root)], directory=queue.root)
    assert take_in_job(queue, job) == 2
    assert [thing.job for thing in library.search("cat", kinds=["run", "adapter"])] == [job.id, job.id]
