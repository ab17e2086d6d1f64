"""Processes that stop, die, hang or fail end the run of all, with the reason, and the run goes on later."""

import json
import re
import shutil
import signal
import subprocess
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
from torch.distributed.run import get_args_parser
from torchrun import Ends, log, send_to_rank, torchrun, torchrun_command

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.distributed import World, process_group


@pytest.mark.slow
def test_four_processes_go_on_after_sigterm_and_after_one_has_died(digits, tmp_path):
    words = ("--checkpoint.every_steps=1", "--checkpoint.resume=auto")
    command, run = torchrun_command(4, digits, tmp_path, *words), tmp_path / "run"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    (tmp_path / "ends").mkdir()
    ends = Ends(tmp_path / "ends")
    with subprocess.Popen(command, **pipes, env=ends.environment) as process:
        while not (run / "checkpoints" / "epoch_0000_step_000001.pt").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.terminate()  # as a batch system does: torchrun passes it on
        _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("interrupted by SIGTERM: saved") == 1
    ends.check(4)
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
