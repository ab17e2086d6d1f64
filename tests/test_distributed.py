"""Real runs of several gloo processes on the CPU, started by torchrun."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def torchrun(processes, digits, tmp_path, *words, name="run"):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
        *(
            str(ROOT / "train_imagenet.py"),
            f"--data.train={digits / 'train.beton'}",
            f"--data.val={digits / 'val.beton'}",
        ),
        *("--model.arch=resnet10", "--resolution.min_res=32", "--resolution.max_res=32", "--validation.resolution=35"),
        *("--training.batch_size=24", "--lr.base_batch=24", "--lr.lr=0.01", "--lr.peak_epoch=1", "--training.epochs=2"),
        *("--validation.batch_size=4", "--dist.device=cpu", f"--logging.folder={tmp_path}", f"--logging.name={name}"),
        *words,
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
