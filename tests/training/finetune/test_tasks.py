"""The animator's three tasks in fine-tuning."""

import json

import pytest
import torch

from training.events import Evaluated, Finished, Step
from training.finetune.cache import Cache
from training.finetune.config import DataSet, FinetuneConfig
from training.finetune.data import DataError, Stream, Wanted, find_samples
from training.finetune.data.poses import find_poses, place_poses
from training.finetune.families import open_family
from training.finetune.gather import gather
from training.finetune.learner import FinetuneLearner
from training.finetune.run import finetune, read_finetune
from training.tasks import Task

from .conftest import brightening, picture, video


def config(model, folder, **changes):
    values = {
        "model": str(model), "data": [{"folder": folder}], "resolution": 32, "max_train_steps": 4, "num_frames": 5,
        "train_batch_size": 2, "mixed_precision": "fp32", "learning_rate": 1e-2, "method_options": {"fraction": 0.1},
    }  # fmt: skip
    return FinetuneConfig.model_validate({**values, **changes})


@pytest.fixture
def make(animator, dances, tmp_path):
    """A learner of the tiny animator on the two dances."""

    def learner(task, folder=dances, **changes):
        told = config(animator, folder, task=task, **changes)
        family, cache = open_family(animator), Cache(tmp_path / "cache")
        return FinetuneLearner(family, gather(told, family, cache).samples, [], told, cache)

    return learner


def told(learner, task, *, varied=False):
    """What the network is told of a batch."""
    batch = learner.batch(Task(name=task), 0, 2, torch.Generator())
    seeds = batch.draws.seeds if varied else ()
    return batch, learner._family._told(batch.encoded, batch.embedded["tokens"], seeds)


def test_text_to_image_is_told_the_text_alone(make):
    batch, said = told(make("text-to-image", num_frames=None), "text-to-image")
    assert batch.encoded.keys() == {"latents"} and batch.encoded["latents"].shape[2] == 1
    assert (said.reference == 0).all() and said.image is None and said.explicit is None


def test_ti2v_is_told_the_first_frame_and_no_pose(make):
    from models.codecs import reference_latents

    learner = make("ti2v")
    batch, said = told(learner, "ti2v")
    assert said.explicit is None and said.implicit is None and said.reference_pose is None
    (view, _) = learner._streams["ti2v"].take(0, 2)
    with torch.no_grad():
        vae = learner._family.pipeline.vae
        first = reference_latents(vae, view.pixels()[:1], num_frames=5, mode="every")
        seen = learner._family.pipeline.image_encoder(view.pixels()[:1]).tokens
    assert torch.equal(said.reference[:1], first) and torch.allclose(said.image[:1], seen, atol=1e-5)
    assert batch.encoded["latents"].shape[2] == 2


def test_animation_is_told_what_the_animators_own_training_tells_it(make):
    """The recipe's network input, made here from the same pieces: skeletons, reference pose, implicit motion."""
    from models.conditioning import pose_pixels
    from pose.implicit import keypoint_features

    learner = make("animation")
    batch, said = told(learner, "animation")
    view = learner._streams["animation"].take(0, 2)[0]
    pipe = learner._family.pipeline
    poses = place_poses(find_poses(view.sample, learner._cache, 12.0), view)
    size = view.sample.size
    with torch.no_grad():
        explicit = pipe.epi.encode_pose(pose_pixels(poses, size))
        still = pipe.epi.encode_reference_pose(pose_pixels(poses.frame(view.reference), size)[:, :, 0])
        motion = pipe.ipi(pipe.image_encoder(view.pixels()).pooled[None], keypoint_features(poses)[None])
    assert torch.allclose(said.explicit[:1], explicit, atol=1e-5)
    assert torch.allclose(said.reference_pose[:1], still, atol=1e-5)
    assert torch.allclose(said.implicit[:1], motion, atol=1e-5)
    assert batch.encoded["xy"].shape == (2, 5, 18, 2)


