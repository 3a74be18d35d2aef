"""`studio search` and `studio search show`, as a user types them."""

import contextlib
import csv
import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from training.methods.adapter import load_adapter


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from models.presets import tiny_pipeline

    place = tmp_path_factory.mktemp("searched")
    tiny_pipeline().save_pretrained(place / "tiny")
    (place / "things").mkdir()
    for k in range(52):
        # pictures that look alike must not lie on both sides
        colours = torch.randint(256, (8, 8, 3), generator=torch.Generator().manual_seed(k)).byte()
        Image.fromarray(colours.numpy()).resize((32, 32)).save(place / "things" / f"{k}.png")
    (place / "search.toml").write_text(
        f"model = {json.dumps(str(place / 'tiny'))}\nmethod = 'full'\nresolution = 32\nmax_train_steps = 4\n"
        "train_batch_size = 2\nvalidation_share = 0.8\nmixed_precision = 'fp32'\ncache_dir = 'cache'\n"
        "[[data]]\nfolder = 'things'\n"
        "[search]\nlearning_rate = [0.001, 0.02]\nsamples = 16\nfinal_samples = 16\nnum_inference_steps = 2\n"
        "checkpoints = [2, 4]\nreference = [8, 1.1]\n"
    )
    return place / "search.toml"


@pytest.fixture(scope="module")
def study(config, tmp_path_factory):
    """A study of five trials that nothing interrupted."""
    from studio.__main__ import main

    folder = tmp_path_factory.mktemp("studies") / "first"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(command(config, folder, 5)[3:]) == 0
    return folder, json.loads(out.getvalue().splitlines()[-1])


def command(config, folder, trials, *more):
    return [
        sys.executable, "-m", "studio", "search", str(config), "--output-dir", str(folder), "--trials", str(trials),
        "--device", "cpu", "--json", *map(str, more),
    ]  # fmt: skip


def whole_entries(folder):
    """The lines of a ledger that a process is writing."""
    path = folder / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def entries(folder):
    """The ledger without what differs from one run to the next: names, times, processes."""
    found = []
    for entry in whole_entries(folder):
        for name in ("name", "at", "worker", "seconds"):
            entry.pop(name, None)
        for name in ("train_seconds", "judge_seconds"):
            entry.get("point", {}).pop(name, None)
        found.append(entry)
    return found


@pytest.mark.slow
def test_a_search_leaves_a_front_with_an_adapter_behind_every_point(study):
    folder, result = study
    assert result["trials"] == 5 and result["failed"] == 0 and result["hypervolume"] > 0
    front = json.loads((folder / "front.json").read_text())["front"]
    assert front == result["front"] and front
    for row in front:
        assert row["final"] is not None
        if row["sites"]:
            adapter = load_adapter(folder / row["adapter"])
            assert all(any(name.startswith(site) for site in row["sites"]) for name in adapter.delta)
    names = [row["point"] for row in csv.DictReader((folder / "front.csv").open())]
    assert names == [row["name"] for row in front] and result["chosen"] in names
    assert Image.open(folder / "front.png").size[0] > 500 and Image.open(folder / "masks.png").size[0] > 500
    page = (folder / "index.html").read_text()
    assert result["chosen"] in page and not re.search(r'(src|href)="(https?:)?//', page)
    # nothing and everything are always tried
    whys = [(e["why"], e["candidate"]["mask"]) for e in entries(folder) if e["entry"] == "asked"]
    assert [mask for why, mask in whys if why == "anchor"] == ["0" * 9, "1" * 9]
    # what a trial goes on from is gone when it is done
    assert not list(folder.glob("trial-*/run"))


@pytest.mark.slow
def test_a_search_that_is_killed_and_started_again_leaves_the_same_ledger(study, config, studio, tmp_path):
    straight, _ = study
    folder = tmp_path / "killed"
    log = tmp_path / "stderr"
    with log.open("w") as errors:
        process = subprocess.Popen(command(config, folder, 5), stdout=subprocess.DEVNULL, stderr=errors)
    try:
        # in a trial that has a checkpoint behind it and another one before it
        end = time.monotonic() + 200
        while not any(e["entry"] == "point" and e["trial"] == 1 for e in whole_entries(folder)):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert sum(e["entry"] == "finished" for e in whole_entries(folder)) < 5
    done = studio(*command(config, folder, 5)[3:])
    assert done.code == 0, done.err
    assert alike([e for e in entries(folder) if e["entry"] != "taken"], entries(straight))


def alike(one, two):
    """The same but for the last digits of distances near zero: the one study ran in this process, the other in two."""
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=1e-9, abs_tol=1e-5)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(alike, one, two))
    return bool(one == two)


@pytest.mark.slow
def test_a_study_is_shown_wherever_it_is_moved_and_writes_the_run_it_recommends(study, studio, tmp_path):
    folder, result = study
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    point = next(row for row in result["front"] if row["sites"])
    out = tmp_path / "train.toml"
    shown = studio("search", "show", moved, "--point", point["name"], "--write", out, "--pictures", 33, "--json")
    assert shown.code == 0, shown.err
    assert shown.result["front"] == result["front"]
    assert shown.result["adapter"] == str(moved / point["adapter"]) and Path(shown.result["adapter"]).is_file()
    written = tomllib.loads(out.read_text())
    assert written["scope"] == point["sites"] and written["learning_rate"] == point["values"]["learning_rate"]
    # 11 pictures were trained, and copies come later with more
    assert written["max_train_steps"] == 3 * point["step"]


