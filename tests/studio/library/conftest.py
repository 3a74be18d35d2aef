"""A runs folder with things in it, made by hand so that no model has to work."""

import json
import struct

import pytest


@pytest.fixture(params=["sqlite", "postgres"])
def queue(request, tmp_path):
    from studio.jobs import Queue

    return request.getfixturevalue("shared_queue") if request.param == "postgres" else Queue(tmp_path / "runs")


@pytest.fixture
def library(queue):
    from studio.library import Library

    return Library(queue)


@pytest.fixture
def make_result(queue):
    """Writes a video with its sidecar and sheet, as `studio animate` does; gives the video."""

    def make(folder=None, name="animation", prompt="a red figure", seed=7, **request):
        from PIL import Image

        folder = folder or queue.new_folder()
        folder.mkdir(parents=True, exist_ok=True)
        video = folder / f"{name}.mp4"
        video.write_bytes(b"not really a video")
        told = {
            "schema": "animatex-studio/animation", "version": 1,
            "request": {"model": "mini", "adapter": [], "reference": "juice-box", "driving": "wave", "prompt": prompt,
                        "seed": seed, "output": str(video), **request},
            "output": {"file": video.name, "frames": 17, "width": 64, "height": 96, "fps": 12.0},
            "weights": {"transformer": "ab" * 32}, "metrics": {"seconds": 3.5}, "software": {"torch": "2.11"},
        }  # fmt: skip
        video.with_suffix(".json").write_text(json.dumps(told))
        Image.new("RGB", (64, 32), (200, 30, 30)).save(video.with_suffix(".png"))
        return video

    return make


@pytest.fixture
def make_run(queue):
    """Writes the folder of a finished fine-tuning run; gives the folder."""

    def make(name="cat"):
        folder = queue.root / name
        (folder / "samples").mkdir(parents=True)
        (folder / "config.toml").write_text('[finetune]\nmodel = "mini"\nmethod = "sara"\n')
        events = [{"event": "step", "step": 20, "losses": {"loss": 0.25}},
                  {"event": "finished", "step": 20, "complete": True}]  # fmt: skip
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        head = json.dumps({"__metadata__": {"format": "animatex-studio adapter 1", "method": "sara", "base": "ab",
                                            "notes": json.dumps({"base": "mini"})}}).encode()  # fmt: skip
        (folder / "adapter.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
        return folder

    return make