def test_in_training_skeletons_are_bent_and_parts_left_out_and_when_measured_nothing_varies(make):
    learner = make("animation")
    family = learner._family
    batch = learner.batch(Task(name="animation"), 0, 2, torch.Generator())
    many = {name: value[:1].expand(24, *value.shape[1:]) for name, value in batch.encoded.items()}
    tokens = batch.embedded["tokens"][:1].expand(24, -1, -1)
    with torch.no_grad():
        same = family._told(many, tokens, ())
        varied = family._told(many, tokens, range(24))
        again = family._told(many, tokens, range(24))
    assert (same.explicit == same.explicit[:1]).all()
    gone = (varied.implicit == 0).all((1, 2))
    assert 4 < int(gone.sum()) < 20  # half of them, each for itself
    changed = (varied.explicit != same.explicit).any(2).any(1)
    assert 4 < int(changed.sum()) < 24
    assert torch.equal(varied.explicit, again.explicit) and torch.equal(varied.implicit, again.implicit)


def test_poses_move_with_the_pixels_when_cut_and_mirrored(dances):
    """The joint lies on the same colour of the picture, whatever is done to both."""
    (sample,) = find_samples(
        [DataSet(folder=dances)], {"t": Wanted(frames=13, factor=4, fps=12.0, poses=True)}, resolution=32, multiple=16
    ).samples[:1]
    from training.finetune.data import View

    poses = find_poses(sample, Cache(dances / "cache"), 12.0)
    plain, mirrored = (place_poses(poses, View(sample=sample, caption="", mirrored=m)) for m in (False, True))
    seen = plain.confidence > 0
    assert torch.allclose(plain.xy[seen], poses.xy[seen] / 2, atol=1e-4)  # 64 px to 32
    right, left = 4, 7
    assert torch.allclose(mirrored.xy[:, left, 0], sample.size[0] - plain.xy[:, right, 0], atol=1e-4)
    assert (mirrored.xy[mirrored.confidence == 0] == -1).all()


def test_keypoints_are_found_in_the_clip_where_no_file_has_them_and_kept(dances, tmp_path):
    from training.data.world import clip_spec, draw_clips

    for path in dances.glob("*.keypoints.json"):
        path.unlink()
    wanted = {"t": Wanted(frames=13, factor=4, fps=12.0, poses=True)}
    samples = find_samples([DataSet(folder=dances)], wanted, resolution=64, multiple=16).samples
    cache = Cache(tmp_path / "cache")
    clips = draw_clips([clip_spec("train", k) for k in (1, 2)], num_frames=13, size=(64, 64))
    for k, sample in enumerate(samples):
        found = find_poses(sample, cache, 12.0)
        both = found.visible & (clips.confidence[k] > 0)
        away = (found.xy - clips.xy[k]).norm(dim=-1)[both]
        assert both.float().mean() > 0.5 and away.median() < 4  # px of 64
    before = len(list((tmp_path / "cache").rglob("*.safetensors")))
    find_poses(samples[0], cache, 12.0)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == before == 2


def test_a_clip_without_a_body_is_left_out_of_animation_by_name(make, dances, tmp_path):
    video(dances / "fog.mp4", brightening(9, size=(64, 64)))
    learner = make("animation")
    assert {s.path.name for s in learner._streams["animation"].samples} == {"0.mp4", "1.mp4"}
    video(tmp_path / "fog" / "fog.mp4", brightening(9, size=(64, 64)))
    with pytest.raises(DataError, match=r"no clip has a body to animate; .*fog\.mp4.*keypoints\.json"):
        make("animation", tmp_path / "fog")


def test_keypoints_that_end_before_the_clip_are_named(dances, make):
    path = dances / "0.keypoints.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "frames": content["frames"][:2]}))
    assert {s.path.name for s in make("animation")._streams["animation"].samples} == {"1.mp4"}


@pytest.mark.parametrize("task", ["ti2v", "animation"])
def test_a_run_on_clips_learns(task, animator, dances, tmp_path):
    told = config(animator, dances, task=task, max_train_steps=40, validation_steps=100)
    family = open_family(animator)
    cache = Cache(tmp_path / "first")
    fresh = FinetuneLearner(family, gather(told, family, cache).samples, [], told, cache)
    before = fresh.evaluate()["loss_at_fixed_noise"]
    events = list(finetune(told, tmp_path / "run", device="cpu"))
    (after,) = [e.metrics["loss_at_fixed_noise"] for e in events if isinstance(e, Evaluated)]
    assert after < before
    assert events[-1].complete and (tmp_path / "run" / "samples" / "step-40.png").is_file()


