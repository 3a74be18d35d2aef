"""The Compare page, driven as a user does; the work runs in real processes of the command line."""

import json

import pytest
from PIL import Image

from studio.cli.flags import parse_flags
from studio.cli.verbs.compare import CompareRequest
from studio.requests import AnimateRequest

PAGE = "compare"
SIDES = "Adapters at the same seeds"
METHODS = "Methods under the same budget"


def told(app):
    return " ".join(one.value for kind in ("caption", "success", "warning", "info", "error") for one in app.get(kind))


def view(app, name):
    return app.segmented_control(key=f"{PAGE}.view").set_value(name).run()


def player(app):
    """What the player was given."""
    (found,) = app.get("bidi_component")
    return json.loads(found.proto.json)


@pytest.fixture
def made(runs, queue, make_video):
    """Two done jobs with videos that differ, and one whose video is gone."""
    for number in range(3):
        job = queue.submit(["animate", "--reference=juice-box", "--driving=wave"], title=f"take {number}")
        output = make_video(job.folder / "animation.mp4", first=8 * number)
        queue.change(job.id, state="done", result={"output": str(output)})
    output.unlink()
    return queue


def test_without_videos_the_page_teaches(open_page):
    app = open_page(PAGE)
    assert not app.exception and "Choose two videos or more" in told(app)
    assert not app.get("bidi_component")


def test_two_videos_play_in_step_and_are_measured(open_page, made):
    app = open_page(PAGE)
    app.multiselect(key=f"{PAGE}.videos").set_value(["take 0 · job 1", "take 1 · job 2"]).run()
    assert not app.exception and not app.error
    data = player(app)
    assert (data["fps"], data["frames"]) == (12.0, 12)
    assert [video["label"] for video in data["videos"]] == ["take 0 · job 1", "take 1 · job 2"]
    assert all(video["url"].startswith("/mock/media/") or "/media" in video["url"] for video in data["videos"])
    app.toggle(key=f"{PAGE}.measure").set_value(True).run()
    assert [one.label for one in app.metric] == ["PSNR", "SSIM"]
    assert 28 < float(app.metric[0].value.split()[0]) < 32


def test_a_video_that_is_gone_is_told(open_page, made):
    app = open_page(PAGE)
    app.multiselect(key=f"{PAGE}.videos").set_value(["take 0 · job 1", "take 2 · job 3"]).run()
    assert not app.exception
    assert "is not there any more" in app.error[0].value


def test_a_path_outside_of_the_studio_is_refused(open_page):
    app = open_page(PAGE)
    app.text_input(key=f"{PAGE}.path").set_value("/etc/passwd").run()
    app.button(key=f"{PAGE}.add_path").click().run()
    assert not app.exception and "lies outside" in app.error[0].value


def test_another_page_hands_over_videos(open_page, made, go_to):
    app = open_page()
    app.session_state[f"{PAGE}.handed"] = {"videos": [made.job(1).result["output"], made.job(2).result["output"]]}
    app = go_to(app, PAGE)
    assert not app.exception
    assert len(player(app)["videos"]) == 2


def test_names_are_never_read_as_markup(open_page, made):
    made.rename(1, "<img src=x onerror=alert(1)> **bold**")
    app = open_page(PAGE)
    names = [name for name in app.multiselect(key=f"{PAGE}.videos").options if "job 1" in name or "job 2" in name]
    app.multiselect(key=f"{PAGE}.videos").set_value(names).run()
    assert not app.exception
    # the player writes labels as text; nothing else repeats them
    assert "<img" in json.dumps(player(app)) and "<img" not in told(app)


