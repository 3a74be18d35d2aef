"""The cache on disk: whole or absent, shared, damaged, full."""

import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from training.finetune.cache import Cache, CacheError


def fill(folder, worker):
    """What two processes do at once: the same keys in opposite orders."""
    cache = Cache(folder)
    keys = range(60) if worker else reversed(range(60))
    return all(torch.equal(cache.get(f"key {k}", lambda k=k: made(k))["x"], made(k)["x"]) for k in keys)


def made(k):
    return {"x": torch.full((50, 50), float(k))}


def test_two_processes_that_race_for_the_same_keys_both_get_what_is_right(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        assert all(pool.map(fill, [tmp_path] * 2, range(2)))
    names = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(names) == 60 and all(name.endswith(".safetensors") for name in names)

    def refuse():
        raise AssertionError("made again")

    assert torch.equal(Cache(tmp_path).get("key 7", refuse)["x"], made(7)["x"])


@pytest.mark.parametrize("left", [0, 5, 0.5])
def test_a_truncated_file_is_made_again(left, tmp_path):
    cache = Cache(tmp_path)
    cache.get("a", lambda: made(1))
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if left < 1 else left])
    assert torch.equal(cache.get("a", lambda: made(2))["x"], made(2)["x"])
    assert torch.equal(cache.get("a", lambda: made(3))["x"], made(2)["x"])


def test_an_interrupted_entry_leaves_nothing_behind(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).get("a", interrupted)
    assert not list(tmp_path.rglob("*"))


def test_a_disk_that_takes_no_more_gives_one_message_with_the_fix(tmp_path):
    """In a process that may not write files above 4 KiB: the system refuses as it does on a full disk."""
    program = """
        import resource, signal, sys, torch
        from pathlib import Path
        from training.finetune.cache import Cache, CacheError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        cache = Cache(Path(sys.argv[1]))
        cache.get("small", lambda: {"x": torch.zeros(10)})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            cache.get("large", lambda: {"x": torch.zeros(10000)})
        except CacheError as error:
            print(error)
        cache.get("small", lambda: 1 / 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout and "cache_dir" in done.stdout and str(tmp_path) in done.stdout
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_cache_that_is_a_file_is_an_error_of_the_cache(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        Cache(tmp_path / "cache").get("a", lambda: made(1))


def test_tensors_that_share_memory_are_stored(tmp_path):
    whole = torch.arange(4.0)
    Cache(tmp_path).get("a", lambda: {"x": whole, "y": whole[:2]})
    assert Cache(tmp_path).get("a", dict)["y"].tolist() == [0, 1]