def test_tasks_of_a_table_are_trained_in_turn_and_measured_each(animator, dances, tmp_path):
    picture(dances / "still.png", "red")
    table = {"text-to-image": 1.0, "ti2v": 1.0, "animation": 2.0}
    told = config(animator, dances, task=table, max_train_steps=16)
    events = list(finetune(told, tmp_path / "run", device="cpu"))
    steps = [event.task for event in events if isinstance(event, Step)]
    assert set(steps) == set(table)
    metrics = events[-1].metrics
    assert isinstance(events[-1], Finished)
    each = [metrics[f"loss_at_fixed_noise_{task}"] for task in table]
    assert metrics["loss_at_fixed_noise"] == pytest.approx((each[0] + each[1] + 2 * each[2]) / 4)
    # what is written down of it is read back, and goes on
    assert read_finetune(tmp_path / "run") == told
    list(finetune(told, tmp_path / "run", resume=True, device="cpu"))


def test_a_stopped_run_on_clips_goes_on_bit_for_bit(animator, dances, tmp_path):
    from training.methods.adapter import load_adapter

    told = config(animator, dances, task={"ti2v": 1.0, "animation": 1.0}, flip=True, crop="random", max_train_steps=6)
    list(finetune(told, tmp_path / "straight", device="cpu"))
    run = finetune(told, tmp_path / "bent", device="cpu")
    for event in run:
        if isinstance(event, Step) and event.step == 3:
            run.close()
    list(finetune(told, tmp_path / "bent", resume=True, device="cpu"))
    one, two = (load_adapter(tmp_path / name / "adapter.safetensors").delta for name in ("straight", "bent"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("ti2w", r"task ti2w: .* is not trained on that \(did you mean 'ti2v'\?\); it knows text-to-image, ti2v"),
        ({"ti2v": 0.0, "animation": 0.0}, "every weight is 0"),
    ],
)
def test_a_task_that_is_none_is_refused(task, words, animator, dances, tmp_path):
    with pytest.raises(ValueError, match=words):
        list(finetune(config(animator, dances, task=task), tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run" / "config.toml").exists()


def test_stable_diffusion_says_that_it_takes_pictures(stable_diffusion, dances, tmp_path):
    with pytest.raises(ValueError, match="it knows text-to-image"):
        list(finetune(config(stable_diffusion, dances, task="ti2v"), tmp_path / "run", device="cpu"))
    with pytest.raises(ValueError, match="takes single pictures"):
        list(finetune(config(stable_diffusion, dances), tmp_path / "run", device="cpu"))


def test_one_cache_serves_several_runs(animator, dances, tmp_path, monkeypatch):
    from training.finetune.families.animator import Animator

    told = config(animator, dances, task="ti2v", cache_dir=tmp_path / "shared", max_train_steps=2)
    list(finetune(told, tmp_path / "one", device="cpu"))
    assert not (tmp_path / "one" / "cache").exists()

    def refuse(self, *args):
        raise AssertionError("encoded twice")

    monkeypatch.setattr(Animator, "encode", refuse)
    monkeypatch.setattr(Animator, "sample_task", lambda self, task, clip, prompt, seed: torch.zeros(1, 8, 8, 3).byte())
    list(finetune(told, tmp_path / "two", device="cpu"))


def test_a_stream_of_clips_has_references_from_all_over_the_clip(dances, animator):
    told = config(animator, dances, num_frames=13)
    wanted = {"animation": Wanted(frames=13, factor=4, fps=12.0, poses=True)}
    stream = Stream(find_samples(told.data, wanted, resolution=32, multiple=16).samples, told)
    assert {view.reference for k in range(20) for view in stream.take(2 * k, 2)} == {0, 4, 8, 12}


def test_tokens_that_no_encoder_reads_are_counted(animator, stable_diffusion):
    assert open_family(stable_diffusion).num_tokens_cut(" ".join("abcde" * 16)) == 80 + 2 - 77
    assert open_family(animator).num_tokens_cut("a dog " * 16) == 32 + 2 - 16
    assert open_family(animator).num_tokens_cut("a dog") == 0
