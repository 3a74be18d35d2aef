#!/usr/bin/env bash
# The study of MemControl in docs/search.md: which parameters to train, searched for on 100 and on 300 chest X-rays,
# beside fixed methods at equal training steps. 71 minutes on two cores with AVX2, one process a size.
#
#     scripts/study_search.sh MODEL XRAYS OUT [STEPS [REPEATS [OFTEN]]]
#
# MODEL makes pictures of text (scripts/study_methods.sh makes one), XRAYS has metadata.jsonl, STEPS are those of a run
# (300). OFTEN (5) of 100 pictures come REPEATS (50, as some of the paper's) times as often, and of 300 pictures as many
# three times as often as that, so that a run shows each of them as often in both sizes. Then:
#
#     .venv/bin/python benchmarks/memcontrol_study.py OUT
set -euo pipefail
model=$(realpath "$1") xrays=$(realpath "$2") out=$3 steps=${4:-300} repeats=${5:-50} often=${6:-5}
bin="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin"
mkdir -p "$out"
out=$(realpath "$out")
export OMP_NUM_THREADS=1

pictures() { # COUNT SEED: so many to train, 200 others held out
    "$bin/python" - "$xrays" "$out/data-$1-$2" "$1" "$2" "$often" <<'PY'
import hashlib, json, random, shutil, sys
from pathlib import Path
source, place = map(Path, sys.argv[1:3])
count, seed, often = map(int, sys.argv[3:])
rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()]
chosen = random.Random(seed).sample(rows, count + 200)
# those with the first hashes are held out, so the last ones are trained
order = sorted(chosen, key=lambda row: hashlib.sha256((source / row["file_name"]).read_bytes()).hexdigest())
for name, some in (("once", order[:-often]), ("often", order[-often:])):
    folder = place / name
    folder.mkdir(parents=True, exist_ok=True)
    for row in some:
        shutil.copy(source / row["file_name"], folder)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, some)))
PY
}

study() { # COUNT SEED NAME STRATEGY METHOD SITES RATES
    "$bin/studio" search "$out/$1-$2.toml" --output-dir "$out/study-$1-$2-$3" --strategy "$4" --seed "$2" \
        --budget-steps $((5 * steps)) --set method="$5" --set search.sites="$6" --set search.learning_rate="$7"
}

size() { # COUNT
    for seed in 0 1; do
        pictures "$1" "$seed"
        cat > "$out/$1-$seed.toml" <<TOML
model = "$model"
resolution = 64
max_train_steps = $steps
train_batch_size = 8
lr_warmup_steps = 10
seed = $seed
validation_share = $("$bin/python" -c "print(200.5 / ($1 + 200))")
cache_dir = "cache-$1"
data = [{folder = "data-$1-$seed/once"}, {folder = "data-$1-$seed/often", repeats = $(($1 * repeats / 100))}]
[search]
samples = 48
final_samples = 128
checkpoints = [$((steps / 4)), $((steps / 2)), $steps]
reference = [1.0, 0.5]
early_stop = false
TOML
        study "$1" "$seed" memcontrol-2 memcontrol-2 full layers '[3e-4, 1e-2]'
        study "$1" "$seed" nsga2 nsga2 full layers '[3e-4, 1e-2]'
        for method in full lora difffit svdiff; do
            rates='[1e-3, 3e-2]'
            [ "$method" = full ] && rates='[3e-4, 1e-2]'
            study "$1" "$seed" "$method" memcontrol-2 "$method" '["*"]' "$rates"
        done
    done
}

size 100 & first=$!
size 300 & second=$!
wait "$first" && wait "$second"
