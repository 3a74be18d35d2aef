"""The Fine-tune page, driven as a user does; the work runs in real processes of the command line."""

import tomllib

import pytest
from PIL import Image

PAGE = "fine_tune"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path))
    folder = tmp_path / "red things"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (40, 40), (60 * k, 0, 0)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"red number {k}")
    return folder


@pytest.fixture
def page(open_page, tiny_model, pictures):
    """The page with a tiny model, a folder, and a run of a few steps."""
    app = open_page(PAGE)
    app.text_input(key=f"{PAGE}.model").set_value(str(tiny_model))
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
    assert "nothing is wrong" in words_on(page) or "0 errors" in words_on(page) or "warning" in words_on(page)
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
