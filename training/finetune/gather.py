"""The samples of a fine-tuning run: what the config names, cut to what the model takes."""

from collections.abc import Callable
from dataclasses import replace

from training.finetune.cache import Cache
from training.finetune.config import FinetuneConfig
from training.finetune.data import Found, Sample, Wanted, find_samples
from training.finetune.data.poses import keep_posed
from training.finetune.families import Family


def wanted_of(config: FinetuneConfig, family: Family) -> dict[str, Wanted]:
    """What every task of a run takes.

    Raises:
        ValueError: the model does not know a task, or has no clips of that length.
    """
    wanted = {}
    for task in config.tasks(family.tasks):
        want = family.wants(task)
        # several tasks share num_frames; those on single pictures keep to them
        alone = len(config.tasks(family.tasks)) == 1
        frames = config.num_frames if alone or not (want.stills and want.frames == 1) else None
        wanted[task] = want.asked(frames, config.fps)
    return wanted


def gather(
    config: FinetuneConfig,
    family: Family,
    cache: Cache,
    *,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Finds the samples; where a task needs poses, those are found as well, and clips without one are left out.

    Raises:
        ValueError: there is nothing to train on.
    """
    wanted = wanted_of(config, family)
    found = find_samples(
        config.data, wanted, resolution=config.resolution, multiple=family.multiple, most_windows=config.clip_windows,
        flip=config.flip, cache=cache, on_file=on_file,
    )  # fmt: skip
    return with_poses_found(found, wanted, cache)


def with_poses_found(found: Found, wanted: dict[str, Wanted], cache: Cache) -> Found:
    """Leaves out the clips that a task cannot use for want of a body."""
    kept: list[Sample] = []
    problems = list(found.problems)
    for task, want in wanted.items():
        own = [sample for sample in found.samples if sample.task == task]
        if want.poses:
            own, missing = keep_posed(own, cache, lambda sample: sample.fps or 1.0)
            problems += missing
        kept += own
    return replace(found, samples=tuple(kept), problems=tuple(problems))
