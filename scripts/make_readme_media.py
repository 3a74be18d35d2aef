"""Makes the README's picture with the software itself: run it from the repository's root.

    .venv/bin/python scripts/make_readme_media.py [--model mini] [--output docs/media/demo.png]

Each row is a bundled character with a bundled motion: the reference, then frames of the result with the skeleton that
drives them in the corner.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from pose.draw import draw_poses
from studio import AnimateXPipeline, Animation, animate
from studio.characters import CHARACTERS

SHOWN = {"juice-box": "wave-both", "rabbit": "kick", "monster": "jumping-jack"}
"""Character -> motion."""
COLUMNS, CELL_PX, SKELETON_PX, MARGIN_PX = 7, 160, 52, 6


def row(animation: Animation) -> Image.Image:
    """One character: the reference, then frames with their skeletons."""
    assert animation.poses is not None
    size = (animation.frames.shape[2], animation.frames.shape[1])
    skeletons = draw_poses(animation.poses, size=size)
    picks = torch.linspace(0, len(animation.frames) - 1, COLUMNS).round().long().tolist()
    strip = Image.new("RGB", ((COLUMNS + 1) * (CELL_PX + MARGIN_PX) + 2 * MARGIN_PX, CELL_PX + MARGIN_PX), "white")
    strip.paste(picture(animation.picture, CELL_PX), (0, 0))
    for column, pick in enumerate(picks):
        left = (column + 1) * (CELL_PX + MARGIN_PX) + 2 * MARGIN_PX
        strip.paste(picture(animation.frames[pick], CELL_PX), (left, 0))
        strip.paste(picture(skeletons[pick], SKELETON_PX), (left, CELL_PX - SKELETON_PX))
    return strip


def picture(frame: torch.Tensor, side_px: int) -> Image.Image:
    return Image.fromarray(frame.numpy()).resize((side_px, side_px), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/weights/mini")
    parser.add_argument("--output", type=Path, default=Path("docs/media/demo.png"))
    flags = parser.parse_args()
    pipeline = AnimateXPipeline.from_pretrained(flags.model)
    pipeline.set_progress_bar_config(disable=True)
    rows = [
        row(animate(name, motion, prompt=f"{CHARACTERS[name]}, {motion}", pipeline=pipeline))
        for name, motion in SHOWN.items()
    ]
    sheet = Image.new("RGB", (rows[0].width, sum(strip.height for strip in rows)), "white")
    for index, strip in enumerate(rows):
        sheet.paste(strip, (0, index * strip.height))
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(flags.output, optimize=True)
    print(f"{flags.output}: {flags.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
