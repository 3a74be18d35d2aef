#!/usr/bin/env bash
# Trains the whole mini family from nothing into RUNS/mini, and goes on where it was stopped.
#
#     scripts/train_mini.sh [RUNS]            on a CPU: about three hours on two cores
#     GPU=1 scripts/train_mini.sh [RUNS]      on one large GPU: bigger batches, more steps
#     PROCESSES=2 scripts/train_mini.sh       several processes of one thread each, faster than threads on a CPU
#
# Ship the result: cp -r RUNS/mini/. models/weights/mini/
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs/family}
python=.venv/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

declare -A settings
settings[mini-codec]=""
settings[mini-clip]="--set steps=700 --set learning_rate=0.002"
settings[mini-pose]="--set steps=1000 --set learning_rate=0.003"
settings[mini-animator]="--set steps=5000 --set learning_rate=0.002"
if [ "${GPU:-0}" = 1 ]; then
  settings[mini-codec]="--set steps=12000 --set batch_size=32"
  settings[mini-clip]="--set steps=6000 --set batch_size=256 --set learning_rate=0.002"
  settings[mini-pose]="--set steps=4000 --set batch_size=128 --set learning_rate=0.003"
  settings[mini-animator]="--set steps=40000 --set batch_size=64 --set learning_rate=0.002 --set shard_clips=4096"
fi

for recipe in mini-codec mini-clip mini-pose mini-animator; do
  run=$runs/$recipe
  case "$(tail -n 1 "$run/events.jsonl" 2>/dev/null)" in
    *'"complete": true'*) echo "$recipe: done"; continue ;;
  esac
  launch=("$python" -m studio)
  if [ "${PROCESSES:-1}" -gt 1 ] && [ "${GPU:-0}" != 1 ]; then
    launch=(env ACCELERATE_USE_CPU=true "$python" -m torch.distributed.run --standalone --nproc_per_node "$PROCESSES" -m studio)
  fi
  if [ -e "$run/latest" ]; then
    "${launch[@]}" resume "$run" --export-to "$runs/mini" --mini "$runs/mini"
  else
    # shellcheck disable=SC2086  # the settings are words
    "${launch[@]}" train --recipe "$recipe" --output-dir "$run" --export-to "$runs/mini" --mini "$runs/mini" ${settings[$recipe]}
  fi
done
