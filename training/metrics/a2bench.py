"""a2bench-mini: characters that the animator never saw, doing motions whose true outcome is known.

Made after A2Bench (Animate-X, arXiv 2410.10306, sec. 4.1), whose files cannot be had: a synthetic stand-in, with its
own numbers. Setting A: the driving skeleton is a human's, the truth is the character doing that motion. Setting B: the
skeleton is the character's own. Setting T: no pose; the background moves after the text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from models.codecs import decode_latents, encode_latents
from models.pipeline import AnimateXPipeline
from pose.align import align_poses
from pose.choreography import HUMAN
from pose.media import to_uint8
from pose.sequence import PoseSequence
from training.data.backgrounds import DYNAMICS
from training.data.puppets import Puppet
from training.data.world import Clips, clip_spec, draw_clips
from training.metrics.judge import Judge
from training.metrics.quality import frechet_distance, l1, motion_energy, pck, psnr_star, sharpness, ssim
from training.precision import in_half

Setting = Literal["a", "b", "t"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    setting: Setting
    method: str
    samples: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The drawn clips of the benchmark with the skeletons that drive them."""

    setting: Setting
    clips: Clips
    driving: tuple[PoseSequence, ...] | None
    """On the reference's canvas; None in setting T."""
    driving_frames: tuple[Tensor, ...] | None
    """What the implicit indicator sees: uint8 (frames, height, width, 3) of another body doing the motion."""
    driving_found: tuple[PoseSequence, ...] | None
    """The skeletons in `driving_frames`."""

    def __len__(self) -> int:
        return len(self.clips.specs)


def make_suite(
    setting: Setting, count: int = 100, *, size: tuple[int, int] = (128, 128), num_frames: int = 17
) -> Suite:
    """Draws the first `count` clips of the test split for a setting. `size` is (width, height) px."""
    specs = [clip_spec("test", k, "background" if setting == "t" else "animation") for k in range(count)]
    if setting != "t":
        # the suite judges the character; what the background does is judged in T
        specs = [replace(s, scene=replace(s.scene, dynamic="still")) for s in specs]
    clips = draw_clips(specs, num_frames=num_frames, size=size)
    if setting == "t":
        return Suite(setting=setting, clips=clips, driving=None, driving_frames=None, driving_found=None)
    people = [_human(spec.puppet) for spec in specs]
    twins = draw_clips(specs, num_frames=num_frames, size=size, bodies=people)
    frames = tuple(to_uint8(v) for v in twins.video)
    found = tuple(twins.poses(k) for k in range(count))
    if setting == "b":
        driving = tuple(clips.poses(k) for k in range(count))
    else:
        driving = tuple(align_poses(found[k], clips.reference_pose(k)) for k in range(count))
    return Suite(setting=setting, clips=clips, driving=driving, driving_frames=frames, driving_found=found)


def _human(puppet: Puppet) -> Puppet:
    """A person in the colours of nobody: what a driving video shows."""
    return replace(
        puppet, **HUMAN, plan="human", colour="grey", second="white", limb_colour="grey", pattern="solid", ears="none",
        hat="none", torso_rise=0.0, torso_width=1.0, torso_roundness=0.5, torso_taper=-0.12, arm_radius=0.03,
        leg_radius=0.042, head_width=0.9, head_roundness=0.9, tail=0.0, antennae=0.0, has_arms=1.0, has_legs=1.0,
        height=0.78,
    )  # fmt: skip


Method = Callable[[Suite, slice], Float[Tensor, "batch frames 3 height width"]]
"""Makes the videos of a part of the suite, RGB in 0..1."""


def reference_repeated(suite: Suite, part: slice) -> Float[Tensor, "batch frames 3 height width"]:
    """The floor: the reference, standing still."""
    return repeat(suite.clips.reference[part], "b c h w -> b f c h w", f=suite.clips.video.shape[1])


