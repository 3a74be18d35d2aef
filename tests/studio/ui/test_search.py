"""The Search page, driven as a user does; the work runs in real processes of the command line."""

import json
import tomllib

import pytest
from PIL import Image

from studio.cli.flags import parse_flags
from studio.cli.verbs.search import SearchRequest

PAGE = "search"
TRIALS = [
    ("0000", [(0, 0.9, 0.05)]),
    ("1111", [(10, 0.5, 0.2), (20, 0.2, 0.45)]),
    ("1010", [(10, 0.4, 0.06), (20, 0.3, 0.10)]),
]


@pytest.fixture
def study(make_study, runs):
    return make_study(runs / "searches" / "first", TRIALS)


@pytest.fixture
def things(runs):
    """Pictures that do not look alike, so that they may lie on both sides."""
    import torch

    folder = runs / "things"
    folder.mkdir(parents=True)
    for k in range(52):
        colours = torch.randint(256, (8, 8, 3), generator=torch.Generator().manual_seed(k)).byte()
        Image.fromarray(colours.numpy()).resize((32, 32)).save(folder / f"{k}.png")
    return folder


def toml(model, things):
    return (
        f"model = {json.dumps(str(model))}\nmethod = 'full'\nresolution = 32\nmax_train_steps = 4\n"
        "train_batch_size = 2\nvalidation_share = 0.8\nmixed_precision = 'fp32'\n"
        f"[[data]]\nfolder = {json.dumps(str(things))}\n"
        "[search]\nlearning_rate = [0.001, 0.02]\nsamples = 16\nfinal_samples = 16\nnum_inference_steps = 2\n"
        "checkpoints = [2, 4]\nreference = [8, 1.1]\n"
    )


def told(app):
    return " ".join(one.value for kind in ("caption", "success", "warning", "info", "error") for one in app.get(kind))


def test_without_a_study_the_page_teaches_and_says_what_is_missing(open_page):
    app = open_page(PAGE)
    assert not app.exception and not app.error
    assert app.button(key=f"{PAGE}.go").disabled and "come first" in told(app)
    app.segmented_control(key=f"{PAGE}.view").set_value("Studies").run()
    assert not app.exception
    assert "There is no study yet" in told(app)


def test_a_study_is_shown_and_a_limit_moves_what_is_recommended(open_page, study):
    app = open_page(PAGE)
    assert not app.exception
    assert [one.label for one in app.metric] == ["Trials", "Steps", "Time", "Hypervolume"]
    assert "2:20" in app.selectbox(key=f"{PAGE}.point").format_func("the recommended one")
    assert "2 of 4 sites are trained: blocks.0.attn1, blocks.1.attn1." in told(app)
    app.slider(key=f"{PAGE}.limit.{study}").set_value(0.07).run()
    assert "2:10" in app.selectbox(key=f"{PAGE}.point").format_func("the recommended one")
    app.slider(key=f"{PAGE}.limit.{study}").set_value(0.04).run()
    assert "No point is within the limit" in told(app)
    app.selectbox(key=f"{PAGE}.point").set_value("1:20").run()
    assert "All 4 sites are trained." in told(app)


def test_without_its_setup_a_study_is_read_but_not_trained(open_page, study):
    app = open_page(PAGE)
    assert app.button(key=f"{PAGE}.train").disabled and app.button(key=f"{PAGE}.go_on").disabled
    assert told(app).count("setup.json is missing") == 2


def test_a_damaged_ledger_is_one_message(open_page, study):
    (study / "ledger.jsonl").write_text('{"entry": "nonsense"}\n{"entry": "nonsense"}\n')
    app = open_page(PAGE)
    assert not app.exception
    assert len(app.error) == 1 and "no entry of a study" in app.error[0].value.replace("\\", "")


def test_an_address_names_studies_of_the_list_only(open_page, study, tmp_path, make_study, go_to):
    make_study(tmp_path / "elsewhere", TRIALS)
    app = open_page()
    app.query_params["study"] = "../elsewhere"
    app = go_to(app, PAGE)
    assert app.selectbox(key=f"{PAGE}.place").value == "searches/first"


