#!/usr/bin/env bash
# One run on the GPUs of one node. From the root of the source, with the environment activated:
#   sbatch slurm/one_node.sh --config-file rn_configs/rn50_16_epochs.yaml --data.train=... --data.val=... --loss.name=maxsup
# The arguments are those of train_imagenet.py; #SBATCH lines are overridden by options of sbatch.
#SBATCH --job-name=ffcv_imagenet
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.txt
set -euo pipefail
source slurm/requeue.sh

run_and_requeue srun torchrun --standalone --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" \
    train_imagenet.py "$@" --checkpoint.resume=auto