# --- variants -----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(runs, tiny_model):
    """An adapter of the tiny model, trained for two steps."""
    from studio.__main__ import main

    things = runs / "things"
    things.mkdir(parents=True)
    for k in range(4):
        Image.new("RGB", (40, 40), (60 * k, 0, 0)).save(things / f"{k}.png")
    words = ["train", "--pretrained_model_name_or_path", tiny_model, "--train_data_dir", things, "--method", "paca",
             "--max_train_steps", 2, "--set", "checkpointing_steps=1", "--train_batch_size", 2, "--resolution", 32,
             "--output-dir", runs / "red", "--device", "cpu"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    return runs / "red" / "adapter.safetensors"


def test_without_adapters_there_is_nothing_to_compare_and_the_page_says_why(open_page, queue):
    app = view(open_page(PAGE), SIDES)
    assert not app.exception
    assert app.button(key=f"{PAGE}.render").disabled
    assert "There is no adapter yet" in told(app) and "are the same" in told(app)


def test_wrong_seeds_are_told(open_page, runs):
    (runs / "red").mkdir(parents=True)
    (runs / "red" / "adapter.safetensors").write_bytes(b"x")
    app = view(open_page(PAGE), SIDES)
    assert not app.button(key=f"{PAGE}.render").disabled
    app.text_input(key=f"{PAGE}.seeds").set_value("one").run()
    assert app.button(key=f"{PAGE}.render").disabled and "such as 0, 1, 7" in told(app)


@pytest.mark.slow
def test_a_checkpoint_becomes_an_adapter_first(open_page, queue, work, adapter, tiny_model, type_in):
    app = view(open_page(PAGE), SIDES)
    assert "red, step 1" in app.selectbox(key=f"{PAGE}.variant.0").options
    app.selectbox(key=f"{PAGE}.variant.0").set_value("red, step 1")
    app.selectbox(key=f"{PAGE}.variant.1").set_value("the base model")
    app.text_input(key=f"{PAGE}.seeds").set_value("3")
    type_in(app.selectbox(key=f"{PAGE}.model"), str(tiny_model))
    app.number_input(key=f"{PAGE}.num_inference_steps").set_value(1).run()
    app.button(key=f"{PAGE}.render").click().run()
    app.selectbox(key=f"{PAGE}.side").set_value("New").run()
    app.button(key=f"{PAGE}.render").click().run()
    assert not app.exception and not app.error
    export, changed, *others = sorted(queue.jobs(limit=20), key=lambda job: job.id)
    # one adapter, which both comparisons wait for
    assert export.kind == "export" and [job.kind for job in others] == ["animate"] * 3
    assert changed.needs == others[1].needs == (export.id,) and others[0].needs == others[2].needs == ()
    for job in others:
        queue.cancel(job.id)
    work()
    assert queue.job(changed.id).state == "done", queue.job(changed.id).error
    assert (adapter.parent / "exports" / "step-1.safetensors").is_file()


@pytest.mark.slow
def test_variants_are_rendered_at_the_same_seeds_and_seen_together(
    open_page, queue, work, adapter, tiny_model, type_in
):
    app = view(open_page(PAGE), SIDES)
    app.text_input(key=f"{PAGE}.seeds").set_value("3")
    app.number_input(key=f"{PAGE}.variant.1.scale").set_value(4.0)
    type_in(app.selectbox(key=f"{PAGE}.model"), str(tiny_model))
    app.number_input(key=f"{PAGE}.num_inference_steps").set_value(1).run()
    assert "2 videos: 2 variants at 1 seeds" in told(app)
    app.button(key=f"{PAGE}.render").click().run()
    assert not app.exception and not app.error
    base, changed = (parse_flags("studio animate", AnimateRequest, queue.job(k).words[1:]) for k in (1, 2))
    assert base.seed == changed.seed == 3 and base.adapter == () and changed.adapter == (f"{adapter}:4",)
    assert "Two videos of this seed must be there" in told(app)
    work()
    app.run()
    assert not app.exception and not app.error, [one.value for one in app.error]
    assert [video["label"] for video in player(app)["videos"]] == ["the base model", "red x 4"]
    app.toggle(key=f"{PAGE}.measure_all").set_value(True).run()
    (table,) = [one.value for one in app.dataframe if "variant" in one.value]
    assert list(table["videos"]) == [1, 1] and table["PSNR"][0] == 100 > table["PSNR"][1] > 0
    app.segmented_control(key=f"{PAGE}.seed_shown").set_value("all seeds").run()
    assert not app.exception and len(app.get("video")) == 2


# --- methods ------------------------------------------------------------------------------------------------------


def test_methods_become_a_job_with_the_same_steps_and_seed(open_page, queue, runs, tiny_model):
    (runs / "things").mkdir(parents=True)
    app = view(open_page(PAGE), METHODS)
    assert not app.exception and app.button(key=f"{PAGE}.go").disabled
    text = f"model = {json.dumps(str(tiny_model))}\n[[data]]\nfolder = {json.dumps(str(runs / 'things'))}\n"
    app.text_area(key=f"{PAGE}.toml").set_value(text)
    app.multiselect(key=f"{PAGE}.methods").set_value(["lora", "sara"]).run()
    app.number_input(key=f"{PAGE}.rate.lora").set_value(1e-3)
    app.number_input(key=f"{PAGE}.steps").set_value(7)
    app.number_input(key=f"{PAGE}.seed").set_value(5).run()
    app.button(key=f"{PAGE}.go").click().run()
    assert not app.exception and not app.error, [one.value for one in app.error]
    (job,) = queue.jobs()
    asked = parse_flags("studio compare", CompareRequest, job.words[1:])
    assert asked.methods == "lora@0.001,sara" and asked.output_dir == runs / "comparisons" / "comparison"
    assert "max_train_steps = 7" in asked.config.read_text() and "seed = 5" in asked.config.read_text()
    assert app.selectbox(key=f"{PAGE}.comparison").value == "comparisons/comparison"


def test_one_method_alone_is_no_comparison(open_page, queue, runs):
    (runs / "things").mkdir(parents=True)
    app = view(open_page(PAGE), METHODS)
    app.text_area(key=f"{PAGE}.toml").set_value(f"[[data]]\nfolder = {json.dumps(str(runs / 'things'))}\n")
    app.multiselect(key=f"{PAGE}.methods").set_value(["lora"]).run()
    app.button(key=f"{PAGE}.go").click().run()
    assert not app.exception and "one method compares nothing" in app.error[0].value and not queue.jobs()


def test_a_table_is_shown_and_ready_to_paste(open_page, runs):
    folder = runs / "comparisons" / "old"
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text("{}")
    (folder / "table.md").write_text("| method | KD |\n| --- | ---: |\n| sara | 0.25 |\n| lora_a | 0.5 |\n")
    Image.new("RGB", (40, 30)).save(folder / "plot.png")
    app = view(open_page(PAGE), METHODS)
    assert not app.exception
    assert list(app.dataframe[0].value["KD"]) == [0.25, 0.5]
    assert any("| sara | 0.25 |" in code.value for code in app.code)
    app.segmented_control(key=f"{PAGE}.methods.as").set_value("LaTeX").run()
    assert any(r"lora\_a & 0.5 \\" in code.value for code in app.code)