def through_codec(pipeline: AnimateXPipeline) -> Method:
    """The ceiling: the true clips, encoded and decoded; no animator on this codec can be nearer."""

    def make(suite: Suite, part: slice) -> Tensor:
        video = rearrange(suite.clips.video[part], "b f c h w -> b c f h w") * 2 - 1
        with torch.no_grad(), in_half(pipeline.device):
            latents = encode_latents(pipeline.vae, video.to(pipeline.device))
            decoded = decode_latents(pipeline.vae, latents)
        return rearrange(decoded.float().cpu() / 2 + 0.5, "b c f h w -> b f c h w").clamp(0, 1)

    return make


def animated(
    pipeline: AnimateXPipeline,
    *,
    explicit: bool = True,
    implicit: bool = True,
    steps: int = 8,
    guidance: float = 1.0,
    seed: int = 0,
) -> Method:
    """The animator, with or without its indicators; without both it has no pose at all."""

    def make(suite: Suite, part: slice) -> Tensor:
        index = range(len(suite))[part]
        posed = suite.driving is not None and (explicit or implicit)
        with in_half(pipeline.device):
            output: Any = pipeline(
                reference=[to_uint8(picture) for picture in suite.clips.reference[part]],
                poses=list(suite.driving[part]) if suite.driving and posed else None,
                prompt=[suite.clips.specs[k].caption for k in index],
                reference_pose=[suite.clips.reference_pose(k) for k in index] if posed else None,
                driving_frames=list(suite.driving_frames[part])
                if suite.driving_frames and posed and implicit
                else None,
                driving_poses=list(suite.driving_found[part]) if suite.driving_found and posed else None,
                pose_scale=float(explicit),
                num_frames=suite.clips.video.shape[1],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed * 1_000_003 + k) for k in index],
                output_type="pt",
            )
        video: Tensor = output.frames
        return video.float().clamp(0, 1).cpu()

    return make


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the judge sees in a suite, the same for every method."""

    truth: Float[Tensor, "batch frames dim"]
    reference: Float[Tensor, "batch 1 dim"]


def look_at(suite: Suite, judge: Judge) -> Seen:
    """Shows the true clips and their references to the judge."""
    return Seen(truth=judge.features(suite.clips.video), reference=judge.features(suite.clips.reference[:, None]))


def evaluate(
    suite: Suite,
    name: str,
    method: Method,
    judge: Judge,
    *,
    seen: Seen | None = None,
    batch: int = 10,
    on_clips: Callable[[int], None] = lambda n: None,
) -> tuple[Row, Float[Tensor, "batch frames 3 height width"]]:
    """Makes and measures every video of a suite; also returns the videos, to be looked at.

    `seen` is what the judge sees in the truth, when it is known already.
    """
    seen = seen or look_at(suite, judge)
    videos, scores = [], []
    for first in range(0, len(suite), batch):
        part = slice(first, min(first + batch, len(suite)))
        made = method(suite, part)
        videos.append(made)
        truth = suite.clips.video[part]
        scores += [
            {
                "psnr": psnr_star(video, real),
                "ssim": ssim(video, real),
                "l1": l1(video, real),
                "sharpness": sharpness(video, real),
            }
            for video, real in zip(made, truth, strict=True)
        ]
        on_clips(made.shape[0])
    video, truth = torch.cat(videos), suite.clips.video
    metrics = {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}
    ours, real = judge.features(video), seen.truth
    if len(suite) > 1:
        metrics["fd_mini"] = frechet_distance(rearrange(ours, "b f d -> (b f) d"), rearrange(real, "b f d -> (b f) d"))
        metrics["fd_mini_video"] = frechet_distance(_clip_features(ours), _clip_features(real))
    metrics["identity"] = float((ours * seen.reference).sum(-1).mean())
    exists = suite.clips.confidence > 0
    if suite.setting == "t":
        background = _background_mask(suite)
        energy = [motion_energy(v, m) for v, m in zip(video, background, strict=True)]
        energy_true = [motion_energy(v, m) for v, m in zip(truth, background, strict=True)]
        metrics["background_motion"] = sum(energy) / len(energy)
        metrics["background_motion_true"] = sum(energy_true) / len(energy_true)
        names = list(DYNAMICS)
        shown = torch.tensor([names.index(s.scene.dynamic) for s in suite.clips.specs])
        metrics["text_accuracy"] = float((judge.dynamic(ours) == shown).float().mean())
        metrics["text_accuracy_of_truth"] = float((judge.dynamic(real) == shown).float().mean())
    else:
        right = total = 0
        for k, clip in enumerate(video):
            found, confidence = judge.keypoints(clip)
            r, n = pck(found, suite.clips.xy[k], exists[k], seen=confidence > 0)
            right, total = right + r, total + n
        metrics["pck"] = right / max(1, total)
    return Row(setting=suite.setting, method=name, samples=len(suite), metrics=metrics), video


def _clip_features(features: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch dims"]:
    """One vector a clip: the mean of its frames, and how they change from the first half to the second."""
    half = features.shape[1] // 2
    return torch.cat([features.mean(1), features[:, half:].mean(1) - features[:, :half].mean(1)], dim=1)


def _background_mask(suite: Suite) -> Float[Tensor, "batch frames 1 height width"]:
    """1 where the character is not, from its joints' box with a margin."""
    height, width = suite.clips.video.shape[-2:]
    mask = torch.ones(*suite.clips.video.shape[:2], 1, height, width)
    for k in range(len(suite)):
        seen = suite.clips.xy[k][suite.clips.confidence[k] > 0]
        (x0, y0), (x1, y1) = (seen.amin(0) - 0.12 * width).tolist(), (seen.amax(0) + 0.12 * width).tolist()
        mask[k, :, :, max(0, int(y0)) : int(y1), max(0, int(x0)) : int(x1)] = 0
    return mask


