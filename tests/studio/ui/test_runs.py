"""The Runs page: queue and history, and what a run has told."""

import json
import tomllib

import pytest
from PIL import Image

PAGE = "runs"


def write_run(run, steps=30):
    """A run's folder as the trainer leaves it."""
    (run / "samples").mkdir(parents=True)
    (run / "config.toml").write_text(
        '[finetune]\nmodel = "mini"\nmethod = "paca"\n[[finetune.data]]\nfolder = "/data"\n'
    )
    rows = [{"event": "note", "step": 0, "text": "paca trains 5 of 9", "counts": {}}]
    rows += [
        {"event": "step", "step": k, "total_steps": steps, "losses": {"loss": 1 / k}, "learning_rate": 1e-4,
         "seconds": 0.5, "peak_bytes": 10**9} for k in range(1, steps + 1)
    ]  # fmt: skip
    rows += [{"event": "evaluated", "step": steps, "metrics": {"validation_loss": 0.5}}]
    for step in (10, 20, 30):
        Image.new("RGB", (64, 32), (step, 0, 0)).save(run / "samples" / f"step-{step}.png")
        rows.append({"event": "sampled", "step": step, "path": "", "prompts": ["a *red* thing", "b"]})
    (run / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "checkpoint-30").mkdir()
    (run / "checkpoint-30" / "state.json").write_text("{}")
    (run / "latest").write_text("checkpoint-30")
    (run / "README.md").write_text("# <b>card</b>")


@pytest.fixture
def run(runs):
    write_run(runs / "mine")
    return runs / "mine"


@pytest.fixture
def show(open_page):
    """Opens the page, with a job."""

    def opened(job=None, view=None):
        app = open_page()
        if job is not None:
            app.session_state[f"{PAGE}.job"] = job.id
        if view is not None:
            app.session_state[f"{PAGE}.view"] = view
        app._page_hash = app.session_state["pages"][PAGE]._script_hash
        app.run()
        assert not app.exception, app.exception[0].message
        return app

    return opened


def table(app):
    return next(one.value for one in app.dataframe if "what" in one.value and "job" in one.value)


def test_without_jobs_the_page_says_what_will_be_here(show):
    assert "No jobs yet" in show().info[0].value


def test_jobs_are_found_by_state_kind_and_title(show, queue):
    queue.submit(["motions"], title="one *two*")
    queue.cancel(queue.submit(["animate", "--reference=rabbit", "--driving=wave"], title="three").id)
    app = show()
    assert list(table(app)["what"]) == ["one *two*", "three"]
    app.button_group(key=f"{PAGE}.state").set_value("Cancelled").run()
    assert list(table(app)["what"]) == ["three"]
    app.button_group(key=f"{PAGE}.state").set_value("All").run()
    app.text_input(key=f"{PAGE}.find").set_value("*two").run()
    assert list(table(app)["what"]) == ["one *two*"]
    app.selectbox(key=f"{PAGE}.kind").set_value("animate").run()
    assert "No job is like that" in app.info[0].value


def test_of_a_thousand_jobs_a_page_is_drawn(show, queue):
    with queue.database.exclusive("studio queue"):  # one transaction, which is quicker
        for number in range(1000):
            queue.submit(["motions"], title=f"job {number}")
    app = show()
    assert len(table(app)) == 50
    app.number_input(key=f"{PAGE}.page").set_value(20).run()
    assert next(iter(table(app)["what"])) == "job 950"
    assert len(table(app)) == 50


def test_waiting_jobs_are_moved_paused_and_cancelled(show, queue):
    first, second, third = (queue.submit(["motions"], title=name) for name in ("first", "second", "third"))
    app = show(third)
    app.button(key=f"{PAGE}.front").click().run()
    assert [job.title for job in queue.jobs(("queued",))] == ["third", "first", "second"]
    app.selectbox(key=f"{PAGE}.before.{third.id}").set_value(second.id).run()
    assert [job.title for job in queue.jobs(("queued",))] == ["first", "third", "second"]
    app.number_input(key=f"{PAGE}.priority.{third.id}").set_value(5).run()
    assert queue.job(third.id).priority == 5 and queue.jobs(("queued",))[0].title == "third"
    app.button(key=f"watch.{third.id}.pause").click().run()
    assert queue.job(third.id).state == "paused"
    app.button(key=f"watch.{third.id}.cancel").click().run()
    assert queue.job(third.id).state == "cancelled"
    app.run()
    app.button(key=f"{PAGE}.{third.id}.retry").click().run()
    assert queue.job(third.id).state == "queued" and not app.exception
    assert first.id != second.id


def test_a_failed_job_shows_its_message_its_log_and_a_way_to_try_again(show, queue, work):
    job = queue.submit(["data", "check", "/nowhere/*at all*"])
    work()
    app = show(queue.job(job.id), "Log")
    assert "no such file or folder" in app.error[0].value
    assert any("no such file or folder" in one.value for one in app.code)
    assert app.button(key=f"{PAGE}.{job.id}.retry")


def test_the_result_and_the_history_of_a_done_job_are_shown(show, queue, work):
    job = queue.submit(["motions"])
    work()
    app = show(queue.job(job.id), "Result")
    assert len(json.loads(app.json[0].value)["motions"]) >= 12
    app = show(queue.job(job.id), "History")
    history = next(one.value for one in app.dataframe if list(one.value.columns) == ["when", "what"])
    assert history["what"].iloc[-1] == "done"


