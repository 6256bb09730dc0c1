#!/usr/bin/env bash
# An array of 16 jobs with a GPU each: `sbatch deploy/slurm.sh`. The first one that finds all shards
# finished writes the survey; a job that was lost is made up for by `sbatch --array=7 deploy/slurm.sh`.
#SBATCH --job-name=optogram
#SBATCH --array=0-15
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

NETWORK="${NETWORK:-torchvision:resnet50}"
WEIGHTS="${WEIGHTS:?a file with the weights of $NETWORK}"
IMAGES="${IMAGES:?a folder of images that every node sees}"
OUTPUT="${OUTPUT:?a folder that every node sees}"

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-8}"
srun optogram survey "$NETWORK" "$IMAGES" --weights "$WEIGHTS" --device cuda -o "$OUTPUT" \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
