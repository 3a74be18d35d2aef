"""The work behind `animate` and `background`: from a request to frames, and from frames to files."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from pose.align import adjust_poses
from pose.draw import draw_poses
from pose.media import read_image, to_uint8
from pose.sequence import PoseSequence
from studio.characters import CHARACTERS, picture_file
from studio.driving import (
    Driving,
    check_render,
    describe_poses,
    fit_driving,
    kind_of,
    read_driving,
    read_reference_pose,
)
from studio.errors import RequestError, did_you_mean
from studio.files import check_output, moved_in
from studio.live import NEEDS, LivePicture
from studio.placement import Placement, choose_canvas
from studio.progress import OnNote, OnProgress, Progress, peak_memory_bytes, unheard
from studio.requests import AnimateRequest, BackgroundRequest, SamplingRequest
from studio.sheet import contact_sheet, write_png
from studio.versions import our_version, software_versions
from studio.video import write_video
from studio.weights import hash_weights, open_pipeline
from training.hashing import file_sha256

if TYPE_CHECKING:
    from models.pipeline import AnimateXPipeline

SIDECAR_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Animation:
    """A generated video with all that is needed to make it again."""

    frames: UInt8[Tensor, "frames height width 3"]
    fps: float
    request: SamplingRequest
    picture: UInt8[Tensor, "height width 3"]
    """The reference on the canvas."""
    poses: PoseSequence | None
    """The driving skeleton on the canvas; None without one."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Seconds, memory, hashes of inputs and weights."""
    notes: tuple[str, ...] = ()
    """What the user should know about this result."""

    def save(self, path: str | Path) -> Path:
        """Writes the MP4, the sidecar OUT.json and, when the request asks for it, the contact sheet OUT.png.

        All are written beside their place and moved in together at the end.

        Raises:
            RequestError: the place cannot be written.
        """
        output = Path(path)
        check_output(output, suffixes=(".mp4",))
        request = self.request
        audio = Path(request.driving) if isinstance(request, AnimateRequest) and request.audio else None
        with ExitStack() as finished_together:
            beside = finished_together.enter_context(moved_in(output))
            provenance = {"software": f"animatex-studio {our_version()}", "ai_generated": True, "model": request.model,
                          "seed": request.seed, "prompt": getattr(request, "prompt", "")[:2000]}  # fmt: skip
            sound = write_video(beside, self.frames, self.fps, audio=audio, metadata=provenance)
            sidecar = finished_together.enter_context(moved_in(output.with_suffix(".json")))
            sidecar.write_text(json.dumps(self._sidecar(output, beside, sound), indent=2, allow_nan=False) + "\n")
            if request.preview:
                write_png(finished_together.enter_context(moved_in(output.with_suffix(".png"))), self.sheet())
        return output

    def sheet(self) -> Any:
        """Draws the contact sheet: reference, pose and result rows."""
        rows = [("reference", self.picture[None])]
        if self.poses is not None:
            rows.append(("pose", draw_poses(self.poses, size=(self.frames.shape[2], self.frames.shape[1]))))
        return contact_sheet([*rows, ("result", self.frames)], fps=self.fps)

    def _sidecar(self, output: Path, written: Path, sound: bool) -> dict[str, Any]:
        height, width = self.frames.shape[1:3]
        return {
            "schema": "animatex-studio/animation",
            "version": SIDECAR_VERSION,
            "request": self.request.model_dump(mode="json"),
            "output": {
                "file": output.name,
                "sha256": file_sha256(written),
                "frames": len(self.frames),
                "width": width,
                "height": height,
                "fps": self.fps,
                "audio": sound,
            },
            **self.facts,
            "notes": list(self.notes),
            "software": software_versions(),
        }


def check_animate(request: AnimateRequest) -> None:
    """Finds what is wrong with a request without doing any of its work.

    Raises:
        RequestError: names the flag, the value and the fix.
    """
    _check_outputs(request)
    _check_picture(request.reference, "--reference")
    kind = kind_of(request.driving)
    if request.reference_pose is not None and not request.reference_pose.exists():
        raise RequestError(f"--reference-pose {request.reference_pose}: no such file")
    if request.audio and kind != "video":
        raise RequestError(f"--audio: {request.driving} is {kind}, which has no sound; give a video as --driving")


def check_background(request: BackgroundRequest) -> None:
    """Finds what is wrong with a request without doing any of its work.

    Raises:
        RequestError: names the flag, the value and the fix.
    """
    _check_outputs(request)
    _check_picture(request.image, "--image")


