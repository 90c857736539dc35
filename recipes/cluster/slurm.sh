#!/usr/bin/env bash
# Slurm: sbatch recipes/cluster/slurm.sh DATA OUT [more options of `selftaught learn`]; OUT on a file system that all nodes see.
#SBATCH --job-name=selftaught
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
data="${1:?which data? slurm.sh DATA OUT}" out="${2:?which folder? slurm.sh DATA OUT}"
shift 2
# Slurm runs a copy of this file from elsewhere: recipes are looked for where it was submitted.
recipe="${RECIPE:-${SLURM_SUBMIT_DIR:-$PWD}/recipes/cluster/32b-full.toml}"
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)"  # head would end before scontrol has said all
# torchrun starts anew what fails within the job; --requeue does after a node is taken away. Both go on from --resume.
exec srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${GPUS:-8}" --max-restarts 3 \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:${PORT:-29500}" \
  -m selftaught learn "$data" -m "${MODEL:-Qwen/Qwen2.5-32B-Instruct}" \
  --recipe "$recipe" --out "$out" --resume "$@"