def rows(
    pipeline: AnimateXPipeline,
    judge: Judge,
    settings: Sequence[Setting],
    count: int,
    *,
    steps: int = 8,
    guidance: float = 1.0,
    on_start: Callable[[Setting, str, int], None] = lambda s, m, n: None,
    on_clips: Callable[[int], None] = lambda n: None,
) -> Iterator[tuple[Row, Suite, Tensor]]:
    """Runs the benchmark: the animator and its baselines in every setting asked for."""

    def ours(*, explicit: bool = True, implicit: bool = True) -> Method:
        return animated(pipeline, explicit=explicit, implicit=implicit, steps=steps, guidance=guidance)

    unposed: dict[str, tuple[Row, Tensor]] = {}
    for setting in settings:
        config = pipeline.config
        suite = make_suite(setting, count, size=(config["width"], config["height"]), num_frames=config["num_frames"])
        seen = look_at(suite, judge)
        methods: dict[str, Method] = {"reference repeated": reference_repeated}
        if setting == "b":
            methods["truth through the codec"] = through_codec(pipeline)
        if setting == "t":
            methods |= {"no text": _untold(ours()), "animator": ours()}
        else:
            methods["no pose"] = ours(explicit=False, implicit=False)
            if setting == "b":
                methods |= {
                    "no explicit pose (EPI)": ours(explicit=False),
                    "no implicit pose (IPI)": ours(implicit=False),
                }
            methods["animator"] = ours()
        for name, method in methods.items():
            on_start(setting, name, len(suite))
            # A and B differ in what drives the clips alone: what nothing drives is the same in both
            shared = setting != "t" and name in ("reference repeated", "no pose")
            if shared and name in unposed:
                row, video = unposed[name]
                on_clips(len(suite))
                yield replace(row, setting=setting), suite, video
                continue
            row, video = evaluate(suite, name, method, judge, seen=seen, on_clips=on_clips)
            if shared:
                unposed[name] = row, video
            yield row, suite, video


def _untold(method: Method) -> Method:
    """The same without the prompt."""

    def silent(suite: Suite, part: slice) -> Tensor:
        specs = tuple(replace(spec, caption="") for spec in suite.clips.specs)
        return method(replace(suite, clips=replace(suite.clips, specs=specs)), part)

    return silent