def _check_outputs(request: AnimateRequest | BackgroundRequest) -> None:
    check_output(output_of(request), suffixes=(".mp4",))
    if request.live is not None:
        check_output(request.live, flag="--live", suffixes=(".png",))


def output_of(request: AnimateRequest | BackgroundRequest) -> Path:
    """The MP4 that a request writes."""
    if request.output is not None:
        return request.output
    if isinstance(request, AnimateRequest):
        return Path(f"{request.reference.stem}-{Path(request.driving).stem}.mp4")
    return Path(f"{request.image.stem}-background.mp4")


def run_animate(
    request: AnimateRequest,
    *,
    pipeline: "AnimateXPipeline | None" = None,
    on_progress: OnProgress = unheard,
    on_note: OnNote = unheard,
) -> Animation:
    """Animates the reference with the driving motion. A `pipeline` that is open already is used as it is.

    Raises:
        ValueError: an input cannot be used.
    """
    check_animate(request)
    job = _Job(request, on_progress, on_note)
    reference = picture_file(request.reference)
    source = read_image(reference)
    pipe, weights = job.pipeline(pipeline)
    if pipe.ipi is not None and not pipe.sees_driving_frames:
        job.note(
            "the model's implicit pose indicator is left out: it sees pictures with an OpenCLIPVisionEncoder, and the "
            "model folder has none as ipi_image_encoder"
        )
    driving = read_driving(
        request.driving, model_fps=float(pipe.config["fps"]), fps=request.fps, num_frames=request.num_frames,
        detector=request.detector, person=request.person, driving_fps=request.driving_fps,
        keep_frames=pipe.sees_driving_frames, on_progress=on_progress,
    )  # fmt: skip
    placement = job.place(source, pipe)
    skeleton = read_reference_pose(source, request.reference_pose, request.detector, job.note)
    poses = fit_driving(driving.poses, skeleton, source, placement, align=request.align, note=job.note)
    poses = adjust_poses(poses, request.adjust)
    for finding in check_render(driving.poses, skeleton, poses, align=request.align):
        job.note(str(finding))
    reference_pose = None if skeleton is None else placement.pose(skeleton)
    picture = placement.picture(source)
    frames = job.sample(
        pipe, picture, poses.fps, prompt=request.prompt, num_frames=len(poses),
        poses=poses, reference_pose=reference_pose, driving=driving,
    )  # fmt: skip
    inputs = {"reference": _described(reference)}
    if driving.kind != "motion":
        inputs["driving"] = _described(Path(request.driving))
    facts = job.facts(inputs, weights, frames) | {"driving": {"kind": driving.kind, **describe_poses(poses)}}
    return Animation(
        frames=frames, fps=poses.fps, request=request, picture=picture, poses=poses, facts=facts, notes=tuple(job.notes)
    )


def run_background(
    request: BackgroundRequest,
    *,
    pipeline: "AnimateXPipeline | None" = None,
    on_progress: OnProgress = unheard,
    on_note: OnNote = unheard,
) -> Animation:
    """Brings the picture alive after the text (TI2V): no pose, the image kept.

    Raises:
        ValueError: an input cannot be used.
    """
    check_background(request)
    job = _Job(request, on_progress, on_note)
    image = picture_file(request.image)
    source = read_image(image)
    pipe, weights = job.pipeline(pipeline)
    placement = job.place(source, pipe)
    picture, fps = placement.picture(source), request.fps or float(pipe.config["fps"])
    frames = job.sample(pipe, picture, fps, prompt=request.prompt, num_frames=request.num_frames)
    facts = job.facts({"image": _described(image)}, weights, frames)
    return Animation(frames=frames, fps=fps, request=request, picture=picture, poses=None, facts=facts,
                     notes=tuple(job.notes))  # fmt: skip


