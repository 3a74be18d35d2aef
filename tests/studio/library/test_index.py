"""What is made is found again."""

import json
import os
import subprocess
import sys

import pytest


def titles(things):
    return [thing.title for thing in things]


def test_a_result_is_listed_with_what_made_it(library, make_result):
    video = make_result()
    library.rescan()
    (thing,) = library.search(kinds=["result"])
    assert thing.place == video
    assert thing.title == "juice-box · wave"
    assert (thing.prompt, thing.model) == ("a red figure", "mini")
    assert thing.facts == {"seed": 7, "frames": 17, "width": 64, "height": 96, "fps": 12.0}
    assert thing.bytes == sum(path.stat().st_size for path in video.parent.iterdir())


def test_a_result_of_a_job_has_the_jobs_number_and_title(library, queue, make_result):
    folder = queue.new_folder()
    job = queue.submit(["animate"], folder=folder, title="for the trailer")
    make_result(folder)
    library.rescan()
    (thing,) = library.search(kinds=["result"])
    assert (thing.job, thing.title) == (job.id, "for the trailer")


def test_a_video_without_a_sidecar_is_an_upload_and_is_not_listed(library, queue):
    (queue.new_folder() / "driving.mp4").write_bytes(b"x")
    library.rescan()
    assert library.count(kinds=["result"]) == 0


def test_a_run_and_its_adapter_are_two_things(library, make_run):
    make_run()
    library.rescan()
    (run,) = library.search(kinds=["run"])
    (adapter,) = library.search(kinds=["adapter"])
    assert run.facts == {"method": "sara", "complete": True, "steps": 20, "loss": 0.25}
    assert (adapter.title, adapter.model, adapter.facts) == ("cat", "mini", {"method": "sara"})


def test_a_foreign_safetensors_file_is_no_adapter(library, queue):
    (queue.root / "foreign.safetensors").write_bytes(b"\xff" * 64)
    library.rescan()
    assert library.count(kinds=["adapter"]) == 0


def test_a_study_and_a_comparison_are_listed_whole(library, queue):
    for name, file in (("masks", "setup.json"), ("methods", "comparison.json")):
        (queue.root / name / "trial-1").mkdir(parents=True)
        (queue.root / name / file).write_text(json.dumps({"config": {"model": "mini"}}))
        (queue.root / name / "trial-1" / "config.toml").write_text("")
    library.rescan()
    assert {(thing.title, thing.facts["what"]) for thing in library.search(kinds=["study"])} == {
        ("masks", "search"), ("methods", "comparison"),
    }  # fmt: skip
    assert library.count(kinds=["run"]) == 0


def test_what_came_with_the_studio_is_listed(library):
    library.rescan()
    assert library.count(kinds=["character"]) == 6
    assert "wave" in titles(library.search(kinds=["motion"], limit=100))
    assert titles(library.search(kinds=["model"])) == ["mini"]


def test_models_of_the_users_folders_are_listed(queue, tmp_path):
    from studio.library import Library

    folder = tmp_path / "models" / "wan"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    library = Library(queue, model_folders=(tmp_path / "models",))
    library.rescan()
    (model,) = library.search("WanPipeline", kinds=["model"])
    assert model.place == folder
    assert model.is_bundled


def test_all_words_must_be_there_in_any_order_and_case(library, make_result):
    make_result(prompt="a RED fox in snow")
    make_result(prompt="a red house")
    library.rescan()
    assert library.count("snow red", kinds=["result"]) == 1
    assert library.count("red", kinds=["result"]) == 2
    assert library.count("Red green", kinds=["result"]) == 0


@pytest.mark.parametrize("text", ["100%", "a_b", "back\\slash", "' OR 1=1 --"])
def test_signs_in_a_search_mean_themselves(text, library, make_result):
    make_result(prompt="plain")
    make_result(prompt=f"with {text} in it")
    library.rescan()
    assert [thing.prompt for thing in library.search(text, kinds=["result"])] == [f"with {text} in it"]


