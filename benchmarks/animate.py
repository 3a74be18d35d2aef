"""Seconds and peak memory of `studio animate`, by length: what does a frame cost, and does memory grow with them?

    .venv/bin/python benchmarks/animate.py [--motion dance-1] [--frames 17 97 193] [--output out/animate.md]

Every row is a process of its own, so that one peak does not hide the next. "beyond the frames" is the peak less that of
the first row and less the frames themselves (float32 and uint8 of the whole clip).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHANNELS, BYTES = 3, 4 + 1


def measure(motion: str, frames: int, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "studio", "animate", "--reference", "rabbit", "--driving", motion, "--json",
         "--num-frames", str(frames), "--output", str(folder / f"{frames}.mp4")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", default="dance-1")
    parser.add_argument("--frames", type=int, nargs="+", default=[17, 97, 193])
    parser.add_argument("--output", type=Path)
    flags = parser.parse_args()
    lines = ["| frames | seconds | s / frame | peak GiB | beyond the frames, MiB |", "|---:|---:|---:|---:|---:|"]
    first: dict[str, float] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for frames in flags.frames:
            result = measure(flags.motion, frames, Path(folder))
            first = first or result
            pixels = (result["frames"] - first["frames"]) * result["height"] * result["width"] * CHANNELS * BYTES
            beyond = result["peak_memory_bytes"] - first["peak_memory_bytes"] - pixels
            lines.append(
                f"| {frames} | {result['seconds']:.1f} | {result['seconds'] / frames:.2f} "
                f"| {result['peak_memory_bytes'] / 2**30:.2f} | {beyond / 2**20:.0f} |"
            )
            print(lines[-1], flush=True)
    if flags.output:
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        flags.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
