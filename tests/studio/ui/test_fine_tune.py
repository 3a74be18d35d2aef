"""The Fine-tune page, driven as a user does; the work runs in real processes of the command line."""

import os
import tomllib

import pytest
from PIL import Image

PAGE = "fine_tune"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_DATA", os.pathsep.join([str(tmp_path), os.environ.get("STUDIO_DATA", "")]))
    folder = tmp_path / "red things"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (40, 40), (60 * k, 0, 0)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"red number {k}")
    return folder


@pytest.fixture
def page(open_page, tiny_model, pictures, type_in):
    """The page with a tiny model, a folder, and a run of a few steps."""
    app = open_page(PAGE)
    type_in(app.selectbox(key=f"{PAGE}.model"), str(tiny_model))
    app.text_input(key=f"{PAGE}.data.0.folder").set_value(str(pictures))
    app.number_input(key=f"{PAGE}.resolution").set_value(32)
    app.number_input(key=f"{PAGE}.max_train_steps").set_value(4)
    app.number_input(key=f"{PAGE}.train_batch_size").set_value(2)
    return app.run()


def words_on(app):
    return " ".join(one.value for kind in ("caption", "success", "warning", "info", "error") for one in app.get(kind))


def test_without_data_nothing_can_be_started_and_the_page_says_why(open_page):
    app = open_page(PAGE)
    assert not app.exception
    assert app.button(key=f"{PAGE}.start").disabled
    assert "no data yet" in words_on(app)
    assert app.button(key=f"{PAGE}.check").disabled


@pytest.mark.slow
def test_a_bad_file_is_found_quarantined_and_the_rest_is_trained_with_sara(page, queue, work, pictures, runs, go_to):
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:40])
    page.button(key=f"{PAGE}.check").click().run()
    work()
    page.run()
    assert not page.exception
    (table,) = [one.value for one in page.dataframe if "severity" in one.value]
    assert list(table["file"][table["severity"] == "error"]) == ["broken.png"]
    page.button(key=f"{PAGE}.quarantine").click().run()
    work()
    page.run()
    assert not (pictures / "broken.png").exists() and (pictures / "_quarantine" / "broken.png").is_file()
    assert "4 files, 4 samples" in words_on(page) and "error" not in words_on(page)
    assert page.button(key=f"{PAGE}.restore")

    assert not page.button(key=f"{PAGE}.start").disabled
    page.button(key=f"{PAGE}.start").click().run()
    job = queue.jobs(kinds=["train"])[0]
    told = tomllib.loads((job.folder / "run.toml").read_text())
    assert told["method"] == "sara" and told["max_train_steps"] == 4
    assert told["data"] == [{"folder": str(pictures)}]
    work()
    page.run()
    assert not page.exception and not page.error
    assert "The adapter is ready" in words_on(page)
    assert (runs / "sara-red-things" / "adapter.safetensors").is_file()

    page.button(key=f"{PAGE}.open").click().run()
    app = go_to(page, "runs")
    assert not app.exception
    assert {one.label: one.value for one in app.metric}["Step"] == "4 of 4"
    assert app.get("vega_lite_chart")


def settings_on(app):
    """The TOML that the page shows."""
    return tomllib.loads(next(one.value for one in app.code if one.language == "toml"))


def test_the_threshold_is_chosen_on_the_histogram_and_counted_at_once(page):
    before = {one.label: one.value for one in page.metric}["Trained"]
    page.button_group(key=f"{PAGE}.sara.rule").set_value("threshold").run()
    slider = page.select_slider(key=f"{PAGE}.sara.threshold")
    assert {one.label: one.value for one in page.metric}["Trained"] != "0"
    slider.set_value(slider.value * 0 + max(float(word) for word in slider.options[:200])).run()
    assert not page.exception
    after = {one.label: one.value for one in page.metric}["Trained"]
    assert int(after.replace(",", "")) > int(before.replace(",", ""))
    assert settings_on(page)["method_options"].keys() == {"threshold"}
    assert page.get("vega_lite_chart")