class _Job:
    """One generation: its notes, its clock, its progress."""

    def __init__(self, request: SamplingRequest, on_progress: OnProgress, on_note: OnNote) -> None:
        self.request, self.on_progress, self.on_note = request, on_progress, on_note
        self.notes: list[str] = []
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.guidance_began: int | None = None
        """The step at which delayed guidance began."""

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.on_note(text)

    def pipeline(self, given: "AnimateXPipeline | None") -> "tuple[AnimateXPipeline, Path | None]":
        if given is not None:
            return given, None
        begun = time.monotonic()
        opened = open_pipeline(self.request, self.note)
        self.seconds["load"] = time.monotonic() - begun
        return opened

    def place(self, source: Tensor, pipe: "AnimateXPipeline") -> Placement:
        size, request = (source.shape[1], source.shape[0]), self.request
        short_side = min(pipe.config["height"], pipe.config["width"])
        canvas = choose_canvas(size, width=request.width, height=request.height, short_side=short_side)
        return Placement.of(size, canvas, request.fit)

    def sample(
        self, pipe: "AnimateXPipeline", picture: Tensor, fps: float, *, prompt: str, num_frames: int,
        poses: PoseSequence | None = None, reference_pose: PoseSequence | None = None,
        driving: Driving | None = None,
    ) -> UInt8[Tensor, "frames height width 3"]:  # fmt: skip
        """Runs the pipeline from the seed and tells each step."""
        request, begun = self.request, time.monotonic()
        steps = request.num_inference_steps or int(pipe.config["num_inference_steps"])
        self._tell_what_is_cut(pipe, prompt, "--prompt")
        self._tell_what_is_cut(pipe, request.negative_prompt, "--negative-prompt")

        live = LivePicture(request.live) if request.live is not None else None

        def told(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self.on_progress(Progress(stage="denoising", done=step + 1, total=steps))
            if live is not None:
                live(pipe, step, tensors)
            return tensors

        self.on_progress(Progress(stage="denoising", done=0, total=steps))
        output: Any = pipe(
            reference=picture, poses=poses, prompt=prompt, negative_prompt=request.negative_prompt,
            reference_pose=reference_pose, driving_frames=None if driving is None else driving.frames,
            driving_poses=None if driving is None else driving.poses, height=picture.shape[0], width=picture.shape[1],
            num_frames=None if poses is not None else num_frames + (1 - num_frames) % 4, num_inference_steps=steps,
            guidance_scale=request.guidance_scale, prompt_noise=request.prompt_noise,
            prompt_random_words=request.prompt_random_words, guidance_start=request.guidance_start,
            guidance_before=request.guidance_before, generator=torch.Generator().manual_seed(request.seed),
            output_type="pt", callback_on_step_end=told, callback_on_step_end_tensor_inputs=NEEDS,
        )  # fmt: skip
        self.seconds["generate"] = time.monotonic() - begun
        if request.guidance_start:
            self.guidance_began = pipe.guidance_began[0]
        return to_uint8(output.frames[0, :num_frames]).cpu()

    def _tell_what_is_cut(self, pipe: "AnimateXPipeline", prompt: str, flag: str) -> None:
        """Notes when the text encoder does not read all of a prompt."""
        if hasattr(pipe.text_encoder, "num_tokens_cut"):
            cut = pipe.text_encoder.num_tokens_cut([prompt])[0]
            if cut:
                self.note(f"{flag} is longer than this model reads; its last {cut} tokens are left out")

    def facts(
        self, inputs: dict[str, Any], weights: Path | None, frames: UInt8[Tensor, "frames height width 3"]
    ) -> dict[str, Any]:
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        return {
            "inputs": inputs,
            **({"guidance_began": self.guidance_began} if self.request.guidance_start else {}),
            "weights": {} if weights is None else hash_weights(weights),
            "metrics": {"seconds": round(time.monotonic() - self.started, 3), "peak_memory_bytes": peak_memory_bytes(),
                        **{f"seconds_{name}": value for name, value in seconds.items()},
                        "colour_drift": colour_drift(frames)},
        }  # fmt: skip


def colour_drift(frames: UInt8[Tensor, "frames height width 3"]) -> list[float]:
    """How far each frame's mean colour is from the first one's, in levels of 255, the largest of the three channels."""
    means = torch.stack([frame.float().mean(dim=(0, 1)) for frame in frames])
    return [round(level, 2) for level in (means - means[0]).abs().amax(dim=1).tolist()]


def _check_picture(path: Path, flag: str) -> None:
    path = picture_file(path)
    if path.is_dir():
        raise RequestError(f"{flag} {path}: is a folder; give a picture file")
    if not path.exists():
        hint = did_you_mean(str(path), CHARACTERS)
        if path.suffix:
            raise RequestError(f"{flag} {path}: no such file{hint}")
        raise RequestError(
            f"{flag} {path}: no such file and no bundled character{hint}; `studio characters` lists them"
        )


def _described(path: Path) -> dict[str, Any]:
    """Names an input and its hash; a folder of keypoints is named by its number of files."""
    if path.is_dir():
        return {"path": str(path), "files": sum(1 for _ in path.iterdir())}
    return {"path": str(path), "sha256": file_sha256(path), "bytes": path.stat().st_size}
