"""`studio train` on pictures, as a user types it, and what it says when something is wrong."""

import json
import subprocess

import pytest
from PIL import Image

VIDEO = ("animate", "--reference", "rabbit", "--driving", "wave", "--num-frames", 5, "--num-inference-steps", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from models.presets import tiny_pipeline

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "red things"
    folder.mkdir()
    for k in range(3):
        Image.new("RGB", (40, 40), (60 * k, 0, 0)).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def flags(model, pictures, tmp_path):
    return (
        "train", "--pretrained-model-name-or-path", model, "--train-data-dir", pictures, "--max-train-steps", 3,
        "--train-batch-size", 2, "--resolution", 32, "--output-dir", tmp_path / "run", "--json",
    )  # fmt: skip


def test_flags_train_and_the_last_line_says_what_came_of_it(studio, flags, tmp_path):
    done = studio(*flags, "--method", "sara", "--set", "method_options.fraction=0.1")
    assert done.code == 0, done.err
    told = done.result
    wanted = {"run", "steps", "loss", "trainable_parameters", "total_parameters", "seconds", "seconds_per_step",
              "peak_memory_bytes", "adapter"}  # fmt: skip
    assert wanted <= told.keys()
    assert told["steps"] == 3 and told["trainable_parameters"] == round(0.1 * told["total_parameters"])
    assert "3 of 3 pictures have no caption and get their folder's name" in done.err
    assert (tmp_path / "run" / "adapter.safetensors").is_file()


def test_every_flag_of_fine_tuning_is_a_setting(studio, flags, tmp_path):
    done = studio(
        *flags, "--method", "lora", "--trainable-share", 0.05, "--task", "text-to-image", "--lr-warmup-steps", 1,
        "--gradient-accumulation-steps", 2, "--gradient-checkpointing", "--mixed-precision", "fp32",
        "--lr-scheduler", "constant_with_warmup",
    )  # fmt: skip
    assert done.code == 0, done.err
    kept = (tmp_path / "run" / "config.toml").read_text()
    for line in ('lr_scheduler = "constant_with_warmup"', "gradient_checkpointing = true", 'mixed_precision = "fp32"',
                 "gradient_accumulation_steps = 2", 'task = "text-to-image"', "trainable_share = 0.05"):  # fmt: skip
        assert line in kept
    share = done.result["trainable_parameters"] / done.result["total_parameters"]
    assert 0.02 < share < 0.1


def test_zero_is_a_value_and_a_model_is_found_from_anywhere(studio, model, pictures, tmp_path, monkeypatch):
    path = tmp_path / "run.toml"
    (tmp_path / "models").symlink_to(model.parent)
    path.write_text(
        "model = 'models/tiny'\nresolution = 32\nmax_train_steps = 2\ntrain_batch_size = 1\nseed = 7\n"
        "lr_warmup_steps = 2\n[[data]]\nfolder = 'red things'\n"
    )
    words = ("--seed", 0, "--lr-warmup-steps", 0, "--set", "method_options.fraction=0.1")
    done = studio("train", path, *words, "--output-dir", tmp_path / "run", "--time-limit", 1e-3)
    assert done.code == 0, done.err
    kept = (tmp_path / "run" / "config.toml").read_text()
    assert "seed = 0" in kept and "lr_warmup_steps = 0" in kept and f'model = "{tmp_path / "models" / "tiny"}"' in kept
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = studio("resume", tmp_path / "run", "--max-train-steps", 3, "--json")
    assert done.code == 0 and done.result["steps"] == 3, done.err
    # where SaRA chooses anew is where it was
    assert "fitted_to = 2" in (tmp_path / "run" / "config.toml").read_text()


def test_a_toml_file_says_the_same_and_flags_go_before_it(studio, model, pictures, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        f"model = {json.dumps(str(model))}\nmethod = 'paca'\nresolution = 32\nmax_train_steps = 50\n"
        "train_batch_size = 1\n[method_options]\nrank = 2\n[[data]]\nfolder = 'red things'\n"
    )
    done = studio("train", path, "--max-train-steps", 2, "--output-dir", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.result["steps"] == 2 and done.result["method"] == "paca"


def test_a_stopped_run_goes_on(studio, flags, tmp_path):
    stopped = studio(*flags, "--time-limit", 0.001)
    assert stopped.code == 0 and not stopped.result["complete"] and stopped.result["adapter"] is None
    done = studio("resume", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.result["complete"] and done.result["steps"] == 3 and done.result["adapter"]


def test_the_adapter_is_used_by_animate(studio, flags, model, tmp_path):
    assert studio(*flags).code == 0
    video = (*VIDEO, "--model", model)
    adapter = tmp_path / "run" / "adapter.safetensors"
    done = studio(*video, "--adapter", f"{adapter}:0.5", "--output", tmp_path / "a.mp4")
    assert done.code == 0, done.err
    whole = adapter.read_bytes()
    adapter.write_bytes(whole[: len(whole) // 2])
    cut = studio(*video, "--adapter", adapter, "--output", tmp_path / "b.mp4")
    assert cut.code == 2 and "--adapter" in cut.err and "Traceback" not in cut.err


def test_an_adapter_of_another_model_is_refused(studio, flags, tmp_path):
    assert studio(*flags).code == 0
    adapter = tmp_path / "run" / "adapter.safetensors"
    done = studio(*VIDEO, "--adapter", adapter, "--output", tmp_path / "b.mp4")
    assert done.code == 2
    assert "was trained on a model with the hash" in done.err
    assert not (tmp_path / "b.mp4").exists()


def refused(done, *words):
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, done.err


def test_what_is_wrong_is_named_with_its_fix(studio, flags, pictures, tmp_path):
    refused(studio("train"), "--train-data-dir", "--recipe")
    refused(studio(*flags, "--method", "sarra"), "method sarra: no such method", "sara")
    refused(studio(*flags, "--set", "method_options.fracton=0.1"), "fracton", "fraction")
    refused(studio(*flags, "--set", "max_train_step=3"), "max_train_step", "max_train_steps")
    refused(studio(*flags, "--scope", "attnetion"), "attnetion", "attention")
    refused(studio(*flags, "--recipe", "mini-clip"), "--recipe", "give one of the two")
    (tmp_path / "empty").mkdir()
    refused(studio(*flags, "--train-data-dir", tmp_path / "empty"), "has no pictures")
    refused(studio(*flags, "--train-data-dir", tmp_path / "nowhere"), "no such folder")
    (tmp_path / "bad.toml").write_text("model = = 3")
    refused(studio("train", tmp_path / "bad.toml"), "cannot be read as TOML")
    assert not (tmp_path / "run").exists()


def test_one_corrupt_picture_is_named_and_the_others_are_trained(studio, flags, pictures):
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:40])
    done = studio(*flags)
    assert done.code == 0
    assert "left out" in done.err and "broken.png" in done.err


def test_the_folder_of_another_run_is_refused(studio, flags):
    assert studio(*flags).code == 0
    refused(studio(*flags), "holds a run already", "studio resume")


def changed_config(run, old, new):
    path = run / "config.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('method = "sara"', 'method = "paca"', ("method = 'sara'", "now it is 'paca'")),
        ("seed = 0", "seed = 5", ("seed = 0", "now it is 5")),
        ("train_batch_size = 2", "train_batch_size = 1", ("train_batch_size = 2", "now it is 1")),
        ('lr_scheduler = "cosine_throughout"', 'lr_scheduler = "linear"', ("lr_scheduler = 'cosine", "now it is 'lin")),
        ("adam_beta2 = 0.999", "adam_beta2 = 0.9", ("adam_beta2 = 0.999", "now it is 0.9")),
    ],
)  # fmt: skip
def test_going_on_with_another_setting_is_refused_with_both_values(old, new, words, studio, flags, tmp_path):
    assert studio(*flags, "--method", "sara", "--time-limit", 0.001).code == 0
    changed_config(tmp_path / "run", old, new)
    refused(studio("resume", tmp_path / "run"), "was trained with", *words)
    assert old not in (tmp_path / "run" / "config.toml").read_text()  # it is the user's to put back


def test_going_on_with_another_base_or_other_pictures_is_refused(studio, flags, model, pictures, tmp_path):
    import shutil

    own = tmp_path / "model"
    shutil.copytree(model, own)
    assert studio(*flags, "--pretrained-model-name-or-path", own, "--time-limit", 0.001).code == 0
    weights = next((own / "transformer").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(studio("resume", tmp_path / "run"), "was trained with base = '", "now it is '")
    weights.write_bytes(whole)
    Image.new("RGB", (40, 40), (9, 9, 9)).save(pictures / "1.png")
    refused(studio("resume", tmp_path / "run"), "was trained with pictures = '", "now it is '")


def test_a_rate_that_is_far_too_high_ends_the_run_with_the_names_of_the_pictures(studio, flags, tmp_path):
    done = studio(*flags, "--learning-rate", 1e30, "--set", "checkpointing_steps=1", "--set", "mixed_precision=fp32")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err and ".png" in done.err and "checkpoint-1" in done.err
    assert "lower learning_rate" in done.err
    assert done.result["exit_code"] == 1
    from training.checkpoint import latest_checkpoint, why_damaged

    last = latest_checkpoint(tmp_path / "run")
    assert last is not None and last.name == "checkpoint-1" and why_damaged(last) is None


def test_a_poisoned_picture_in_the_cache_is_named(studio, flags, tmp_path):
    from safetensors.torch import load_file, save_file

    assert studio(*flags, "--time-limit", 0.001).code == 0
    for path in (tmp_path / "run" / "cache").rglob("*.safetensors"):
        tensors = load_file(path)
        if "latents" in tensors:
            save_file({name: t * float("nan") for name, t in tensors.items()}, path)
    done = studio("resume", tmp_path / "run")
    assert done.code == 1 and "red things" in done.err and ".png" in done.err, done.err
    assert "checkpoint-1" in done.err


def test_a_file_named_save_saves_and_the_run_goes_on(studio, flags, tmp_path, monkeypatch):
    import training.run_folder

    run = tmp_path / "run"
    plain = training.run_folder.saver

    def user(folder):
        asked = plain(folder)
        times = iter([False, True, False])

        def ask():
            if next(times):
                (folder / "save").touch()  # as from another terminal, between two steps
            return asked()

        return ask

    monkeypatch.setattr("training.finetune.run.saver", user)
    done = studio(*flags)
    assert done.code == 0 and done.result["complete"], done.err
    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["event"] == "saved"] == [2, 3]
    assert not (run / "save").exists()


def start_and_fill(studio, flags, run):
    """A run that has one checkpoint, and the size of that."""
    # resume must still write events and config, but no checkpoint
    first = studio(*flags, "--method", "sara", "--set", "method_options.fraction=0.5", "--time-limit", 0.001)
    assert first.code == 0, first.err
    return (run / "checkpoint-1" / "model.safetensors").stat().st_size


def ends_like_one_that_never_stopped(studio, flags, run, tmp_path):
    done = studio("resume", run, "--json")
    assert done.code == 0 and done.result["complete"], done.err
    whole = studio(*flags[:-2], tmp_path / "whole", "--method", "sara", "--set", "method_options.fraction=0.5")
    assert whole.code == 0, whole.err
    for name in ("model", "optimizer", "average"):
        file = f"checkpoint-3/{name}.safetensors"
        assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_checkpoint_that_the_system_refuses_to_write_ends_the_run_and_loses_nothing(studio, flags, tmp_path):
    import resource

    run = tmp_path / "run"
    size = start_and_fill(studio, flags, run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))  # larger files than this fail to be written
    try:
        done = studio("resume", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 1, done.err
    assert "could not be written" in done.err and "checkpoint-1" in done.err and f"studio resume {run}" in done.err
    assert "Traceback" not in done.err
    ends_like_one_that_never_stopped(studio, flags, run, tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_ends_the_run_and_loses_nothing(studio, flags, small_disk, tmp_path):
    run = small_disk / "run"
    flags = (*flags[:-2], run, "--json")
    start_and_fill(studio, flags, run)
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    done = studio("resume", run)
    assert done.code == 1, done.err
    assert "No space left" in done.err and f"studio resume {run}" in done.err and "Traceback" not in done.err
    from training.checkpoint import latest_checkpoint, why_damaged

    last = latest_checkpoint(run)
    assert last is not None and last.name == "checkpoint-1" and why_damaged(last) is None
    (small_disk / "filler").unlink()
    ends_like_one_that_never_stopped(studio, flags, run, tmp_path)


def test_what_is_not_installed_is_said_before_a_folder_is_made(studio, flags, tmp_path, monkeypatch):
    monkeypatch.setattr("training.optimizers.find_spec", lambda name: None)
    refused(studio(*flags, "--set", "optimizer=adamw8bit"), "bitsandbytes is not installed", "[eight-bit]")
    refused(studio(*flags, "--set", "optimizer=adamw9bit"), "adamw9bit", "did you mean 'adamw8bit'")
    refused(studio(*flags, "--set", "lr_scheduler=cosin"), "cosin", "did you mean 'cosine'")
    assert not (tmp_path / "run").exists()


def test_methods_lists_them_all_with_their_options(studio):
    from training.methods import METHODS

    done = studio("methods", "--json")
    rows = {row["name"]: row for row in done.result["methods"]}
    assert rows.keys() == set(METHODS)
    assert rows["sara"]["options"]["fraction"]["default"] == 0.02
    assert all(row["about"] and row["paper"] for row in rows.values())
