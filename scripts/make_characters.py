"""Draws the bundled characters into studio/assets/characters: run it from the repository's root.

    .venv/bin/python scripts/make_characters.py

They are characters of the drawn world that no training has seen (test split), beyond the clips of a2bench-mini, in
their rest stance at 256x256. The same numbers give the same pictures.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from training.data.world import clip_spec, draw_clips

CHARACTERS = {
    "bean": 10814, "bear": 10242, "cat": 10669, "juice-box": 10336, "monster": 10145, "rabbit": 10471,
}  # fmt: skip
"""Name -> the number of its clip in the test split."""

SIZE = (256, 256)
FOLDER = Path(__file__).parents[1] / "studio" / "assets" / "characters"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, index in CHARACTERS.items():
        clips = draw_clips([clip_spec("test", index)], num_frames=1, size=SIZE)
        pixels = (clips.reference[0].clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy()
        path = FOLDER / f"{name}.png"
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, optimize=True)
        print(f"{path.name:<16}{path.stat().st_size:>7} bytes  {clips.specs[0].caption}")


if __name__ == "__main__":
    main()
