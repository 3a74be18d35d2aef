"""Draws pictures of mini's world with their captions into a folder, such as `studio train` takes.

.venv/bin/python scripts/draw_pictures.py OUT --count 3000
"""

import argparse
import json
from pathlib import Path

from PIL import Image

from pose.media import to_uint8
from training.data.world import clip_spec, draw_clips

BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    flags = parser.parse_args()
    flags.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for first in range(0, flags.count, BATCH):
        specs = [clip_spec("train", k) for k in range(first, min(first + BATCH, flags.count))]
        clips = draw_clips(specs, num_frames=1)
        for k, (spec, picture) in enumerate(zip(specs, to_uint8(clips.video[:, 0]), strict=True), first):
            name = f"{k:05}.png"
            Image.fromarray(picture.numpy()).save(flags.folder / name)
            rows.append(json.dumps({"file_name": name, "text": spec.caption}))
    (flags.folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
