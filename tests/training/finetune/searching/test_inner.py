"""The inner loop on a tiny model: what it leaves, and that it goes on exactly where it was killed."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from einops import rearrange
from PIL import Image

from training.finetune.config import DataSet, FinetuneConfig
from training.finetune.searching.inner import InnerTraining, read_points, samples_of
from training.finetune.searching.judge import FINAL_SEED, Judge
from training.finetune.searching.settings import SearchSettings
from training.finetune.seen import middle_picture
from training.methods.adapter import apply_adapter, load_adapter
from training.metrics.features import Pixels
from training.metrics.memorization import copy_rate
from training.metrics.softness import blurred
from training.search.space import Candidate

SETTINGS = {"samples": 16, "final_samples": 16, "num_inference_steps": 2, "checkpoints": (1, 2, 4)}


def blotches(seed):
    """A picture that looks like no other one's."""
    colours = torch.randint(256, (8, 8, 3), generator=torch.Generator().manual_seed(seed)).byte()
    return Image.fromarray(colours.numpy()).resize((32, 32))


def make(animator, folder, count=52, *, settings=None, **more):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for k in range(count):
        blotches(k).save(folder / "data" / f"{k:02}.png")
        # as files often are, in order of what they show
        (folder / "data" / f"{k:02}.txt").write_text("early" if k < count // 2 else "late")
    told = {
        "model": str(animator), "data": (DataSet(folder=folder / "data"),), "resolution": 32, "max_train_steps": 4,
        "train_batch_size": 2, "method": "full", "learning_rate": 0.01, "mixed_precision": "fp32",
        "validation_share": 0.8, **more,
    }  # fmt: skip
    return InnerTraining(
        FinetuneConfig.model_validate(told), SearchSettings.model_validate({**SETTINGS, **(settings or {})}), None,
        cache=folder / "cache", device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def inner(animator, tmp_path_factory):
    return make(animator, tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def candidate(inner):
    mask = (True, *([False] * (len(inner.space.sites) - 1)))
    return Candidate(mask=mask, values={"learning_rate": 0.02})


def same(one, two):
    def bare(points):
        return [(p.step, p.quality, p.copying, p.metrics, p.path and Path(p.path).name) for p in points]

    return bare(one) == bare(two)


def test_a_candidate_gives_a_point_and_an_adapter_at_every_checkpoint(inner, candidate, tmp_path):
    before = {n: p.clone() for n, p in inner.bench.network.named_parameters()}
    points = list(inner(candidate, tmp_path / "t"))
    assert [p.step for p in points] == [1, 2, 4]
    assert all(0 <= p.copying <= 1 and p.judge_seconds > 0 for p in points)
    # the model is as it was, bit for bit
    assert all(torch.equal(p, before[n]) for n, p in inner.bench.network.named_parameters())
    site = inner.space.sites[0]
    sizes = []
    for point in points:
        adapter = load_adapter(Path(point.path))
        assert {name for name in adapter.delta if not name.startswith(site)} == set()
        sizes.append(sum(float(change.abs().sum()) for change in adapter.delta.values()))
    assert 0 < sizes[0] < sizes[1]
    assert points[0].metrics["trained-numbers"] == inner.trained_numbers(candidate) > 0
    width, height = inner.bench.samples[0].size
    for step in (1, 2, 4):
        with Image.open(samples_of(tmp_path / "t", step)) as strip:
            assert strip.size == (6 * width, height)


def test_what_measuring_takes_is_told_by_counted_passes(inner, candidate, tmp_path):
    passes = Counter()
    hook = inner.bench.network.register_forward_hook(
        lambda network, args, told, out: passes.update({torch.is_grad_enabled(): len(out[0])}), with_kwargs=True
    )
    list(inner(candidate, tmp_path / "t"))
    hook.remove()
    assert passes[True] == 4 * 2
    assert inner.measuring_share == pytest.approx(passes[False] / (3 * passes[True]))


def test_the_measured_model_is_the_one_in_the_file(inner, candidate, tmp_path):
    points = list(inner(candidate, tmp_path / "t"))
    tuner = apply_adapter(inner.bench.network, load_adapter(Path(points[-1].path)))
    again = inner._judge()
    tuner.unload()
    # its values are bf16 in the file
    assert again.quality == pytest.approx(points[-1].quality, abs=0.02)
    base = inner._judge()
    assert base.quality != points[-1].quality


@pytest.mark.parametrize("after", [1, 2, 3])
def test_it_goes_on_where_it_was_stopped(inner, candidate, tmp_path, after):
    straight = list(inner(candidate, tmp_path / "straight"))
    going = inner(candidate, tmp_path / "stopped")
    list(itertools.islice(going, after))
    going.close()
    assert len(read_points(tmp_path / "stopped")) == after
    assert same(straight, list(inner(candidate, tmp_path / "stopped")))


def test_it_measures_what_was_saved_but_not_measured(inner, candidate, tmp_path):
    """Killed between a checkpoint and its measurement, or amid the line that says so."""
    straight = list(inner(candidate, tmp_path / "straight"))
    going = inner(candidate, tmp_path / "killed")
    list(itertools.islice(going, 2))
    going.close()
    lines = (tmp_path / "killed" / "points.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "killed" / "points.jsonl").write_text(lines[0] + lines[1][:20])
    assert same(straight, list(inner(candidate, tmp_path / "killed")))


def test_the_empty_mask_is_the_model_itself(inner, tmp_path):
    nothing = Candidate(mask=(False,) * len(inner.space.sites), values={"learning_rate": 0.02})
    assert not inner.setup.trains(nothing)
    (point,) = inner(nothing, tmp_path / "t")
    assert (point.step, point.path) == (0, None)
    assert same([point], list(inner(nothing, tmp_path / "t")))
    with pytest.raises(ValueError, match="mask is empty"):
        inner.setup.run_of(nothing)


def test_the_final_choice_looks_at_other_pictures_and_seeds(inner, candidate, tmp_path):
    assert not {s.piece for s in inner.search_side} & {s.piece for s in inner.final_side}
    points = list(inner(candidate, tmp_path / "t"))
    base, last = inner.finally_judged(None), inner.finally_judged(Path(points[-1].path))
    assert base.quality == inner._judge_by(inner.final_side, 16, FINAL_SEED)().quality
    assert base.quality not in (last.quality, inner._judge().quality)
    names = {name.partition("(")[0] for name in last.metrics}
    assert names >= {"kd", "kd-error", "copy-rate", "copy-rate-low", "recall", "coverage", "loss-gap"}
    assert "membership-loss" not in names  # 20 held-out pictures are too few for that


def test_the_final_choice_asks_what_losses_give_away_where_there_are_enough(animator, tmp_path):
    inner = make(animator, tmp_path, 210, settings={"num_inference_steps": 1}, validation_share=0.96)
    judged = inner.finally_judged(None)
    assert len(inner.final_side) >= 100
    count = len(inner.bench.samples) + len(inner.final_side)
    assert 0 < judged.metrics[f"membership-loss(N={count})"] < 1
    assert 0 <= judged.metrics[f"membership-loss-tpr(N={count})"] <= 1


def test_samples_are_asked_of_all_captions_not_of_the_first_ones(inner):
    asked = Counter(inner._judge._told)
    trained = Counter(sample.caption for sample in inner.bench.samples)
    assert set(asked) == {"early", "late"}
    assert asked["early"] / 16 == pytest.approx(trained["early"] / trained.total(), abs=0.1)


def test_soft_samples_are_not_taken_for_copies(inner, monkeypatch):
    soft = blurred(torch.cat([middle_picture(sample) for sample in inner.final_side[:16]]), 4.0)
    made = (rearrange(soft, "n c h w -> n h w c") * 255).round().byte()
    monkeypatch.setattr(inner.bench.family, "sample_many", lambda *asked, **how: made)

    class Raw(Pixels):
        """Without taking off the mean, as most spaces are: what is soft is near to all."""

        def _features(self, pictures):
            return pictures.flatten(1)

    space = Raw(torch.device("cpu"))
    space.version = "raw"
    judge = Judge(inner.bench, space, inner.search_side, samples=16, steps=2, quantile=0.05)
    # they are near to all pictures, trained or not, and few held-out ones are as near while these are sharp
    assert copy_rate(space(soft), judge._of_trained, judge._of_held_out).value > 0.8
    assert judge().copying < 0.3


def test_a_mirrored_copy_is_a_copy_where_mirrored_pictures_are_trained(animator, tmp_path, monkeypatch):
    def copying(inner):
        mirrored = torch.cat([middle_picture(sample, mirrored=True) for sample in inner.bench.samples[:8]])
        made = (rearrange(mirrored, "n c h w -> n h w c") * 255).round().byte()
        monkeypatch.setattr(inner.bench.family, "sample_many", lambda *asked, **how: made)
        return inner._judge().copying

    assert copying(make(animator, tmp_path, flip=True)) == 1
    assert copying(make(animator, tmp_path)) < 0.5


def test_too_few_held_out_pictures_are_told(animator, tmp_path):
    with pytest.raises(ValueError, match=r"1 pictures are trained and 4 held out: a search needs 40 held-out ones"):
        make(animator, tmp_path, 5)


def test_pictures_on_both_sides_are_told(animator, tmp_path):
    make(animator, tmp_path)  # its pictures alone have none
    for number in range(12):  # the same by sight, not by bytes: they fall on either side
        picture = blotches(1000)
        picture.putpixel((number, 0), (0, 0, 0))
        picture.save(tmp_path / "data" / f"twin-{number}.png")
    with pytest.raises(
        ValueError, match=r"search: \d+ held-out pictures look like trained ones.*twin-\d+.png shows what"
    ):
        make(animator, tmp_path)


def test_an_option_that_the_method_does_not_have_is_told(animator, tmp_path):
    with pytest.raises(ValueError, match="rank"):
        make(animator, tmp_path, settings={"options": {"rank": (4, 8)}})


def test_a_stop_step_ends_a_run_and_leaves_the_points_before_it_as_they_are(animator, candidate, tmp_path):
    inner = make(animator, tmp_path, settings={"search_stop": True})
    assert inner.space.numbers["stop_step"].options == (1, 2, 4)
    whole, short = (
        list(inner(Candidate(mask=candidate.mask, values={"learning_rate": 0.02, "stop_step": n}), tmp_path / f"{n}"))
        for n in (4, 2)
    )
    assert [p.step for p in short] == [1, 2] and same(whole[:2], short)
