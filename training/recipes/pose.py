"""mini-pose: a keypoint network of 1.3 M parameters for drawn characters, exported to ONNX."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import onnx
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from models.keypoint_net import KeypointHeatmaps, KeypointNet
from pose.sequence import VISIBLE
from pose.skeleton import MIRROR
from training.data.backgrounds import background
from training.data.clutter import as_photographs
from training.data.world import Kind, Split, clip_spec, draw_clips
from training.metrics.quality import pck
from training.recipes.base import RECIPES, Recipe
from training.tasks import Task

CELL = 4
"""px of the input in one cell of a heatmap."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Pictures with their joints."""

    pixels: Float[Tensor, "batch 3 height width"]
    """0..1."""
    xy: Float[Tensor, "batch joints 2"]
    """px."""
    confidence: Float[Tensor, "batch joints"]
    plain: Float[Tensor, "batch 3 height width"]
    """The same pictures without the characters."""


@RECIPES.register("mini-pose")
class PoseRecipe(Recipe):
    """Heatmap regression of the 18 joints."""

    about: ClassVar[str] = "the pose detector: 18 joints of a drawn character, as ONNX"

    steps: int = Field(default=1500, ge=1)
    """Optimizer steps in all."""
    batch_size: int = Field(default=32, ge=2, multiple_of=2)
    """Pictures a step, over all processes."""
    learning_rate: float = Field(default=1.5e-3, gt=0)
    """Peak learning rate of Muon and AdamW alike."""
    sigma: float = Field(default=1.2, gt=0)
    """Radius of a joint's spot. [cells of 4 px]"""
    empty_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of the pictures without any character: a place alone, or a little noise on a plain colour."""
    photographic: float = Field(default=0.5, ge=0, le=1)
    """Share of the pictures with a busy ground, uneven light and rough surfaces (`training.data.clutter`)."""
    augment: bool = True
    """Zoom, shift, mirror, recolour, blur and add noise."""

    def build(self, mini: Path) -> nn.Module:
        """Makes an untrained detector."""
        torch.manual_seed(self.seed)
        return PoseLearner(self)

    def export(self, learner: nn.Module, folder: Path) -> None:
        """Writes `pose/model.onnx`."""
        assert isinstance(learner, PoseLearner)
        target = folder / "pose" / "model.onnx"
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            KeypointHeatmaps(learner.net.cpu().float()).eval(),
            (torch.zeros(2, 3, 128, 128),),
            str(target),
            input_names=["pixels"],
            output_names=["heatmaps"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
        _forget_sources(target)


def _forget_sources(path: Path) -> None:
    """Takes out what torch notes of every operation: the lines and paths of the machine that exported it."""
    model = onnx.load(str(path))
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        for name in ("metadata_props", "doc_string"):
            if name in part.DESCRIPTOR.fields_by_name:
                part.ClearField(name)
    onnx.save(model, str(path))


class PoseLearner(nn.Module):
    """The detector with its data and loss."""

    tasks = (Task(name="keypoints"),)

    def __init__(self, config: PoseRecipe) -> None:
        super().__init__()
        self.config = config
        self.net = KeypointNet()

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Labelled:
        """Draws two pictures of each clip: a frame and the reference."""
        drawn = self._draw("train", first // 2, count // 2)
        empty = torch.rand(len(drawn.pixels), generator=generator) < self.config.empty_share
        drawn = without_characters(drawn, empty, generator)
        made = as_photographs(drawn.pixels, drawn.plain, self.config.photographic, generator)
        drawn = replace(drawn, pixels=made)
        return augment(drawn, generator) if self.config.augment else drawn

    def _draw(self, split: Split, first: int, count: int) -> Labelled:
        device = next(self.parameters()).device
        kinds: tuple[Kind, ...] = ("animation", "animation", "animation", "background")
        specs = [clip_spec(split, first + k, kinds[k % 4]) for k in range(count)]
        clips = draw_clips(specs, num_frames=1, device=device)
        places = torch.stack([spec.places(1, (128, 128), device) for spec in specs])
        return Labelled(
            pixels=torch.cat([clips.video[:, 0], clips.reference]),
            xy=torch.cat([clips.xy[:, 0], clips.reference_xy]),
            confidence=torch.cat([clips.confidence[:, 0], clips.reference_confidence]),
            plain=torch.cat([places[:, 0], places[:, 1]]),
        )

    def forward(self, batch: Labelled, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of every cell against a Gaussian spot at the joint; spots weigh more than the empty rest."""
        logits = self.net(batch.pixels).float()
        target = heatmaps(batch, self.config.sigma)
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        loss = (each * (1 + 10 * target)).sum((2, 3)).mean()
        return {"loss": loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """PCK@0.1 on held-out characters."""
        drawn = self._draw("val", 0, 100)
        found, confidence = decode(torch.sigmoid(self.net(drawn.pixels).float()))
        exists = drawn.confidence > 0
        right, total = pck(found, drawn.xy, exists)
        wrong = exists.logical_not() & (confidence > VISIBLE)
        everywhere = torch.ones(len(drawn.pixels), dtype=torch.bool)
        nobody = without_characters(drawn, everywhere, torch.Generator().manual_seed(0))
        _, ghosts = decode(torch.sigmoid(self.net(nobody.pixels).float()))
        return {
            "pck_0.1": right / max(1, total),
            "seen": float((confidence[exists] > VISIBLE).float().mean()),
            "invented": float(wrong.sum() / exists.logical_not().sum().clamp(min=1)),
            # four joints make a person (pose.mini_detector)
            "somebody_in_empty_pictures": float(((ghosts > VISIBLE).sum(1) >= 4).float().mean()),
        }


def without_characters(drawn: Labelled, chosen: Bool[Tensor, "batch"], generator: torch.Generator) -> Labelled:
    """Takes the chosen pictures' characters away: a detector has to know that there may be nobody.

    What stays is a place of the world alone, or, one time in four, a plain colour with some noise.
    """
    pixels, confidence, plain = drawn.pixels.clone(), drawn.confidence.clone(), drawn.plain.clone()
    size = (pixels.shape[-1], pixels.shape[-2])
    for k in chosen.nonzero().flatten().tolist():
        number = int(torch.randint(1 << 28, (), generator=generator))
        colour, strength = torch.rand(3, 1, 1, generator=generator), 0.3 * torch.rand(1, generator=generator)
        if number % 4 == 0:
            noise = torch.randn(pixels[k].shape, generator=generator)
            pixels[k] = (colour + strength * noise).clamp(0, 1).to(pixels)
        else:
            scene = clip_spec("train", number, "background" if number % 2 else "animation").scene
            pixels[k] = background(scene, torch.zeros(1, device=pixels.device), size)[0]
        confidence[k] = 0
        plain[k] = pixels[k]
    return replace(drawn, pixels=pixels, confidence=confidence, plain=plain)


def heatmaps(batch: Labelled, sigma: float) -> Float[Tensor, "batch joints rows columns"]:
    """A Gaussian spot of height 1 at every joint that exists, in cells of 4 px."""
    rows, columns = (side // CELL for side in batch.pixels.shape[-2:])
    x = torch.arange(columns, device=batch.xy.device) + 0.5
    y = torch.arange(rows, device=batch.xy.device) + 0.5
    cx, cy = (batch.xy / CELL).unbind(-1)
    dx, dy = x - cx[..., None], y - cy[..., None]
    spot = (-(dx.square()[:, :, None, :] + dy.square()[:, :, :, None]) / (2 * sigma**2)).exp()
    return spot * batch.confidence[..., None, None]


def decode(
    heat: Float[Tensor, "batch joints rows columns"],
) -> tuple[Float[Tensor, "batch joints 2"], Float[Tensor, "batch joints"]]:
    """Positions in px (the centroid of 5x5 cells around the peak) and confidences (the peak)."""
    rows, columns = heat.shape[-2:]
    confidence, index = heat.flatten(2).max(-1)
    px, py = index % columns, index // columns
    x = torch.arange(columns, device=heat.device)
    y = torch.arange(rows, device=heat.device)
    near = ((x - px[..., None]).abs() <= 2)[:, :, None, :] & ((y - py[..., None]).abs() <= 2)[:, :, :, None]
    mass = heat * near
    total = mass.sum((2, 3)).clamp(min=1e-6)
    cx = (mass.sum(2) * (x + 0.5)).sum(-1) / total
    cy = (mass.sum(3) * (y + 0.5)).sum(-1) / total
    return torch.stack([cx, cy], -1) * CELL, confidence


def augment(batch: Labelled, generator: torch.Generator) -> Labelled:
    """Zooms, shifts, mirrors, recolours, blurs and adds noise, each picture for itself."""
    count, _, height, width = batch.pixels.shape
    device = batch.pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=generator)).to(device)

    mirror = uniform(0, 1) < 0.5
    pixels = torch.where(mirror[:, None, None, None], batch.pixels.flip(-1), batch.pixels)
    flipped = torch.stack([width - batch.xy[..., 0], batch.xy[..., 1]], -1)[:, list(MIRROR)]
    xy = torch.where(mirror[:, None, None], flipped, batch.xy)
    confidence = torch.where(mirror[:, None], batch.confidence[:, list(MIRROR)], batch.confidence)
    zoom = uniform(-0.35, 0.3).exp()
    shift = uniform(-0.12, 0.12, 2)
    # grid_sample goes from output to input, in -1..1: the inverse of what happens to the joints
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom
    theta[:, :, 2] = -2 * shift / zoom[:, None]
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    size = torch.tensor([width, height], device=device, dtype=xy.dtype)
    xy = (xy - size / 2) * zoom[:, None, None] + size / 2 + (shift * size)[:, None]
    inside = ((xy >= 0) & (xy < size)).all(-1)
    gain, lift = uniform(0.7, 1.3, 3, 1, 1), uniform(-0.12, 0.12, 3, 1, 1)
    pixels = pixels * gain + lift
    soft = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.where((uniform(0, 1) < 0.3)[:, None, None, None], soft, pixels)
    noise = torch.randn(pixels.shape, generator=generator).to(device)
    pixels = pixels + noise * uniform(0, 0.06, 1, 1, 1)
    return replace(batch, pixels=pixels.clamp(0, 1), xy=xy, confidence=confidence * inside)
