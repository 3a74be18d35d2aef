"""All that the Library page does can be done without a browser."""

import pytest


@pytest.fixture
def run(studio, queue):
    def ran(verb, *words):
        return studio("library", verb, *words, "--root", queue.root, "--json")

    return ran


def test_things_are_listed_and_searched(run, make_result):
    make_result(prompt="a red fox")
    make_result(prompt="a blue fox")
    assert run("list", "--kind", "result").result["total"] == 2
    found = run("list", "fox", "red", "--kind", "result").result["things"]
    assert [thing["prompt"] for thing in found] == ["a red fox"]


def test_a_thing_is_shown_with_the_command_that_makes_it_again(run, make_result):
    make_result()
    number = run("list", "--kind", "result").result["things"][0]["id"]
    shown = run("show", number).result
    assert shown["provenance"]["Seed"] == "7"
    assert shown["command"].startswith("studio animate ")


def test_tags_and_title_are_changed(run, make_result):
    make_result()
    number = run("list", "--kind", "result").result["things"][0]["id"]
    run("tag", number, "--add", "Trailer", "--add", "b", "--title", "The one")
    assert run("tag", number, "--remove", "b").result["tags"] == ["trailer"]
    assert run("list", "--tag", "trailer").result["things"][0]["title"] == "The one"
    refused = run("tag", number, "--remove", "c")
    assert refused.code == 2
    assert "has no such tag" in refused.result["error"]


def test_a_thing_goes_to_the_trash_comes_back_and_is_deleted(run, make_result):
    video = make_result()
    number = run("list", "--kind", "result").result["things"][0]["id"]
    assert run("trash", number).code == 0
    assert not video.exists()
    assert run("restore", number).code == 0
    assert video.is_file()
    run("trash", number)
    assert "--yes" in run("empty").result["error"]
    assert run("empty", "--yes").result["things"] == 1
    assert run("list", "--trashed").result["total"] == 0


def test_a_look_at_the_files_and_their_sizes(run, make_result):
    run("rescan")
    make_result()
    assert run("rescan").result["new"] == 1
    assert run("usage").result["use"]["result"]["things"] == 1


def test_a_number_of_nothing_is_refused_in_words(run):
    refused = run("show", 99_999)
    assert refused.code == 2
    assert "there is no thing 99999" in refused.result["error"]
