"""How a thing was made is told in full, and can be asked for again."""

import shlex


def only(library, kind):
    library.rescan()
    (thing,) = library.search(kinds=[kind])
    return thing


def told(library, thing):
    from studio.library.provenance import provenance

    return provenance(thing, library.queue)


def test_the_command_of_a_result_is_one_that_studio_takes(library, make_result):
    from studio.cli.run import check_words

    make_result(prompt="-- a 'quoted' figure", adapter=["a.safetensors:0.5"], guidance_scale=2.5)
    found = told(library, only(library, "result"))
    words = shlex.split(found.command)[1:]
    check_words(words)
    assert "--prompt=-- a 'quoted' figure" in words
    assert "--adapter=a.safetensors:0.5" in words


def test_settings_for_the_page_leave_out_where_it_was_written(library, make_result):
    make_result()
    found = told(library, only(library, "result"))
    assert found.page == "animate"
    assert found.values["seed"] == 7
    assert not {"output", "preview"} & set(found.values)


def test_paths_of_a_job_are_told_from_where_it_ran(library, queue, make_result, tmp_path):
    (tmp_path / "me.png").write_bytes(b"x")
    folder = queue.new_folder()
    queue.submit(["animate"], folder=folder, directory=tmp_path)
    make_result(folder, reference="me.png")
    found = told(library, only(library, "result"))
    assert str(found.values["reference"]) == str(tmp_path / "me.png")


def test_a_sidecar_of_another_version_is_shown_but_not_used_again(library, queue, make_result):
    folder = queue.new_folder()
    job = queue.submit(["animate", "--reference", "cat"], folder=folder)
    make_result(folder, an_option_of_tomorrow=1)
    found = told(library, only(library, "result"))
    assert ("An option of tomorrow", "1") in found.rows
    assert (found.page, found.command) == ("", job.command)


def test_hashes_and_versions_are_told(library, make_result):
    make_result()
    rows = dict(told(library, only(library, "result")).rows)
    assert rows["Weights of transformer"] == "ab" * 32
    assert rows["Version of torch"] == "2.11"


def test_a_run_is_trained_again_into_another_folder(library, make_run):
    folder = make_run()
    found = told(library, only(library, "run"))
    assert found.command == f"studio train {folder}/config.toml --output-dir {folder}-again"
    assert ("Method", "sara") in found.rows


def test_an_adapter_is_used_on_the_animate_page(library, make_run):
    folder = make_run()
    found = told(library, only(library, "adapter"))
    assert found.values == {"adapter": (str(folder / "adapter.safetensors"),), "model": "mini"}


def test_a_forgotten_job_leaves_its_result(library, queue, make_result):
    folder = queue.new_folder()
    job = queue.submit(["animate"], folder=folder)
    make_result(folder)
    library.rescan()
    queue.cancel(job.id)
    queue.forget(job.id)
    found = told(library, only(library, "result"))
    assert found.command.startswith("studio animate")
