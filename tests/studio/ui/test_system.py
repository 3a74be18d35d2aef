"""The System page, driven as a user does."""

import json
import subprocess
import sys
import time

import pytest


def captions(app):
    return " | ".join(caption.value for caption in app.caption)


@pytest.fixture
def report(runs):
    """Leaves findings of doctor, so that no test has to wait for it."""

    def leave(*checks, error="", at=None):
        rows = checks or ({"name": "python", "ok": True, "needed": True, "found": "3.11", "fix": ""},)
        runs.mkdir(exist_ok=True)
        (runs / ".doctor.json").write_text(json.dumps({"at": at or time.time(), "checks": rows, "error": error}))

    return leave


def show(app, view):
    return app.button_group(key="system.view").set_value(view).run()


def test_a_healthy_machine_says_so(open_page, report):
    report()
    app = open_page("system")
    assert not app.exception
    assert app.success[0].value == "All that is needed is here."
    assert {metric.label for metric in app.metric} == {"Processor", "Memory free", "Disk free", "GPU"}


def test_what_is_missing_comes_first_with_the_command_that_mends_it(open_page, report):
    report({"name": "video codecs", "ok": False, "needed": True, "found": "no aac", "fix": "pip install av"},
           {"name": "xformers", "ok": False, "needed": False, "found": "absent", "fix": "pip install x"})  # fmt: skip
    app = open_page("system")
    assert "no aac" in app.error[0].value
    assert app.code[0].value == "pip install av"
    assert not app.success
    assert list(app.dataframe[0].value["what"]) == ["xformers"]


def test_the_first_visit_looks_by_itself_and_does_not_wait(open_page, runs, monkeypatch):
    from studio.health import Doctor

    begun = []
    monkeypatch.setattr(Doctor, "look", lambda doctor: begun.append(doctor.root))
    app = open_page("system")
    assert not app.exception
    assert begun == [runs]


def test_doctor_is_run_in_another_process_and_remembered(tmp_path):
    from studio.health import Doctor, last_report

    doctor = Doctor(tmp_path)
    assert doctor.look()
    doctor.wait()
    found = last_report(tmp_path)
    assert found is not None
    assert found.error == ""
    assert found.of("torch")["ok"]


def test_a_doctor_that_breaks_is_told(tmp_path, monkeypatch):
    from studio.health import Doctor, last_report

    monkeypatch.setattr(sys, "executable", "/no/such/python")
    doctor = Doctor(tmp_path)
    doctor.look()
    doctor.wait()
    assert "did not come to an end" in last_report(tmp_path).error


def test_damaged_findings_are_as_none(tmp_path):
    from studio.health import last_report

    (tmp_path / ".doctor.json").write_text('{"at": 1, "checks": [1]}')
    assert last_report(tmp_path) is None


def test_without_a_worker_the_page_says_what_happens(open_page, report, queue):
    report()
    app = show(open_page("system"), "Workers")
    assert "starts by itself" in app.info[0].value
    queue.submit(["motions"])
    app.run()
    assert "1 job in the queue and no worker is there" in app.warning[0].value


def test_a_worker_is_shown_with_its_job_and_can_be_stopped(open_page, report, queue):
    from studio.jobs.watching import watch_workers

    report()
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "jobs", "run", "--root", str(queue.root), "--device", "cpu"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not watch_workers(queue):
            assert time.monotonic() < end
            time.sleep(0.05)
        (one,) = watch_workers(queue)
        assert (one.state, one.is_here, one.worker.device) == ("waits", True, "cpu")
        app = show(open_page("system"), "Workers")
        assert not app.exception
        assert app.button(key="system.start").disabled
        assert "one for each device is enough" in captions(app)
        app.button(key=f"system.stop.{one.worker.name}").click().run()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_running_job_stands_beside_its_worker(queue):
    from dataclasses import asdict

    import sqlalchemy as sa

    from studio.jobs.tables import JOBS, WORKERS
    from studio.jobs.watching import watch_workers
    from training.owners import this_worker

    owner, job = this_worker(), queue.submit(["motions"])
    with queue.database.exclusive("studio queue") as connection:
        text = json.dumps(asdict(owner))
        connection.execute(sa.insert(WORKERS).values(name=owner.worker, machine=owner.machine, device="cpu", owner=text,
                                                     started=time.time(), beaten=time.time()))  # fmt: skip
        connection.execute(sa.update(JOBS).values(state="running", owner=text))
    (one,) = watch_workers(queue)
    assert (one.state, one.job.id) == ("works", job.id)


def test_settings_are_saved_and_read_again(open_page, report, runs):
    report()
    app = show(open_page("system"), "Settings")
    assert not app.exception
    app.number_input(key="settings.worker_idle_exit").set_value(60.0)
    app.text_area(key="settings.data_folders").set_value(str(runs))
    app.number_input(key="settings.animate.num_inference_steps").set_value(12)
    app.number_input(key="settings.uploads.picture_mb").set_value(20)
    app.button(key="settings.save").click().run()
    assert not app.exception
    assert not app.error
    from studio.settings import studio_settings

    found = studio_settings()
    assert (found.worker_idle_exit, found.data_folders) == (60.0, (runs,))
    assert (found.animate.num_inference_steps, found.uploads.picture_mb) == (12, 20)
    assert "Saved." in captions(app)


def test_a_folder_that_is_not_there_is_told_before_it_is_saved(open_page, report):
    report()
    app = show(open_page("system"), "Settings")
    app.text_area(key="settings.model_folders").set_value("/no/such/folder").run()
    assert "is no folder" in app.warning[0].value


def test_a_damaged_settings_file_is_told_and_put_aside(open_page, report, runs):
    report()
    (runs / "settings.toml").write_text("data_folders = [")
    app = show(open_page("system"), "Settings")
    assert "is not TOML" in app.error[0].value
    app.button(key="settings.anew").click().run()
    assert not app.error
    assert (runs / "settings.toml.old").read_text() == "data_folders = ["


def test_versions_and_licences_are_told(open_page, report):
    report()
    app = show(open_page("system"), "About")
    assert not app.exception
    assert "animatex-studio" in list(app.dataframe[0].value["what"])


def test_what_the_settings_say_is_what_the_animate_page_begins_with(runs, open_page):
    runs.mkdir()
    (runs / "settings.toml").write_text("[animate]\nnum_inference_steps = 11\n")
    app = open_page()
    assert app.number_input(key="animate.num_inference_steps").value == 11


def test_wrong_settings_do_not_keep_the_animate_page_from_opening(runs, open_page):
    runs.mkdir()
    (runs / "settings.toml").write_text("[animate]\nnum_inference_steps = -1\n")
    app = open_page()
    assert not app.exception
    assert app.number_input(key="animate.num_inference_steps").value is None
