#!/usr/bin/env bash
# A sweep as an array job: element k is run number k of the plan. From the root of the source, with the environment
# activated, first the plan and then its runs:
#   sweep="--config-file rn_configs/rn18_16_epochs.yaml --sweep.loss=baseline,label_smoothing,maxsup --sweep.seeds=0,1,2
#       --sweep.gpus_per_run=1 --data.train=... --data.val=..."
#   python -m ffcv_imagenet.sweep $sweep --dry-run
#   sbatch --array=1-9 slurm/sweep_array.sh $sweep
#   python -m ffcv_imagenet.report runs/
#SBATCH --job-name=ffcv_imagenet_sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A-%a.txt
set -euo pipefail
source slurm/requeue.sh

run_and_requeue srun python -m ffcv_imagenet.sweep "$@" --sweep.only="$SLURM_ARRAY_TASK_ID"
