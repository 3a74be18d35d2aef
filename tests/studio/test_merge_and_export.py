"""`studio merge` and `studio export`, as a user types them, and what they say when something is wrong."""

import pytest
from PIL import Image


@pytest.fixture
def two(sd, adapt):
    return adapt(sd, "sara", name="a"), adapt(sd, "sara", name="b", seed=5)


def refused(done, *words):
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, done.err


@pytest.mark.parametrize(
    "flags",
    [(), ("--rule", "linear"), ("--rule", "ties", "--density", 0.3, "--election", "frequency"),
     ("--rule", "dare", "--density", 0.8, "--then", "ties", "--seed", 3), ("--rule", "pcb", "--ratio", 0.2),
     ("--rule", "ties", "--per-tensor", "--dtype", "fp32")],
    ids=lambda flags: " ".join(map(str, flags)),
)  # fmt: skip
def test_every_rule_writes_a_file_that_loads(flags, studio, two, sd, tmp_path):
    from training.exporting import open_base
    from training.methods.adapter import apply_adapter, load_adapter

    out = tmp_path / "out" / "m.safetensors"
    done = studio("merge", *two, *flags, "--output", out, "--json")
    assert done.code == 0, done.err
    assert done.result["output"] == str(out) and 0 <= done.result["max_error"] <= 1 / 256
    adapter = load_adapter(out)
    apply_adapter(open_base(adapter).network, adapter).unload()


def test_weights_count_and_runs_can_be_named_by_their_folder(studio, two, tmp_path):
    from training.methods.adapter import load_adapter

    run = tmp_path / "run"
    run.mkdir()
    two[0].rename(run / "adapter.safetensors")
    out = tmp_path / "m.safetensors"
    done = studio("merge", f"{run}:0.25", f"{two[1]}:2", "--rule", "linear", "--output", out, "--json")
    assert done.code == 0, done.err
    assert done.result["weights"] == [0.25, 2.0]
    assert "0.25 x adapter.safetensors" in load_adapter(out).notes["merged"]


