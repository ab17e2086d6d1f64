"""The batch files, with srun and scontrol replaced by stand-ins; many_nodes.sh trains in test_distributed.py."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from slurm_shims import ROOT, start_batch

BATCH_FILES = sorted((ROOT / "slurm").glob("*.sh"))

# In place of torchrun and python: says how it was called, and ends with this status at once or at TERM.
COMMAND = """#!/usr/bin/env bash
trap 'kill $!; exit 75' TERM
echo "$(basename "$0") $*" >>"$SHIMS/called.txt"
[ -n "${STATUS:-}" ] && exit "$STATUS"
sleep 60 & wait
"""


@pytest.mark.parametrize("file", BATCH_FILES, ids=lambda file: file.name)
def test_bash_understands_it(file):
    subprocess.run(["bash", "-n", str(file)], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, "--external-sources", str(file)], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("name", "variables", "called"),
    [
        (
            "one_node.sh",
            {"SLURM_GPUS_ON_NODE": "8"},
            "torchrun --standalone --nproc-per-node=8 train_imagenet.py --lr.lr=1 --checkpoint.resume=auto",
        ),
        (
            "many_nodes.sh",
            {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "123456"},
            "torchrun --nnodes=1 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-id=123456 "
            "--rdzv-endpoint=localhost:23456 train_imagenet.py --lr.lr=1 --checkpoint.resume=auto",
        ),
        ("sweep_array.sh", {"SLURM_ARRAY_TASK_ID": "3"}, "python -m ffcv_imagenet.sweep --lr.lr=1 --sweep.only=3"),
    ],
)
@pytest.mark.parametrize("ends", ["finished", "failed", "stopped"])
def test_a_job_that_slurm_stops_is_requeued(tmp_path, name, variables, called, ends):
    for command in ("torchrun", "python"):
        (tmp_path / command).write_text(COMMAND)
        (tmp_path / command).chmod(0o755)
    status = {"finished": "0", "failed": "2", "stopped": ""}[ends]
    with start_batch(tmp_path, name, "--lr.lr=1", STATUS=status, **variables) as job:
        while not (tmp_path / "called.txt").is_file() or not (tmp_path / "called.txt").read_text():
            assert job.poll() is None or (tmp_path / "called.txt").is_file(), job.stdout.read()
            time.sleep(0.01)
        if ends == "stopped":
            os.kill(job.pid, signal.SIGUSR1)
        output, _ = job.communicate(timeout=20)
    assert (tmp_path / "called.txt").read_text().strip() == called
    assert job.returncode == int(status or 75), output
    requeued = (tmp_path / "scontrol.txt").read_text() if (tmp_path / "scontrol.txt").is_file() else ""
    number = variables.get("SLURM_JOB_ID", str(os.getpid()))
    assert requeued == (f"requeue {number}\n" if ends == "stopped" else "")