def test_every_method_has_a_form_and_its_settings_are_valid(page):
    for method in page.selectbox(key=f"{PAGE}.method").options:
        page.selectbox(key=f"{PAGE}.method").set_value(method.partition(":")[0]).run()
        assert not page.exception and not page.button(key=f"{PAGE}.start").disabled, method


def test_the_guard_is_part_of_the_file_when_it_is_on(page):
    assert "guard" not in settings_on(page)
    page.toggle(key=f"{PAGE}.guard.on").set_value(True).run()
    page.selectbox(key=f"{PAGE}.guard.action").set_value("stop").run()
    page.number_input(key=f"{PAGE}.guard.limit").set_value(0.01).run()
    assert page.button(key=f"{PAGE}.start").disabled and "below the quantile" in words_on(page)
    page.number_input(key=f"{PAGE}.guard.limit").set_value(0.3).run()
    assert settings_on(page)["guard"] == {"action": "stop", "limit": 0.3}


def test_small_rates_and_averages_near_one_can_be_typed(page):
    page.number_input(key=f"{PAGE}.learning_rate").set_value(2e-5)
    page.number_input(key=f"{PAGE}.ema_decay").set_value(0.9995)
    page.run()
    assert settings_on(page)["learning_rate"] == 2e-5 and settings_on(page)["ema_decay"] == 0.9995


def test_captions_are_changed_where_the_owner_allows_it(page, pictures):
    page.toggle(key=f"{PAGE}.captions").set_value(True).run()
    area = page.text_area(key=f"{PAGE}.caption.{pictures / '1.png'}")
    assert area.value == "red number 1" and not area.disabled
    area.set_value("a *new* thing").run()
    assert (pictures / "1.txt").read_text() == "a *new* thing\n"


def test_a_folder_outside_of_those_that_are_declared_is_refused(page, monkeypatch, tmp_path):
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path / "elsewhere"))
    page.run()
    assert page.button(key=f"{PAGE}.start").disabled and page.button(key=f"{PAGE}.check").disabled
    assert "lies outside the folders" in words_on(page)


def test_a_model_that_is_damaged_is_told_in_words(page, tmp_path, type_in):
    folder = tmp_path / "model"
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"transformer": ["diffusers", "X"]}')
    (folder / "transformer" / "x.safetensors").write_bytes(b"\xff" * 64)
    type_in(page.selectbox(key=f"{PAGE}.model"), str(folder))
    page.run()
    assert not page.exception and "x.safetensors is damaged" in words_on(page).replace("\u2060", "")


def test_a_second_folder_is_added_and_the_first_one_taken_out(page, tmp_path):
    page.button(key=f"{PAGE}.add").click().run()
    (tmp_path / "blue").mkdir()
    page.text_input(key=f"{PAGE}.data.1.folder").set_value(str(tmp_path / "blue")).run()
    assert len(settings_on(page)["data"]) == 2
    page.button(key=f"{PAGE}.data.0.remove").click().run()
    assert settings_on(page)["data"] == [{"folder": str(tmp_path / "blue")}]


@pytest.mark.slow
def test_a_zip_is_unpacked_and_becomes_the_data(open_page, pictures, work, runs):
    import io
    import zipfile

    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w") as archive:
        for path in sorted(pictures.iterdir()):
            archive.write(path, path.name)
    app = open_page(PAGE)
    app.file_uploader(key=f"{PAGE}.zip").set_value(("my things.zip", kept.getvalue(), "application/zip")).run()
    app.button(key=f"{PAGE}.unpack").click().run()
    work()
    app.run()
    assert not app.exception and not app.error
    folder = app.text_input(key=f"{PAGE}.data.0.folder").value
    assert folder.startswith(str(runs / "uploads")) and folder.endswith("my things")
    assert not app.button(key=f"{PAGE}.start").disabled
