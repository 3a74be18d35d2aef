"""`studio compare` and `studio evaluate quality`, as a user types them."""

import csv
import json

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from models.presets import tiny_pipeline

    place = tmp_path_factory.mktemp("compared")
    tiny_pipeline().save_pretrained(place / "tiny")
    (place / "red things").mkdir()
    for k in range(4):
        Image.new("RGB", (40, 40), (60 * k, 0, 0)).save(place / "red things" / f"{k}.png")
    (place / "run.toml").write_text(
        f"model = {json.dumps(str(place / 'tiny'))}\nmethod = 'paca'\nresolution = 32\nmax_train_steps = 2\n"
        "train_batch_size = 2\n[method_options]\nrank = 2\n[[data]]\nfolder = 'red things'\n"
    )
    return place / "run.toml"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_methods_are_trained_scored_and_written_side_by_side_and_not_twice(studio, config, tmp_path):
    words = (
        "compare", config, "--methods", "paca@1e-3,norms", "--samples", 4, "--features", "mini-clip",
        "--output-dir", tmp_path / "out", "--device", "cpu", "--json",
    )  # fmt: skip
    done = studio(*words)
    assert done.code == 0, done.err
    paca, norms = done.result["rows"]
    assert (paca["method"], paca["learning_rate"]) == ("paca", pytest.approx(1e-3))
    for row in (paca, norms):
        assert row["error"] is None and row["adapter_bytes"] > 0 and row["trainable_parameters"] > 0
        assert {"kd", "identity", "nearest", "drift"} <= row["scores"].keys()
    # the options of the config are its own method's
    kept = (tmp_path / "out" / "norms" / "config.toml").read_text()
    assert 'method = "norms"' in kept and "rank" not in kept
    table = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [row["method"] for row in table] == ["paca", "norms"]
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 4
    assert Image.open(tmp_path / "out" / "plot.png").size[0] > 1000
    assert Image.open(tmp_path / "out" / "norms" / "scores.png").size[0] > 300

    written = (tmp_path / "out" / "norms" / "adapter.safetensors").stat().st_mtime_ns
    again = studio(*words)
    assert again.code == 0 and again.result["rows"] == done.result["rows"]
    assert (tmp_path / "out" / "norms" / "adapter.safetensors").stat().st_mtime_ns == written

    other = studio(*words, "--methods", "norms")  # the last flag counts
    assert other.code == 0 and len(other.result["rows"]) == 1
    scores = tmp_path / "out" / "norms" / "scores.json"
    assert {row["samples"] for row in json.loads(scores.read_text()) if row["name"] == "kd"} == {4}
    assert studio(*words, "--methods", "norms", "--samples", 5).code == 0
    assert {row["samples"] for row in json.loads(scores.read_text()) if row["name"] == "kd"} == {5}
    changed = tmp_path / "changed.toml"
    changed.write_text(config.read_text().replace("max_train_steps = 2", "max_train_steps = 3"))
    (tmp_path / "red things").mkdir()
    refused = studio("compare", changed, "--methods", "norms", "--output-dir", tmp_path / "out")
    assert refused.code == 2 and "holds a comparison with" in refused.err


def test_the_share_of_the_config_holds_for_every_method_that_has_a_size(config, tmp_path):
    from studio.comparison import Comparison, Variant
    from training.finetune.config import read_config

    values = {**read_config(config), "trainable_share": 0.05}
    comparison = Comparison(values, tmp_path, device="cpu", score=[], on_progress=lambda name, share: None)

    def share(method, own=None):
        return read_config(comparison._config_of(Variant(method=method, share=own, rate=None))).get("trainable_share")

    assert [share("paca"), share("lora"), share("lora", 0.1), share("norms")] == [0.05, 0.05, 0.1, None]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--methods", "sarra"), "--methods sarra: no such method (did you mean 'sara'?)"),
        (("--methods", "lora,lora"), "names a method twice"),
        (("--methods", "lora@fast"), "must be numbers above 0"),
        (("--methods", ","), "names no method"),
        (("--trainable-shares", "0.1,-1"), "--trainable-shares 0.1,-1: must be numbers above 0"),
        (("--features", "inception"), "known are efficientnet-lite0, mini-clip"),
    ],
)
def test_a_wrong_request_is_told_before_anything_is_trained(studio, config, tmp_path, flags, told):
    done = studio("compare", config, "--output-dir", tmp_path / "out", *flags)
    assert done.code == 2 and told in done.err and "Traceback" not in done.err
    assert not list(tmp_path.glob("out/*/"))


def test_quality_of_a_folder_that_is_no_run_is_refused(studio, tmp_path):
    done = studio("evaluate", "quality", tmp_path)
    assert done.code == 2 and "holds no finished fine-tuning run" in done.err