def test_a_folder_outside_of_the_studio_is_refused(open_page, study):
    app = open_page(PAGE)
    app.selectbox(key=f"{PAGE}.place").set_value("Another folder").run()
    app.text_input(key=f"{PAGE}.folder").set_value("/etc").run()
    assert not app.exception and "lies outside" in app.error[0].value


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("model = ", "this is no TOML"),
        ("[[data]]\nfolder = '/etc'", "lies outside"),
        ("[[data]]\nfolder = 'THINGS'\n[search]\nsampels = 3", "sampels"),
    ],
)
def test_wrong_settings_are_told_and_nothing_starts(open_page, queue, things, text, wrong):
    app = open_page(PAGE)
    app.text_area(key=f"{PAGE}.toml").set_value(text.replace("THINGS", str(things))).run()
    assert not app.exception
    assert any(wrong in error.value for error in app.error), [error.value for error in app.error]
    assert app.button(key=f"{PAGE}.go").disabled and not queue.jobs()


def test_the_form_becomes_a_job_with_its_toml_and_the_page_goes_to_the_study(
    open_page, queue, tiny_model, things, runs
):
    app = open_page(PAGE)
    app.text_area(key=f"{PAGE}.toml").set_value(toml(tiny_model, things)).run()
    # the table [search] of the TOML stands in the form
    assert (
        app.number_input(key=f"{PAGE}.samples").value == 16
        and app.text_input(key=f"{PAGE}.checkpoints").value == "2, 4"
    )
    app.selectbox(key=f"{PAGE}.sites").set_value("blocks")
    app.selectbox(key=f"{PAGE}.strategy").set_value("random")
    app.number_input(key=f"{PAGE}.trials").set_value(3)
    app.number_input(key=f"{PAGE}.limit").set_value(0.5)
    app.text_input(key=f"{PAGE}.name").set_value("../mine").run()
    assert any("studio search search.toml" in code.value for code in app.code)
    app.button(key=f"{PAGE}.go").click().run()
    assert not app.exception and not app.error
    (job,) = queue.jobs()
    asked = parse_flags("studio search", SearchRequest, job.words[1:])
    assert (asked.strategy, asked.trials) == ("random", 3)
    assert asked.output_dir.parent == runs / "searches" and asked.output_dir.name != ".."
    written = tomllib.loads(asked.config.read_text())
    assert written["search"]["sites"] == "blocks" and written["search"]["limit"] == 0.5
    assert "Nothing is measured yet" in told(app)


def test_a_setting_of_the_runs_that_is_wrong_is_told_before_a_job_is_made(open_page, queue, tiny_model, things):
    app = open_page(PAGE)
    app.text_area(key=f"{PAGE}.toml").set_value("max_train_stepps = 3\n" + toml(tiny_model, things)).run()
    app.button(key=f"{PAGE}.go").click().run()
    assert not app.exception and not queue.jobs()
    assert "max_train_stepps" in app.error[0].value.replace("\\", "")


@pytest.mark.slow
def test_a_search_runs_is_shown_goes_on_and_its_best_is_trained(open_page, queue, work, tiny_model, things, runs):
    app = open_page(PAGE)
    app.text_area(key=f"{PAGE}.toml").set_value(toml(tiny_model, things)).run()
    app.number_input(key=f"{PAGE}.trials").set_value(3).run()
    app.button(key=f"{PAGE}.go").click().run()
    work()
    assert queue.job(1).state == "done", queue.job(1).error
    app.run()
    assert not app.exception and not app.error
    assert app.metric[0].value == "3"
    study = runs / "searches" / "study"
    front = json.loads((study / "front.json").read_text())["front"]
    point = next(row for row in front if row["sites"])
    app.selectbox(key=f"{PAGE}.point").set_value(point["name"]).run()
    captions = [image.proto.imgs[0].caption for image in app.get("image")]
    assert captions == [f"What {point['name']} makes of the captions", "The same from the model before"]
    app.number_input(key=f"{PAGE}.pictures").set_value(2 * 11).run()
    app.button(key=f"{PAGE}.train").click().run()
    assert not app.exception and not app.error, app.error
    train = queue.job(2)
    told_so = tomllib.loads((train.folder / "train.toml").read_text())
    assert told_so["scope"] == point["sites"] and told_so["max_train_steps"] == 2 * point["step"]
    app.number_input(key=f"{PAGE}.more").set_value(1).run()
    app.button(key=f"{PAGE}.go_on").click().run()
    work()
    assert queue.job(2).state == "done", queue.job(2).error
    assert queue.job(3).state == "done", queue.job(3).error
    assert queue.job(3).result["trials"] == 4
    # a next study of the same model and method knows how long it takes
    app.segmented_control(key=f"{PAGE}.view").set_value("New study").run()
    assert "at most for 3 runs of 4 steps" in told(app)
