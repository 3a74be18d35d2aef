"""Checkpoints are whole or absent."""

import json
import subprocess

import pytest
import torch

from training.checkpoint import (
    CheckpointError,
    SaveError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    whole_checkpoint,
    why_damaged,
)

STATE = {"fingerprint": {}}


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {name: {"w": torch.full((3,), value)} for name in ("model", "average", "optimizer")}


def test_what_is_saved_is_read_back(tmp_path):
    path = save_checkpoint(tmp_path, 7, tensors(1.5), {"fingerprint": {"a": [1, 2]}}, keep=2)
    found, state = load_checkpoint(path)
    assert state == {"fingerprint": {"a": [1, 2]}, "step": 7}
    assert all(torch.equal(group["w"], torch.full((3,), 1.5)) for group in found.values())


def test_a_numbered_cpu_is_a_cpu(tmp_path):
    path = save_checkpoint(tmp_path, 1, tensors(1.0), STATE, keep=1)
    assert torch.equal(load_checkpoint(path, torch.device("cpu", 0))[0]["model"]["w"], torch.ones(3))


def test_rotation_keeps_the_newest_and_latest_stays_whole(tmp_path):
    for step in (1, 2, 10, 9):  # by number, not by name; 9 comes last, as after a resume from an older one
        save_checkpoint(tmp_path, step, tensors(step), STATE, keep=2)
        newest = latest_checkpoint(tmp_path)
        assert newest is not None and newest.name == f"checkpoint-{step}"
        assert load_checkpoint(newest)[1]["step"] == step
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-9"]


def test_the_one_that_latest_names_stays_even_when_newer_numbers_lie_there(tmp_path):
    save_checkpoint(tmp_path, 10, tensors(10), STATE, keep=1)
    save_checkpoint(tmp_path, 5, tensors(5), STATE, keep=1)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None and load_checkpoint(newest)[1]["step"] == 5


def test_a_copy_that_the_user_made_is_left_alone(tmp_path):
    (tmp_path / "checkpoint-3-good").mkdir()
    for step in (1, 2):
        save_checkpoint(tmp_path, step, tensors(step), STATE, keep=1)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3-good"]


def test_a_crash_before_the_rename_is_harmless_and_cleaned_up(tmp_path):
    save_checkpoint(tmp_path, 1, tensors(1), STATE, keep=2)
    for step in (2, 3):
        staged = tmp_path / f".checkpoint-{step}.tmp"
        staged.mkdir()
        (staged / "model.safetensors").write_bytes(b"half")
    newest = latest_checkpoint(tmp_path)
    assert newest is not None and newest.name == "checkpoint-1"
    save_checkpoint(tmp_path, 2, tensors(2), STATE, keep=2)
    assert not list(tmp_path.glob(".*"))
    assert load_checkpoint(tmp_path / "checkpoint-2")[0]["model"]["w"][0] == 2


def test_a_step_can_be_saved_again(tmp_path):
    for value in (1, 2):
        save_checkpoint(tmp_path, 4, tensors(value), STATE, keep=2)
    assert load_checkpoint(tmp_path / "checkpoint-4")[0]["model"]["w"][0] == 2
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_weights_file_is_one_clear_error(tmp_path):
    path = save_checkpoint(tmp_path, 1, tensors(1), STATE, keep=2)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"checkpoint-1 cannot be read: .*older checkpoint"):
        load_checkpoint(path)


def test_a_missing_weights_file_is_one_clear_error(tmp_path):
    path = save_checkpoint(tmp_path, 1, tensors(1), STATE, keep=2)
    (path / "average.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no average\.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps({"step": 1}), "\xff\xfe"])
def test_a_damaged_state_is_one_clear_error(text, tmp_path):
    path = save_checkpoint(tmp_path, 1, tensors(1), STATE, keep=2)
    (path / "state.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="checkpoint-1"):
        load_checkpoint(path)


def test_a_pointer_to_nothing_is_one_clear_error(tmp_path):
    (tmp_path / "latest").write_text("checkpoint-5")
    with pytest.raises(CheckpointError, match="names checkpoint-5, which is not in"):
        latest_checkpoint(tmp_path)


def test_a_folder_without_checkpoints_has_no_latest(tmp_path):
    assert latest_checkpoint(tmp_path) is None


def flip_a_bit(path):
    """What a disk does; the file still reads as safetensors."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_every_file_has_its_hash_as_sha256sum_reads_it(tmp_path):
    path = save_checkpoint(tmp_path, 1, tensors(1), STATE, keep=2)
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(line.split(":")[0] for line in done.stdout.splitlines()) == [
        "average.safetensors", "model.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip
    assert why_damaged(path) is None
    flip_a_bit(path / "model.safetensors")
    assert why_damaged(path) == "model.safetensors does not have its hash"
    (path / "average.safetensors").unlink()
    assert why_damaged(path) == "average.safetensors is missing"


def test_a_damaged_checkpoint_gives_way_to_the_newest_whole_one_and_it_is_said(tmp_path):
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, step, tensors(step), STATE, keep=3)
    flip_a_bit(tmp_path / "checkpoint-6" / "optimizer.safetensors")
    (tmp_path / "checkpoint-4" / "state.json").unlink()
    path, notes = whole_checkpoint(tmp_path)
    assert path == tmp_path / "checkpoint-2" == latest_checkpoint(tmp_path)
    assert notes == [
        "checkpoint-6 is damaged: optimizer.safetensors does not have its hash",
        "checkpoint-4 is damaged: state.json is missing", "going on from checkpoint-2 instead",
    ]  # fmt: skip
    assert whole_checkpoint(tmp_path) == (path, [])
    # what is damaged counts no more: the next saves do not keep it in place of a whole one
    save_checkpoint(tmp_path, 3, tensors(3), STATE, keep=2)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert sorted(p.name for p in tmp_path.glob("damaged-*")) == ["damaged-checkpoint-4", "damaged-checkpoint-6"]


def test_a_checkpoint_that_was_about_to_be_replaced_is_found(tmp_path):
    path = save_checkpoint(tmp_path, 4, tensors(4), STATE, keep=1)
    path.rename(tmp_path / ".checkpoint-4.replaced.tmp")  # and then the process was killed
    found, notes = whole_checkpoint(tmp_path)
    assert found == path and load_checkpoint(path)[1]["step"] == 4
    assert notes == ["checkpoint-4 is damaged: it is missing", "going on from checkpoint-4 instead"]


def test_when_all_are_damaged_it_is_said_of_each(tmp_path):
    for step in (1, 2):
        flip_a_bit(save_checkpoint(tmp_path, step, tensors(step), STATE, keep=2) / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint-2 is damaged: .*; checkpoint-1 is damaged: .*begin anew"):
        whole_checkpoint(tmp_path)


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert whole_checkpoint(tmp_path) == (None, [])


def test_what_cannot_be_written_leaves_the_last_one_and_says_what_to_do(tmp_path):
    before = save_checkpoint(tmp_path, 1, tensors(1), STATE, keep=1)
    (tmp_path / ".checkpoint-2.tmp").write_text("a file where the folder should be")
    with pytest.raises(SaveError, match=r"checkpoint-2 could not be written .*the last whole one is .*checkpoint-1"):
        save_checkpoint(tmp_path, 2, tensors(2), STATE, keep=1)
    assert latest_checkpoint(tmp_path) == before and why_damaged(before) is None
