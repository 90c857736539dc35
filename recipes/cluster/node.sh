#!/usr/bin/env bash
# One node of 8 GPUs: recipes/cluster/node.sh DATA OUT [more options of `selftaught learn`]
#   GPUS=8 MODEL=Qwen/Qwen2.5-7B-Instruct RECIPE=… recipes/cluster/node.sh data.jsonl /shared/run --dry-run
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="${1:?which data? node.sh DATA OUT}" out="${2:?which folder? node.sh DATA OUT}"
shift 2
exec torchrun --standalone --nproc-per-node "${GPUS:-8}" --max-restarts 3 \
  -m selftaught learn "$data" -m "${MODEL:-Qwen/Qwen2.5-7B-Instruct}" \
  --recipe "${RECIPE:-$here/7b-full.toml}" --out "$out" --resume "$@"
