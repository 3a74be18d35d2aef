"""The Library page, driven as a user does, over things made by hand."""

import json

import pytest


@pytest.fixture
def make_result(queue):
    """Writes a video with its sidecar and sheet; gives the video."""

    def make(prompt="a red figure", seed=7, count=1, **request):
        from PIL import Image

        folder = queue.new_folder()
        for number in range(count):
            video = folder / f"video-{number}.mp4"
            video.write_bytes(b"not really a video")
            asked = {"model": "mini", "reference": "juice-box", "driving": "wave", "prompt": prompt,
                     "seed": seed + number, "output": str(video), **request}  # fmt: skip
            told = {"schema": "animatex-studio/animation", "request": asked,
                    "output": {"frames": 17, "width": 64, "height": 96, "fps": 12.0}}  # fmt: skip
            video.with_suffix(".json").write_text(json.dumps(told))
        Image.new("RGB", (64, 32), (200, 30, 30)).save(video.with_suffix(".png"))
        return video

    return make


@pytest.fixture
def library(queue):
    from studio.library import Library

    return Library(queue)


def labels(app):
    return [button.label for button in app.button]


def captions(app):
    return " | ".join(caption.value for caption in app.caption)


def opened(app, library, **where):
    """Opens the one thing of a search, as a click on its card does."""
    (thing,) = library.search(**where)
    app.button(key=f"library.open.{thing.id}").click().run()
    assert not app.exception
    return thing


def test_an_empty_library_says_how_to_fill_it(open_page):
    app = open_page("library")
    assert not app.exception
    assert "Animate a character" in app.info[0].value
    assert app.button(key="library.first").label == "Animate a character"


def test_what_came_with_the_studio_is_there_at_once(open_page):
    app = open_page("library")
    app.button_group(key="library.view").set_value("character").run()
    assert "6 things" in captions(app)
    assert "juice\\-box" in labels(app) or "juice-box" in labels(app)


def test_a_result_is_a_card_and_opens_with_all_that_is_known_of_it(open_page, make_result, library):
    make_result()
    app = open_page("library")
    assert "seed 7 · 17 frames" in captions(app)
    opened(app, library, kinds=["result"])
    assert [text.value for text in app.text] == ["a red figure"]
    assert app.code[0].value.startswith("studio animate --seed=7 --reference=juice-box --driving=wave")
    rows = dict(zip(*(app.dataframe[0].value[name] for name in ("what", "value")), strict=True))
    assert rows["Seed"] == "7"
    assert app.get("video")


def test_settings_are_used_again_on_the_animate_page(open_page, make_result, library):
    make_result(prompt="a *blue* figure", seed=41)
    app = open_page("library")
    opened(app, library, kinds=["result"])
    app.button(key="library.use").click().run()
    assert not app.exception
    assert app.title[0].value == "Animate"
    assert app.number_input(key="animate.seed").value == 41
    assert app.text_area(key="animate.prompt").value == "a *blue* figure"
    assert "thing" not in app.query_params


def test_a_motion_is_used_on_the_animate_page(open_page, library):
    app = open_page("library")
    app.button_group(key="library.view").set_value("motion").run()
    opened(app, library, text="jumping-jack", kinds=["motion"])
    app.button(key="library.use").click().run()
    assert app.selectbox(key="animate.motion").value == "jumping-jack"


def test_a_search_that_finds_nothing_says_so(open_page, make_result):
    make_result()
    app = open_page("library")
    app.text_input(key="library.text").set_value("elephant").run()
    assert "Nothing has all these words" in app.info[0].value


def test_many_results_come_in_pages(open_page, make_result):
    make_result(count=30)
    app = open_page("library")
    assert "30 things" in captions(app)
    assert len([label for label in labels(app) if "wave" in label]) == 24
    app.pagination[0].set_value(2).run()
    assert not app.exception
    assert len([label for label in labels(app) if "wave" in label]) == 6


def test_another_search_begins_at_its_first_page(open_page, make_result):
    make_result(count=30)
    app = open_page("library")
    app.pagination[0].set_value(2).run()
    app.text_input(key="library.text").set_value("red").run()
    assert len([label for label in labels(app) if "wave" in label]) == 24


def test_a_tag_is_given_and_filters(open_page, make_result, library):
    make_result(seed=1)
    make_result(seed=2)
    app = open_page("library")
    thing = library.search(kinds=["result"])[0]
    library.set_tags(thing.id, ["trailer"])
    app.run()
    app.multiselect(key="library.tags").set_value(["trailer"]).run()
    assert "1 thing" in captions(app)


def test_a_thing_goes_to_the_trash_and_comes_back(open_page, make_result, library):
    video = make_result()
    app = open_page("library")
    thing = opened(app, library, kinds=["result"])
    app.button(key="library.trash").click().run()
    assert not app.exception
    assert not video.exists()
    app.button_group(key="library.view").set_value("trash").run()
    app.button(key=f"library.restore.{thing.id}").click().run()
    assert not app.exception
    assert video.is_file()
    assert "trash is empty" in app.info[0].value


def test_several_are_chosen_and_deleted_together(open_page, make_result, library):
    make_result(count=3)
    app = open_page("library")
    app.toggle(key="library.selecting").set_value(True).run()
    assert app.button(key="library.delete").disabled
    for thing in library.search(kinds=["result"])[:2]:
        app.checkbox(key=f"library.chosen.{thing.id}").check()
    app.run()
    app.button(key="library.delete").click().run()
    assert not app.exception
    assert (library.count(kinds=["result"]), library.count(trashed=True)) == (1, 2)


def test_the_trash_is_emptied_after_a_second_question(open_page, make_result, library, queue):
    make_result()
    app = open_page("library")
    opened(app, library, kinds=["result"])
    app.button(key="library.trash").click().run()
    app.button_group(key="library.view").set_value("trash").run()
    app.button(key="library.empty").click().run()
    assert library.count(trashed=True) == 1
    app.button(key="library.yes").click().run()
    assert not app.exception
    assert library.count(trashed=True) == 0


def test_what_a_job_uses_is_not_deleted_and_the_page_says_why(open_page, make_result, library, queue):
    video = make_result()
    queue.submit(["animate", "--reference", "cat", f"--driving={video}"])
    app = open_page("library")
    opened(app, library, kinds=["result"])
    app.button(key="library.trash").click().run()
    assert "is used by job" in app.error[0].value
    assert video.is_file()


def test_foreign_text_is_shown_as_it_is(open_page, make_result, library):
    make_result(reference="**bold** [x](http://evil)/<b>.png", prompt="<script>alert(1)</script>")
    app = open_page("library")
    opened(app, library, kinds=["result"])
    assert "<script>alert(1)</script>" in [text.value for text in app.text]
    assert all("[x](http" not in label for label in labels(app))


@pytest.mark.parametrize("address", ["999", "../..", "-1", "1e3"])
def test_an_address_of_no_thing_opens_none(address, open_page):
    app = open_page("library")
    app.query_params["thing"] = address
    app.run()
    assert not app.exception
    assert app.title[0].value == "Library"
    assert not app.dataframe