def test_the_greedy_soup_measures_and_leaves_out_what_harms(studio, ours, adapt, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(2):
        Image.new("RGB", (40, 40), (90 * k, 0, 0)).save(pictures / f"{k}.png")
    small, wild = adapt(ours, "paca", name="small", size=1e-6), adapt(ours, "paca", name="wild", size=3.0)
    out = tmp_path / "m.safetensors"
    greedy = ("merge", small, wild, "--rule", "greedy", "--output", out, "--json")
    refused(studio(*greedy), "--train-data-dir")
    done = studio(*greedy, "--train-data-dir", pictures, "--resolution", 32)
    assert done.code == 0, done.err
    assert done.result["merged"] == [str(small)]
    assert done.result["losses"][str(wild)] > done.result["losses"][str(small)]
    assert "left out" in done.err


def test_the_greedy_soup_of_a_model_that_sees_more_than_text_is_refused(studio, ours, adapt, tmp_path, monkeypatch):
    from training.finetune.families.animator import Animator

    Image.new("RGB", (40, 40)).save(tmp_path / "0.png")
    monkeypatch.setattr(Animator, "conditioned", ("text-to-image",))
    words = ("--rule", "greedy", "--output", tmp_path / "m.safetensors", "--train-data-dir", tmp_path)
    parts = (adapt(ours, "paca", name=name, size=1e-3) for name in ("one", "two"))
    refused(studio("merge", *parts, *words, "--json"), "sees more than text")


@pytest.mark.parametrize("form", ["merged", "diffusers", "lora", "comfyui"])
def test_every_format_is_written_and_read_back(form, studio, sd, adapt, tmp_path):
    out = tmp_path / ("out" if form == "merged" else "out.safetensors")
    done = studio("export", adapt(sd, "paca", rank=2), "--format", form, "--output", out, "--json")
    assert done.code == 0, done.err
    assert done.result["output"] == str(out) and done.result["max_error"] < 1e-5
    assert done.result["component"] == "unet"
    assert out.exists()


@pytest.mark.parametrize("form", ["adapter", "diffusers"])
def test_a_checkpoint_is_exported_like_a_finished_run(form, studio, ours, tmp_path):
    from training.methods.adapter import is_adapter

    pictures, run, out = tmp_path / "pictures", tmp_path / "run", tmp_path / "out" / "step-1.safetensors"
    pictures.mkdir()
    Image.new("RGB", (40, 40), "red").save(pictures / "0.png")
    train = ("train", "--pretrained-model-name-or-path", ours, "--train-data-dir", pictures, "--resolution", 32,
             "--max-train-steps", 2, "--set", "checkpointing_steps=1", "--method", "paca",
             "--output-dir", run)  # fmt: skip
    done = studio(*train)
    assert done.code == 0, done.err
    out.parent.mkdir()
    done = studio("export", run, "--checkpoint", 1, "--format", form, "--output", out, "--json")
    assert done.code == 0, done.err
    assert out.is_file() and is_adapter(out) == (form == "adapter")
    missing = ("export", run, "--checkpoint", 9, "--format", "adapter", "--output", tmp_path / "x.safetensors")
    refused(studio(*missing), "no checkpoint of step 9; it has 1, 2")
    refused(studio("export", run, "--format", "adapter", "--output", tmp_path / "x.safetensors"), "--checkpoint STEP")
    refused(studio("export", out, "--checkpoint", 1, "--format", "adapter", "--output", tmp_path / "x.safetensors"),
            "no folder of a fine-tuning run")  # fmt: skip


def test_what_is_approximate_is_told_layer_by_layer(studio, two, tmp_path):
    out = tmp_path / "out.safetensors"
    export = ("export", two[0], "--format", "diffusers", "--output", out, "--json")
    refused(studio(*export), "--drop-rest")
    refused(studio(*export, "--drop-rest"), "--rank")
    done = studio(*export, "--drop-rest", "--rank", 2)
    assert done.code == 0, done.err
    errors = done.result["approximate"]
    assert errors and max(errors.values()) == done.result["max_error"]
    assert done.result["dropped"] and 0 < done.result["dropped_share"] < 1
    assert all(f"{name}: approximate" in done.err for name in errors)


def test_a_wrong_read_back_is_exit_1_and_no_file(studio, sd, adapt, tmp_path, monkeypatch):
    import training.exporting.lora as lora

    write = lora.save_file
    monkeypatch.setattr(lora, "save_file", lambda t, *a: write({k: v * 2 for k, v in t.items()}, *a))
    out = tmp_path / "out.safetensors"
    done = studio("export", adapt(sd, "paca"), "--format", "diffusers", "--output", out)
    assert done.code == 1 and "otherwise than it was meant" in done.err and "Traceback" not in done.err
    assert not out.exists()


def test_a_merged_adapter_is_exported_like_any_other(studio, sd, adapt, tmp_path):
    files = [adapt(sd, "paca", name=str(k), seed=k, rank=1) for k in range(2)]
    assert studio("merge", *files, "--output", tmp_path / "m.safetensors").code == 0
    done = studio(
        "export", tmp_path / "m.safetensors", "--format", "lora", "--output", tmp_path / "l.safetensors", "--json"
    )
    assert done.code == 0, done.err
    assert done.result["max_error"] < 1e-5


def test_what_is_wrong_is_named_with_its_fix(studio, two, sd, sdxl, adapt, tmp_path):
    a, b = two
    out = ("--output", tmp_path / "m.safetensors")
    refused(studio("merge", a, *out), "two adapters or more")
    refused(studio("merge", a, a, *out), "is there twice")
    refused(studio("merge", a, f"{b}:much", "--rule", "linear", *out), "'much' is not a number")
    refused(studio("merge", a, f"{b}:nan", "--rule", "linear", *out), "nan is not a number")
    refused(studio("merge", f"{a}:2", b, *out), "--rule linear")
    refused(studio("merge", a, b, "--rule", "slerp", *out), "--rule slerp", "ties")
    refused(studio("merge", a, b, "--rule", "ties", "--density", 1.5, *out), "--density 1.5", "less than or equal to 1")
    refused(studio("merge", a, tmp_path / "none.safetensors", *out), "no such file")
    refused(studio("merge", a, b, "--output", a), "is there already")
    refused(studio("merge", a, b, "--output", tmp_path / "m.bin"), "must end in .safetensors")
    refused(studio("merge", a, b, "--model", sdxl, *out), "has those weights", "--model")
    other = adapt(sdxl, "paca", name="xl")
    refused(studio("merge", a, other, *out), "a.safetensors was trained on", "xl.safetensors on", "same base")
    (tmp_path / "empty").mkdir()
    refused(studio("merge", a, tmp_path / "empty", *out), "has no adapter.safetensors")
    whole = b.read_bytes()
    b.write_bytes(whole[: len(whole) // 2])
    refused(studio("merge", a, b, *out), "b.safetensors cannot be read")
    export = ("export", "--output", tmp_path / "e.safetensors", "--format")
    refused(studio(*export, "lora", b), "b.safetensors cannot be read")
    refused(studio(*export, "lora", tmp_path / "none.safetensors"), "no such file")
    refused(studio(*export, "onnx", a), "--format onnx", "merged")
    refused(studio(*export, "merged", a, "--rank", 3), "leave --rank")
    refused(studio(*export, "lora", a, "--rank", 0), "--rank 0")
    refused(studio("export", a, "--format", "merged", "--output", tmp_path / "empty"), "is there already")
    assert not (tmp_path / "m.safetensors").exists() and not (tmp_path / "e.safetensors").exists()
