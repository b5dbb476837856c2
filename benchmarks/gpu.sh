#!/bin/sh
# A model of 110 million parameters on a larger world, on one GPU, through the path of `make demo`: pretraining, SFT, RL, evaluation, card.
#
#   benchmarks/gpu.sh [FOLDER]                                    on a GPU, about half an hour
#   BASE=src/preceptor/world/checkpoints/base PROMPTS=300 EVALS=30 SFT=20 RL=4 REPETITIONS=2 benchmarks/gpu.sh FOLDER
#                                                                 the same path in small, on a CPU, from the base that ships
#
# At the end: tokens per second, the time of a step by what it went to, memory, and the same work in bare TRL. What is finished is not done again.
set -eu
out=${1:-runs/gpu}
width=${WIDTH:-768} depth=${DEPTH:-18} steps=${STEPS:-3000} prompts=${PROMPTS:-20000} evals=${EVALS:-1000} sft=${SFT:-800} rl=${RL:-60}
mkdir -p "$out"

if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 500 > "$out/memory.log" &
    trap 'kill $!' EXIT
fi
base=${BASE:-$out/checkpoints/base}
[ -f "$base/config.json" ] || preceptor world pretrain --role base --out "$out/checkpoints" \
    --width "$width" --depth "$depth" --steps "$steps" --batch-tokens "${TOKENS:-16000}" --learning-rate "${RATE:-6e-4}"
preceptor run "$(dirname "$0")/../recipes/demo.toml" --dir "$out/run" --set run.processes=1 \
    --set models.policy.kind=local --set models.policy.id="$base" \
    --set world.training_prompts="$prompts" --set sft.steps="$sft" --set sft.learning_rate=3e-4 \
    --set rl.steps="$rl" --set rl_only_steps="$rl" --set rl.learning_rate=1e-5 \
    --set evals.prompts="$evals" --set evals.side_prompts="$evals" --set world.capability_prompts="$evals"
python "$(dirname "$0")/gpu_report.py" "$out/run" "$out/memory.log"
python "$(dirname "$0")/training_overhead.py" --repetitions "${REPETITIONS:-5}" --steps 6