@pytest.mark.slow
def test_a_front_seeds_the_search_on_other_pictures(study, config, studio, tmp_path):
    folder, result = study
    wanted = {tuple(row["sites"]) for row in result["front"] if 0 < len(row["sites"]) < 9}
    assert wanted, "the front of this study has nothing but anchors"
    done = studio(
        *command(config, tmp_path / "next", 2 + len(wanted))[3:-1], "--seed-configs", folder, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    sites = json.loads((tmp_path / "next" / "ledger.jsonl").read_text().splitlines()[0])["space"]["sites"]
    seeds = [e["candidate"]["mask"] for e in entries(tmp_path / "next") if e["entry"] == "asked" and e["why"] == "seed"]
    assert {tuple(s for s, bit in zip(sites, mask, strict=True) if bit == "1") for mask in seeds} == wanted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--strategy", "tpee"], r"--strategy tpee: no such strategy \(did you mean 'tpe'\?\)"),
        (["--set", "search.sampels=5"], r"sampels.*did you mean 'samples'"),
        (["--set", "search.sites=layer"], r"sites 'layer': no such layout"),
        (["--set", "search.checkpoints=[8]"], r"a run has 4 steps"),
        (["--set", "validation_share=0.2"], r"a search needs 40 held-out ones at least"),
        (["--budget-steps", "2"], r"--trials and --budget-steps say the same thing"),
        (["--set", "search.limit=0"], r"limit"),
        (["--seed-configs", "nowhere.json"], r"nowhere.json cannot be read"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(studio, config, tmp_path, words, told):
    done = studio(*command(config, tmp_path / "study", 5)[3:-1], *words, "--json")
    assert done.code == 2
    assert re.search(told, done.result["error"]), done.result["error"]
    assert not (tmp_path / "study" / "ledger.jsonl").exists()


@pytest.mark.slow
def test_another_setting_is_refused_by_name(study, config, studio):
    folder, _ = study
    setup = (folder / "setup.json").read_bytes()
    done = studio(*command(config, folder, 5)[3:-1], "--set", "search.samples=17", "--json")
    assert (folder / "setup.json").read_bytes() == setup
    assert done.code == 2 and re.search(r"search\.samples|objectives", done.result["error"])


@pytest.mark.slow
def test_a_database_holds_several_studies_by_their_names(config, studio, tmp_path):
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    for name in ("one", "two"):
        words = command(config, tmp_path / name, 2)[3:-1]
        done = studio(
            *words, "--storage", storage, "--set", "max_train_steps=2", "--set", "search.checkpoints=[2]", "--json"
        )
        assert done.code == 0, done.err
    assert not (tmp_path / "one" / "ledger.jsonl").exists()
    shown = studio("search", "show", tmp_path / "one", "--storage", storage, "--json")
    assert shown.code == 2 and "one" in shown.result["error"] and "two" in shown.result["error"]
    shown = studio("search", "show", tmp_path / "one", "--storage", storage, "--name", "one", "--json")
    assert shown.code == 0 and shown.result["trials"] == 2


@pytest.mark.slow
def test_machines_without_a_common_folder_each_judge_what_they_trained(config, studio, tmp_path):
    storage = f"sqlite:///{tmp_path / 'studies.db'}"

    def search(folder, trials):
        words = command(config, tmp_path / folder, trials)[3:-1]
        more = ("--storage", storage, "--name", "both", "--set", "max_train_steps=2", "--set", "search.checkpoints=[2]")
        done = studio(*words, *more, "--json")
        assert done.code == 0, done.err
        return done

    first = search("one", 2)
    front = {row["name"]: row["trained"] for row in first.result["front"]}
    second = search("two", 4)
    elsewhere = {row["name"] for row in second.result["front"] if row["final"] is None}
    # the base needs no adapter, so any machine judges it
    assert elsewhere == front.keys() & {row["name"] for row in second.result["front"]} - {"0:0"}
    assert ("where they were trained" in second.err) == bool(elsewhere)
    # what the other machine trained is none of this one's business; both have all figures of their own
    again = search("one", 4)
    assert {row["name"] for row in again.result["front"] if row["final"] is None} == {
        row["name"] for row in again.result["front"] if row["trial"] in (2, 3)
    }
    assert not list((tmp_path / "two").glob("trial-0")) and not list((tmp_path / "one").glob("trial-2/*.safetensors"))
    # its front, as its folder has it, begins another search
    third = studio(
        *command(config, tmp_path / "three", 2)[3:-1], "--seed-configs", tmp_path / "one", "--set", "max_train_steps=2",
        "--set", "search.checkpoints=[2]", "--json",
    )  # fmt: skip
    assert third.code == 0, third.err


def test_what_the_final_choice_measured_is_kept_beside_what_others_did(study, tmp_path):
    from studio.search_report import add_final, choose, name_of, read_finals
    from training.search.study import open_study

    moved = shutil.copytree(study[0], tmp_path / "moved")
    (moved / "finals.json").unlink()
    here, there = open_study(moved), open_study(moved)
    names = [name_of(result) for result in here.front()]
    assert len(names) > 1
    by_search = name_of(choose(here, {}))
    best = next(name for name in names if name != by_search)
    for number, name in enumerate(names):
        # while one is not judged all count by the search: its figure would win by its luck
        assert name_of(choose(here, read_finals(moved))) == by_search
        figures = {"quality": 0.1, "copying": 0.0} if name == best else {"quality": 9.0, "copying": 0.9}
        add_final((here, there)[number % 2], name, figures)
    assert read_finals(moved).keys() == set(names)
    assert name_of(choose(here, read_finals(moved))) == best


def test_a_folder_without_a_study_is_told(studio, tmp_path):
    done = studio("search", "show", tmp_path)
    assert done.code == 2 and "holds no study" in done.err