def test_pages_and_orders(library, make_result):
    for number in range(5):
        video = make_result(prompt=f"number {number}")
        os.utime(video, (1_000_000 + number, 1_000_000 + number))
    library.rescan()
    newest = [t.prompt for t in library.search(kinds=["result"], limit=2, offset=1)]
    assert newest == ["number 3", "number 2"]
    assert library.search(kinds=["result"], order="oldest", limit=1)[0].prompt == "number 0"


def test_tags_are_found_by_words_and_by_filter_and_survive_a_change_of_the_file(library, make_result):
    video = make_result()
    make_result()
    library.rescan()
    thing = next(t for t in library.search(kinds=["result"]) if t.place == video)
    assert library.set_tags(thing.id, ["  Best   of ", "trailer"]).tags == ("best of", "trailer")
    assert library.count("trailer") == library.count(tags=["best of"]) == 1
    video.write_bytes(b"longer than it was before")
    library.rescan()
    assert library.thing(thing.id).tags == ("best of", "trailer")
    assert library.count("trailer") == 1
    assert library.tags() == ["best of", "trailer"]


def test_a_tag_that_cannot_be_is_refused(library, make_result):
    from studio.errors import RequestError

    make_result()
    library.rescan()
    number = library.search(kinds=["result"])[0].id
    with pytest.raises(RequestError, match="no comma"):
        library.set_tags(number, ["a,b"])


def test_a_title_that_was_given_stays(library, make_result):
    video = make_result()
    library.rescan()
    (thing,) = library.search(kinds=["result"])
    library.rename(thing.id, "The one")
    video.write_bytes(b"other")
    library.rescan()
    assert titles(library.search("the one", kinds=["result"])) == ["The one"]


def test_nothing_changed_means_nothing_is_read(library, make_result):
    make_result()
    first = library.rescan()
    again = library.rescan()
    assert first.new > 20
    assert (again.new, again.changed, again.gone) == (0, 0, 0)


def test_what_went_away_is_marked_and_found_again_when_it_comes_back(library, make_result, tmp_path):
    video = make_result()
    library.rescan()
    (thing,) = library.search(kinds=["result"])
    library.set_tags(thing.id, ["kept"])
    video.rename(tmp_path / "away.mp4")
    assert library.rescan().gone == 1
    assert library.count(kinds=["result"]) == 0
    (tmp_path / "away.mp4").rename(video)
    library.rescan()
    assert library.search(kinds=["result"])[0].tags == ("kept",)


def test_a_link_does_not_lead_out_of_the_runs_folder(library, queue, make_result, tmp_path):
    make_result(tmp_path / "elsewhere")
    (queue.root / "link").symlink_to(tmp_path / "elsewhere")
    library.rescan()
    assert library.count(kinds=["result"]) == 0


def test_damaged_sidecars_and_heads_do_not_stop_a_look_at_the_files(library, queue, make_result):
    good = make_result()
    folder = queue.new_folder()
    (folder / "a.mp4").write_bytes(b"x")
    (folder / "a.json").write_text("[" * 100_000)
    (folder / "b.mp4").write_bytes(b"x")
    (folder / "b.json").write_text('{"schema": "animatex-studio/animation", "request": [1], "output": null}')
    (folder / "run").mkdir()
    (folder / "run" / "config.toml").write_bytes(b"\xff\xfe = [")
    library.rescan()
    assert good in [thing.place for thing in library.search(kinds=["result"])]


def test_disk_use_is_told_by_kind(library, make_run):
    folder = make_run()
    library.rescan()
    use = {row.kind: row for row in library.usage()}
    assert use["run"].bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert use["trash"].things == 0


def test_the_room_works_without_torch_and_streamlit(tmp_path):
    code = ("import sys; from studio.jobs import Queue; from studio.library import Library; from pathlib import Path; "
            "import studio.library.trash, studio.library.provenance, studio.library.thumbs; "
            f"Library(Queue(Path({str(tmp_path)!r}))).rescan(); print(sorted(sys.modules))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'torch'" not in done.stdout
    assert "'streamlit'" not in done.stdout
