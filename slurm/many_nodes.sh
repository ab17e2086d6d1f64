#!/usr/bin/env bash
# One run on the GPUs of several nodes. From the root of the source, with the environment activated:
#   sbatch --nodes=4 slurm/many_nodes.sh --config-file rn_configs/rn50_16_epochs.yaml --data.train=... --data.val=...
# Every node reads the .beton files; only the first process reads and writes the run folder.
#SBATCH --job-name=ffcv_imagenet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.txt
set -euo pipefail
source slurm/requeue.sh

# torchrun's agents, one per node, meet at the first node.
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
run_and_requeue srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="${nodes%%$'\n'*}:$((20000 + SLURM_JOB_ID % 10000))" \
    train_imagenet.py "$@" --checkpoint.resume=auto
