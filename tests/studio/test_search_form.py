"""From the form of a search to TOML and a command; a mask as a picture of the network."""

import shlex
import tomllib
from pathlib import Path

import pytest

from studio.cli.run import check_words
from studio.errors import RequestError
from studio.mask_grid import grid_of, in_words
from studio.search_form import (
    SITES,
    STRATEGIES,
    best_words,
    duration,
    free_name,
    more_toml,
    read_base,
    read_options,
    read_steps,
    search_toml,
    search_words,
    settings_in,
)
from studio.studies import Place


@pytest.fixture
def base(tmp_path):
    (tmp_path / "things").mkdir()
    return "max_train_steps = 8\nvalidation_share = 0.5\n[[data]]\nfolder = 'things'\n"


def test_folders_of_a_base_become_absolute(base, tmp_path):
    assert read_base(base, tmp_path)["data"][0]["folder"] == str(tmp_path / "things")


def test_the_config_of_a_run_is_a_base_too(base, tmp_path):
    text = f"[finetune]\nmethod = 'lora'\n[[finetune.data]]\nfolder = '{tmp_path / 'things'}'\n"
    assert read_base(text, Path())["method"] == "lora"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model = ", "this is no TOML"),
        ("model = 'mini'", "names no data"),
        ("data = 3", "names no data"),
        ("[[data]]\nfolder = 'nowhere'", "nowhere: no such folder"),
        ("x = '" + "y" * 1_000_001 + "'", "more than 1,000,000 bytes"),
    ],
)
def test_a_wrong_base_is_told(tmp_path, text, told):
    with pytest.raises(RequestError, match=told):
        read_base(text, tmp_path)


def test_data_that_may_not_be_read_is_refused(base, tmp_path):
    def refuse(path):
        raise RequestError(f"data folder {path}: lies outside")

    with pytest.raises(RequestError, match="lies outside"):
        read_base(base, tmp_path, allow=refuse)


def test_the_toml_says_what_is_not_default_and_reads_back(base, tmp_path):
    runs = read_base(base, tmp_path)
    told = tomllib.loads(search_toml(runs, {"samples": 32, "learning_rate": (1e-4, 1e-2), "limit": None,
                                            "sites": "layers", "options": {"rank": [2, 4]}}))  # fmt: skip
    assert told["search"] == {"samples": 32, "learning_rate": [1e-4, 1e-2], "options": {"rank": [2, 4]}}
    assert told["max_train_steps"] == 8 and settings_in(told) == told["search"]


def test_a_wrong_setting_is_told_by_its_name(base, tmp_path):
    with pytest.raises(RequestError, match="samples"):
        search_toml(read_base(base, tmp_path), {"samples": 3})
    with pytest.raises(RequestError, match="sampels"):
        settings_in({"search": {"sampels": 3}})


def test_the_words_are_a_command_of_the_command_line(tmp_path):
    words = search_words(tmp_path / "s.toml", {"trials": 5, "budget_steps": None, "output_dir": tmp_path / "a b"})
    check_words(words)
    assert shlex.join(words).endswith(f"--trials=5 '--output-dir={tmp_path / 'a b'}'")
    check_words(best_words(Place(folder=tmp_path), "3:10", tmp_path / "best.toml", pictures=9))


def test_the_names_of_strategies_and_sites_are_those_that_there_are():
    from training.finetune.searching.sites import LAYOUTS, PRESETS
    from training.search.strategies import STRATEGIES as KNOWN

    assert set(STRATEGIES) == set(KNOWN)
    assert set(SITES) == {*LAYOUTS, *PRESETS}


def test_options_and_steps_are_read_as_they_are_typed():
    assert read_options("fraction = [0.01, 0.05]\n") == {"fraction": [0.01, 0.05]}
    assert read_steps("5, 10,20") == (5, 10, 20) and read_steps(" ") == ()
    with pytest.raises(RequestError, match="must be a list of values"):
        read_options("fraction = 0.01")
    with pytest.raises(RequestError, match="must be whole steps"):
        read_steps("5, x")


def test_a_study_without_its_setup_cannot_go_on():
    with pytest.raises(RequestError, match=r"setup\.json is missing"):
        more_toml({})


def test_durations_and_names_are_short():
    assert [duration(s) for s in (0.2, 40, 720, 12_600, 400_000)] == ["1 s", "40 s", "12 min", "3.5 h", "4.6 days"]
    assert free_name("study", ["study", "study-2"]) == "study-3"


def test_a_mask_is_a_grid_of_blocks_and_kinds():
    cells = grid_of(["blocks.0.attn1", "blocks.0.ffn", "blocks.1.attn1"], ["blocks.1.attn1"])
    assert [(c.block, c.kind, c.place, c.on) for c in cells] == [
        ("0", "self-attention", 0, False), ("0", "feed-forward", 0, False), ("1", "self-attention", 1, True),
    ]  # fmt: skip
    assert in_words(cells) == "1 of 3 sites are trained: blocks.1.attn1."


@pytest.mark.parametrize(
    ("site", "block", "kind"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks", "down 1.0", "whole block"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_q", "mid 0.0", "cross-attention q"),
        ("self-attention, first half", "first half", "self-attention"),
        ("blocks.0.*", "0", "whole block"),
        ("norms", "norms", "whole block"),
    ],
)
def test_sites_of_every_layout_find_their_place(site, block, kind):
    (cell,) = grid_of([site], [])
    assert (cell.block, cell.kind) == (block, kind)
