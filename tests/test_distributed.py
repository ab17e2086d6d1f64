"""Real runs of several gloo processes on the CPU, started by torchrun."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from equality import same
from slurm_shims import start_batch
from torch.distributed.run import get_args_parser

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.distributed import World, process_group
from ffcv_imagenet.experiment import make_model
from ffcv_imagenet.options import build
from ffcv_imagenet.resolved import resolve

ROOT = Path(__file__).parent.parent


def words_of_run(digits, tmp_path, name, *words):
    return [
        *(f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}"),
        *("--model.arch=resnet10", "--resolution.min_res=32", "--resolution.max_res=32", "--validation.resolution=35"),
        *("--training.batch_size=24", "--lr.base_batch=24", "--lr.lr=0.01", "--lr.peak_epoch=1", "--training.epochs=2"),
        *("--validation.batch_size=4", "--dist.device=cpu", f"--logging.folder={tmp_path}", f"--logging.name={name}"),
        *words,
    ]


def torchrun_command(processes, digits, tmp_path, *words, name="run", launcher=()):
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *launcher),
        *(str(ROOT / "train_imagenet.py"), *words_of_run(digits, tmp_path, name, *words)),
    ]


def torchrun(*arguments, **keywords):
    return subprocess.run(torchrun_command(*arguments, **keywords), capture_output=True, text=True, timeout=300)


def send_to_rank(rank, torchrun, number, after):
    """Send a signal to a process when the file ``after`` is there."""
    while not after.exists():
        assert torchrun.poll() is None, torchrun.communicate()
        time.sleep(0.005)
    for child in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split():
        if b"\0LOCAL_RANK=%d\0" % rank in Path(f"/proc/{child}/environ").read_bytes():
            os.kill(int(child), number)
            return
    raise AssertionError(f"no process with LOCAL_RANK={rank}")


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


@pytest.mark.slow
def test_four_processes_go_on_after_sigterm_and_after_one_has_died(digits, tmp_path):
    words = ("--checkpoint.every_steps=1", "--checkpoint.resume=auto")
    command, run = torchrun_command(4, digits, tmp_path, *words), tmp_path / "run"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        while not (run / "checkpoints" / "epoch_0000_step_000001.pt").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.terminate()  # as a batch system does: torchrun passes it on
        _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("interrupted by SIGTERM: saved") == 1
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"

    with subprocess.Popen(command, **pipes) as process:
        send_to_rank(3, process, signal.SIGKILL, run / "checkpoints" / "epoch_0001.pt")
        process.communicate(timeout=300)  # it does not hang
    assert process.returncode != 0

    result = torchrun(4, digits, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("final top-1") == 1
    assert [line["epoch"] for line in log(tmp_path)] == [1, 2]
    params = json.loads((run / "params.json").read_text())
    assert params["world_size"] == 4
    assert len(params["resumed"]) == 2


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run(digits, tmp_path):
    words = ("--checkpoint.every_steps=1", "--dist.timeout_minutes=0.25")
    # torchrun waits for what hangs before it kills; newer ones have an option that says for how long.
    quickly = [word for word in ["--shutdown-timeout=1"] if word[:18] in get_args_parser().format_help()]
    command = torchrun_command(2, digits, tmp_path, *words, launcher=quickly)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        send_to_rank(1, process, signal.SIGSTOP, tmp_path / "run" / "checkpoints" / "epoch_0000_step_000001.pt")
        _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert re.search(r"^error: .* has not answered for --dist.timeout_minutes=0.25", errors, re.MULTILINE)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "has not answered" in status["error"]


@pytest.mark.slow
def test_top_1_is_the_same_for_any_number_of_processes(trained, digits, tmp_path):
    checkpoint = trained / "two" / "checkpoints" / "epoch_0002.pt"
    lines = set()
    for processes in (1, 2, 4):
        result = torchrun(processes, digits, tmp_path, "--training.eval_only=1", f"--checkpoint.resume={checkpoint}")
        assert result.returncode == 0, result.stderr
        lines |= set(re.findall(r"^top-1 .*$", result.stdout, re.MULTILINE))
    assert len(lines) == 1
    assert "(31 images;" in lines.pop()


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_one_line(digits, tmp_path):
    result = torchrun(2, digits, tmp_path, "--training.batch_size=25")
    assert result.returncode != 0
    assert len(re.findall(r"^error: .*allowed is a multiple of 2", result.stderr, re.MULTILINE)) == 1
    assert not any(tmp_path.iterdir())


def test_synchronised_batch_normalisation_on_cpus_is_refused(digits):
    values = {"data.val": str(digits / "val.beton"), "data.train": str(digits / "train.beton"), "dist.sync_bn": 1}
    with pytest.raises(ValueError, match=r"dist.sync_bn: got 1, allowed on CPUs is 0"):
        make_model(resolve(build(TrainConfig, values), World(0, 2, 0, 2, torch.device("cpu"))))


def test_nccl_lets_gloo_notice_first_that_a_process_does_not_answer(monkeypatch):
    timeouts, devices = {}, {}

    def join(backend, timeout, device_id, **_):
        timeouts[backend], devices[backend] = timeout, device_id

    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(torch.distributed.HashStore(), 0, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", join)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for device in (torch.device("cuda", 0), torch.device("cpu")):
        with process_group(World(0, 2, 0, 2, device), 10):
            pass
    assert timeouts == {"nccl": timedelta(minutes=11), "gloo": timedelta(minutes=10)}
    assert devices == {"nccl": torch.device("cuda", 0), "gloo": None}


@pytest.mark.slow
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
