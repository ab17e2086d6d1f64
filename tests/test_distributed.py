"""Real runs of several gloo processes on the CPU, started by torchrun."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from slurm_shims import start_batch

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.beton import read_samples
from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import _make_model
from ffcv_imagenet.models import build_model
from ffcv_imagenet.options import build

ROOT = Path(__file__).parent.parent


def words_of_run(digits, tmp_path, name, *words):
    return [
        *(f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}"),
        *("--model.arch=resnet10", "--resolution.min_res=32", "--resolution.max_res=32", "--validation.resolution=35"),
        *("--training.batch_size=24", "--lr.base_batch=24", "--lr.lr=0.01", "--lr.peak_epoch=1", "--training.epochs=2"),
        *("--validation.batch_size=4", "--dist.device=cpu", f"--logging.folder={tmp_path}", f"--logging.name={name}"),
        *words,
    ]


def torchrun(processes, digits, tmp_path, *words, name="run"):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
        *(str(ROOT / "train_imagenet.py"), *words_of_run(digits, tmp_path, name, *words)),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def log(tmp_path, name="run"):
    return [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]


def weights(tmp_path, name):
    return torch.load(tmp_path / name / "checkpoints" / "epoch_0002.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A folder with the run ``two``: two processes, two epochs without interruption."""
    folder = tmp_path_factory.mktemp("runs")
    result = torchrun(2, digits, folder, name="two")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("final top-1") == 1
    return folder


def test_two_processes_train(trained):
    first, second = log(trained, "two")
    assert second["train_loss"] < first["train_loss"]
    params = json.loads((trained / "two" / "params.json").read_text())
    assert params["world_size"] == 2


def test_two_processes_resume_to_the_same_weights(trained, digits, tmp_path):
    folder = tmp_path / "parts"
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    # The whole run's folder, as it was after its first epoch.
    (checkpoints / "epoch_0001.pt").write_bytes((trained / "two" / "checkpoints" / "epoch_0001.pt").read_bytes())
    (folder / "params.json").write_bytes((trained / "two" / "params.json").read_bytes())
    result = torchrun(2, digits, tmp_path, "--checkpoint.resume=auto", name="parts")
    assert result.returncode == 0, result.stderr
    whole, parts = weights(trained, "two"), weights(tmp_path, "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert [line["train_loss"] for line in log(trained, "two")] == [
        line["train_loss"] for line in log(tmp_path, "parts")
    ]


def test_top_1_is_the_same_for_any_number_of_processes(trained, digits, tmp_path):
    checkpoint = trained / "two" / "checkpoints" / "epoch_0002.pt"
    lines = set()
    for processes in (1, 2, 3):
        result = torchrun(processes, digits, tmp_path, "--training.eval_only=1", f"--checkpoint.resume={checkpoint}")
        assert result.returncode == 0, result.stderr
        lines |= set(re.findall(r"^top-1 .*$", result.stdout, re.MULTILINE))
    assert len(lines) == 1
    assert "(31 images;" in lines.pop()


def test_a_batch_that_the_processes_cannot_share_is_one_line(digits, tmp_path):
    result = torchrun(2, digits, tmp_path, "--training.batch_size=25")
    assert result.returncode != 0
    assert len(re.findall(r"^error: .*allowed is a multiple of 2", result.stderr, re.MULTILINE)) == 1
    assert not any(tmp_path.iterdir())


def test_the_same_micro_batches_on_one_process_take_the_same_steps(digits, tmp_path):
    # Two processes with two micro-batches each, or one with four: the same six images in each of the four.
    for processes, accumulation in ((2, 2), (1, 4)):
        words = [f"--training.accumulation={accumulation}", "--lr.lr=0.001"]
        result = torchrun(processes, digits, tmp_path, *words, name=str(processes))
        assert result.returncode == 0, result.stderr
    two, one = weights(tmp_path, "2"), weights(tmp_path, "1")
    torch.manual_seed(0)
    start = build_model("resnet10", 3).state_dict()
    learned = [key for key in one if "running" not in key and "num_batches" not in key]
    # Rounding differs in the sums, and the difference grows from step to step; other gradients would make it as
    # large as the steps themselves.
    difference = sum((two[key] - one[key]).square().sum() for key in learned)
    steps = sum((one[key] - start[key]).square().sum() for key in learned)
    assert (difference / steps).sqrt() < 0.1


def test_synchronised_batch_normalisation_on_cpus_is_refused(digits):
    values = {"data.val": str(digits / "val.beton"), "data.train": str(digits / "train.beton"), "dist.sync_bn": 1}
    with pytest.raises(ValueError, match=r"dist.sync_bn: got 1, allowed on CPUs is 0"):
        _make_model(build(TrainConfig, values), 3, World(0, 2, 0, 2, torch.device("cpu")))


def test_a_process_that_fails_ends_the_run_and_is_named(digits, tmp_path):
    # The second process finds a damaged sample in its part of the validation images.
    shutil.copytree(digits, tmp_path / "data")
    samples = read_samples(tmp_path / "data" / "val.beton")
    number = int(np.flatnonzero(samples.is_jpeg)[-1])
    with (tmp_path / "data" / "val.beton").open("r+b") as file:
        file.seek(int(samples.pointer[number]))
        file.write(bytes(10))
    result = torchrun(2, tmp_path / "data", tmp_path / "runs")
    assert result.returncode != 0
    assert re.search(rf"error on rank 1: .*val.beton: sample {number} is damaged", result.stderr)
    assert json.loads((tmp_path / "runs" / "run" / "status.json").read_text())["state"] in ("interrupted", "failed")


def test_two_nodes_give_the_weights_of_two_processes_on_one(trained, digits, tmp_path):
    # Two torchrun agents that meet by c10d, as slurm/many_nodes.sh starts them.
    words = words_of_run(digits, tmp_path, "nodes", f"--dist.cpu_threads={max(1, len(os.sched_getaffinity(0)) // 2)}")
    shims = tmp_path / "shims"
    shims.mkdir()
    with start_batch(shims, "many_nodes.sh", *words, SLURM_JOB_NUM_NODES="2", SLURM_JOB_NODELIST="a,b") as job:
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert output.count("final top-1") == 1
    one_node, two_nodes = weights(trained, "two"), weights(tmp_path, "nodes")
    assert all(torch.equal(one_node[key], two_nodes[key]) for key in one_node)
    assert not (shims / "scontrol.txt").exists()
