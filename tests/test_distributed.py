"""Real runs of several gloo processes on the CPU, started by torchrun."""

import json
import os
import re
import signal
import subprocess

import pytest
import torch
from equality import same
from processes import run_together
from slurm_shims import start_batch
from torchrun import Ends, log, send_to_rank, torchrun, torchrun_command, words_of_run

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import make_model
from ffcv_imagenet.options import build
from ffcv_imagenet.resolved import resolve


def weights(tmp_path, name):
    return torch.load(tmp_path / name / "checkpoints" / "epoch_0002.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A folder with the run ``two``: two processes, two epochs without interruption."""
    folder = tmp_path_factory.mktemp("runs")
    ends = Ends(tmp_path_factory.mktemp("ends"))
    result = torchrun(2, digits, folder, name="two", env=ends.environment)
    assert result.returncode == 0, result.stderr
    ends.check(2)
    assert result.stdout.count("final top-1") == 1
    return folder


@pytest.mark.slow
def test_two_processes_train(trained):
    first, second = log(trained, "two")
    assert second["train_loss"] < first["train_loss"]
    params = json.loads((trained / "two" / "params.json").read_text())
    assert params["world_size"] == 2


@pytest.mark.slow
def test_torchrun_starts_a_stopped_and_a_killed_run_again_and_it_ends_the_same(trained, digits, tmp_path):
    command = torchrun_command(
        2, digits, tmp_path, "--checkpoint.every_steps=1", name="again", launcher=["--max-restarts=2"]
    )
    checkpoints = tmp_path / "again" / "checkpoints"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # Only one of the processes gets the signal, and both stop after the same step.
        send_to_rank(1, process, signal.SIGUSR1, checkpoints / "epoch_0000_step_000001.pt")
        send_to_rank(1, process, signal.SIGKILL, checkpoints / "epoch_0001.pt")
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert "interrupted by SIGUSR1: saved" in errors
    assert len(json.loads((tmp_path / "again" / "params.json").read_text())["resumed"]) == 2
    whole, again = weights(trained, "two"), weights(tmp_path, "again")
    assert same(whole, again)
    times = ("images_per_second", "seconds", "total_seconds", "wait_share")
    for one, other in zip(log(trained, "two"), log(tmp_path, "again"), strict=True):
        assert {k: v for k, v in one.items() if k not in times} == {k: v for k, v in other.items() if k not in times}


def test_top_1_is_the_same_for_any_number_of_processes(trained, digits, tmp_path):
    checkpoint = trained / "two" / "checkpoints" / "epoch_0002.pt"
    lines = set()
    words = words_of_run(digits, tmp_path, "run", "--training.eval_only=1", f"--checkpoint.resume={checkpoint}")
    for processes in (1, 2, 4):
        first, *others = run_together("ffcv_imagenet.train", words, processes, tmp_path)
        assert first[0] == 0, first
        assert others == [(0, "", "")] * (processes - 1)
        lines |= set(re.findall(r"^top-1 .*$", first[1], re.MULTILINE))
    assert len(lines) == 1
    assert "(31 images;" in lines.pop()


def test_a_batch_that_the_processes_cannot_share_is_one_line(digits, tmp_path):
    words = words_of_run(digits, tmp_path / "runs", "run", "--training.batch_size=25")
    results = run_together("ffcv_imagenet.train", words, 2, tmp_path)
    assert [status for status, *_ in results] == [2, 2]
    errors = [re.findall(r"^error: .*allowed is a multiple of 2\b", text, re.MULTILINE) for *_, text in results]
    assert sorted(map(len, errors)) == [0, 1]
    assert not (tmp_path / "runs").exists()


def test_synchronised_batch_normalisation_on_cpus_is_refused(digits):
    values = {"data.val": str(digits / "val.beton"), "data.train": str(digits / "train.beton"), "dist.sync_bn": 1}
    with pytest.raises(ValueError, match=r"dist.sync_bn: got 1, allowed on CPUs is 0"):
        make_model(resolve(build(TrainConfig, values), World(0, 2, 0, 2, torch.device("cpu"))))


@pytest.mark.slow
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
    assert same(one_node, two_nodes)
    assert not (shims / "scontrol.txt").exists()
