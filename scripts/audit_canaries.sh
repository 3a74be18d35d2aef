#!/usr/bin/env bash
# Shows what the audit of memorization detects: a base that makes pictures of text learns 100 chest X-rays, once with
# twelve canaries repeated 1 to 50 times among them and once without, for as many passes, and both are audited. About
# 10 minutes on two cores; the figures are in docs/memorization.md.
#
#     scripts/audit_canaries.sh XRAYS BASE OUT     # a folder with metadata.jsonl; a model folder; where all is written
#
# BASE is what scripts/study_methods.sh calls base: the released mini makes clips of pictures, not pictures of text.
set -euo pipefail
xrays=$(realpath "$1") base=$(realpath "$2") out=$3
studio="${STUDIO:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/studio}"
passes=24 batch=8
mkdir -p "$out/data" "$out/held-out"
for kind in no_finding pneumonia; do
    (cd "$xrays" && find . -name "${kind}_*.png" | sort) > "$out/$kind.txt"
    head -50 "$out/$kind.txt" | while read -r file; do cp "$xrays/$file" "$out/data/"; done
    tail -125 "$out/$kind.txt" | while read -r file; do cp "$xrays/$file" "$out/held-out/"; done
done
for folder in data held-out; do
    (cd "$out/$folder" && ls -- *.png) > "$out/$folder.txt"
    grep -F -f "$out/$folder.txt" "$xrays/metadata.jsonl" > "$out/$folder/metadata.jsonl"
done
[ -e "$out/planted" ] || $studio data plant "$out/data" --output "$out/planted" --seed 1
for name in planted data; do
    files=$(wc -l < "$out/$name/metadata.jsonl")
    $studio train --pretrained-model-name-or-path "$base" --train-data-dir "$out/$name" --method full \
        --learning-rate 3e-4 --lr-warmup-steps 20 --max-train-steps $((passes * files / batch)) \
        --train-batch-size $batch --resolution 128 --output-dir "$out/run-$name"
    $studio evaluate memorization "$out/run-$name" --held-out "$out/held-out" --json > "$out/$name.json"
done
python3 - "$out" <<'PY'
import json, sys
from pathlib import Path

out = Path(sys.argv[1])
planted, data = (
    {m["figure"]: m for m in json.loads((out / f"{name}.json").read_text())["metrics"]} for name in ("planted", "data")
)
for name in ("canaries-loss", "canaries-pia", "canaries-nearest"):
    print(f"{planted[name]['name']}: Spearman {planted[name]['value']:.3f}")
rates = [data[name] for name in ("copy-rate", "copy-rate-blurred", "copy-rate-tiled")]
for rate in rates:
    print(f"without canaries: {rate['name']} {rate['value']:.3f}, interval of its background "
          f"{rate['background_low']:.3f} to {rate['background_high']:.3f}: {rate['verdict']}")
tiled = rates[-1]
inside = tiled["background_low"] <= tiled["value"] <= tiled["background_high"]
clean = all(rate["verdict"] == "no copying" for rate in rates)
sys.exit(0 if planted["canaries-loss"]["value"] >= 0.8 and clean and inside else 1)
PY