def test_a_training_shows_loss_measurements_samples_and_checkpoints(show, queue, run):
    job = queue.submit(["train", "x.toml", f"--output-dir={run}"])
    queue.cancel(job.id)
    app = show(queue.job(job.id), "Loss")
    assert {one.label: one.value for one in app.metric}["Step"] == "30 of 30"
    assert len(app.get("vega_lite_chart")) == 4
    app.slider(key=f"{PAGE}.smoothing").set_value(0.5).run()
    assert not app.exception
    app = show(queue.job(job.id), "Samples")
    app.select_slider(key=f"{PAGE}.sample.{run}").set_value(10).run()
    assert len(app.image) == 4 and not app.exception
    app = show(queue.job(job.id), "Checkpoints")
    assert list(next(one.value for one in app.dataframe if "latest" in one.value)["step"]) == [30]
    app = show(queue.job(job.id), "Memorization")
    assert "Nothing has looked for copies" in " ".join(one.value for one in app.info)


def test_an_adapter_is_handed_to_animate_and_exported(show, queue, run):
    (run / "adapter.safetensors").write_bytes(b"x")
    job = queue.submit(["train", "x.toml", f"--output-dir={run}"])
    queue.cancel(job.id)
    app = show(queue.job(job.id), "Checkpoints")
    app.selectbox(key=f"{PAGE}.export.format").set_value("merged").run()
    app.button(key=f"{PAGE}.export.go").click().run()
    (made,) = queue.jobs(kinds=["export"])
    assert made.words == ("export", str(run), "--format=merged", f"--output={run}/exports/mine-merged")
    app.button(key=f"{PAGE}.use").click().run()
    assert app.title[0].value == "Animate"
    assert app.multiselect(key="animate.adapters").value == [str(run / "adapter.safetensors")]


def test_a_checkpoint_becomes_an_adapter_of_its_own(show, queue, run):
    job = queue.submit(["train", "x.toml", f"--output-dir={run}"])
    queue.cancel(job.id)
    app = show(queue.job(job.id), "Checkpoints")
    source = app.selectbox(key=f"{PAGE}.export.source.mine")
    assert source.value == "step 30"
    app.selectbox(key=f"{PAGE}.export.format").set_value("adapter").run()
    app.button(key=f"{PAGE}.export.go").click().run()
    (made,) = queue.jobs(kinds=["export"])
    assert {"--checkpoint=30", "--format=adapter", f"--output={run}/exports/step-30.safetensors"} <= set(made.words)
    (run / "adapter.safetensors").write_bytes(b"x")
    app.run()
    app.selectbox(key=f"{PAGE}.export.source.mine").set_value("the finished adapter").run()
    assert not app.exception and "which the run has already" in " ".join(one.value for one in app.caption)


def test_a_run_without_a_job_is_shown_and_goes_on(show, queue, run):
    queue.submit(["motions"])
    app = show()
    app.button_group(key=f"{PAGE}.what").set_value("From a terminal").run()
    assert app.selectbox(key=f"{PAGE}.folder").value == "mine"
    assert {one.label: one.value for one in app.metric}["Step"] == "30 of 30"
    app.button_group(key=f"{PAGE}.view").set_value("Checkpoints").run()
    app.button(key=f"{PAGE}.resume").click().run()
    (made,) = queue.jobs(kinds=["resume"])
    assert made.words == ("resume", str(run)) and not app.exception


def test_a_clone_shows_what_differs_and_keeps_the_first_one(show, queue, tmp_path):
    folder = queue.new_folder()
    (folder / "run.toml").write_text('method = "sara"\n[[data]]\nfolder = "/data"\n')
    job = queue.submit(["train", str(folder / "run.toml"), f"--output-dir={tmp_path}/x"], folder=folder)
    queue.cancel(job.id)
    app = show(queue.job(job.id))
    page = f"{PAGE}.clone.{job.id}"
    app.text_area(key=f"{page}.toml").set_value('method = "paca"\n[[data]]\nfolder = "/data"\n').run()
    differs = next(one.value for one in app.code if one.language == "diff")
    assert '- method = "sara"' in differs and '+ method = "paca"' in differs
    app.text_area(key=f"{page}.words").set_value(f"train {folder}/run.toml --output-dir={tmp_path}/y --oops=1").run()
    app.button(key=f"{page}.go").click().run()
    assert "--oops" in app.error[0].value and queue.count() == 1
    app.text_area(key=f"{page}.words").set_value(f"train {folder}/run.toml --output-dir={tmp_path}/y").run()
    app.button(key=f"{page}.go").click().run()
    made = queue.jobs(("queued",))[0]
    assert made.cloned_from == job.id and made.folder != folder
    assert tomllib.loads((made.folder / "run.toml").read_text())["method"] == "paca"
    assert tomllib.loads((folder / "run.toml").read_text())["method"] == "sara"


def test_a_training_goes_back_into_the_form(show, queue, run, go_to):
    job = queue.submit(["train", "x.toml", f"--output-dir={run}"])
    queue.cancel(job.id)
    app = show(queue.job(job.id), "Checkpoints")
    app.button(key=f"{PAGE}.again").click().run()
    app = go_to(app, "fine_tune")
    assert not app.exception
    assert app.selectbox(key="fine_tune.method").value == "paca"
    assert app.text_input(key="fine_tune.data.0.folder").value == "/data"


def test_an_ended_job_can_be_renamed_and_forgotten(show, queue):
    job = queue.submit(["motions"])
    queue.cancel(job.id)
    app = show(queue.job(job.id))
    app.text_input(key=f"{PAGE}.title.{job.id}").set_value("better").run()
    app.button(key=f"{PAGE}.rename.{job.id}").click().run()
    assert queue.job(job.id).title == "better"
    app.button(key=f"{PAGE}.forget").click().run()
    assert queue.count() == 0 and not app.exception
