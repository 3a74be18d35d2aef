#!/usr/bin/env bash
# The study of methods in docs/fine-tuning.md: a base that makes single pictures of text, then all methods at three sizes
# on five subjects and on chest X-rays. Two to three hours on two cores with AVX512; what is there already is not
# made again.
#
#     scripts/study_methods.sh SUBJECTS XRAYS OUT     # folders of pictures: one below a subject; with metadata.jsonl
set -euo pipefail
subjects=$(realpath "$1") xrays=$(realpath "$2") out=$3
bin="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin"
here="$(dirname "$0")"
mkdir -p "$out/five" "$out/others" "$out/some_xrays"
out=$(realpath "$out")
for folder in "$subjects"/*/; do
    case "$(basename "$folder")" in
        dog | backpack | robot_toy | duck_toy | berry_bowl) cp -rn "$folder" "$out/five/" ;;
        *) cp -rn "$folder" "$out/others/" ;;
    esac
done
for kind in no_finding pneumonia; do
    for file in $(cd "$xrays" && ls ${kind}_*.png | head -110); do cp -n "$xrays/$file" "$out/some_xrays/"; done
done
cp "$xrays/metadata.jsonl" "$out/some_xrays/"
"$bin/python" "$here/draw_pictures.py" "$out/world" --count 2000
cat > "$out/base.toml" <<TOML
method = "full"
learning_rate = 5e-4
lr_warmup_steps = 100
ema_decay = 0.999
train_batch_size = 8
max_train_steps = 6000
mixed_precision = "fp32"
validation_share = 0.02
cache_dir = "cache"
data = [{folder = "world", weight = 3}, {folder = "others", weight = 1}]
TOML
[ -f "$out/base/adapter.safetensors" ] || "$bin/studio" train "$out/base.toml" --output-dir "$out/base"
[ -d "$out/model" ] || "$bin/studio" export "$out/base" --format merged --output "$out/model"
# rates: the best of 3e-4, 2e-3, 1e-2 and, for adapters that want more, 5e-2, found on fewer steps
methods=full@3e-4,attention@3e-4,hft@3e-4,bitfit@1e-2,norms@1e-2,difffit@1e-2,svdiff@1e-2,sara@1e-2,sparse@1e-2
methods=$methods,paca@1e-2,id3@2e-3,lt-sft@1e-2,spt@1e-2,lora@1e-2,dora@1e-2,loha@1e-2,lokr@1e-2,oft@2e-3
methods=$methods,hira@5e-2,gralora@1e-2,miss@2e-3,delora@2e-3,road@5e-2,fourierft@1e-2,waveft@3e-4,randlora@2e-3,ia3@5e-2
set_of() { # SET VALIDATION_SHARE SAMPLES
    cat > "$out/$1.toml" <<TOML
model = "$out/model"
max_train_steps = 300
mixed_precision = "fp32"
lr_warmup_steps = 10
validation_share = $2
cache_dir = "cache"
data = [{folder = "$1"}]
TOML
    compare "$1" "$3" "$out/compared_$1" "$methods" 0.005,0.02,0.08
    # their time grows with their size: what they take at 8 % would be hours
    compare "$1" "$3" "$out/compared_$1-slow" hra@1e-2,vera@5e-2 0.005,0.01,0.02
    compare "$1" "$3" "$out/compared_$1-boft" boft@2e-3 0.01,0.02 # its smallest is 1 %
}

compare() { # SET SAMPLES FOLDER METHODS SHARES
    OMP_NUM_THREADS=1 "$bin/studio" compare "$out/$1.toml" --methods "$4" --trainable-shares "$5" --samples "$2" \
        --output-dir "$3"
}

set_of five 0.2 30 & first=$!
set_of some_xrays 0.3 40 & second=$!
wait "$first" && wait "$second"
