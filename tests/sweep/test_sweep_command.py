"""The sweep as a user starts it: two losses side by side on the digits, through SIGKILL of a run and of the sweep."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ffcv_imagenet.sweep.jobs import read_progress
from ffcv_imagenet.sweep.processes import is_active, processes_of

ROOT = Path(__file__).parents[2]
LOSSES = ("baseline", "maxsup")


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_sweep_survives_kills_resumes_and_ends_in_one_table(digits, tmp_path):
    command = [
        *(
            sys.executable,
            "-m",
            "ffcv_imagenet.sweep",
            f"--runs={tmp_path / 'runs'}",
            f"--sweep.loss={','.join(LOSSES)}",
        ),
        *("--sweep.seeds=0", f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}"),
        *("--model.arch=resnet10", "--resolution.min_res=32", "--resolution.max_res=32", "--validation.resolution=32"),
        *("--training.batch_size=24", "--lr.base_batch=24", "--lr.lr=0.01", "--lr.peak_epoch=1", "--dist.device=cpu"),
        *("--training.epochs=6",),
    ]
    first, second = (tmp_path / "runs" / f"none_resnet10_{loss}_seed0" for loss in LOSSES)

    output = tmp_path / "first.txt"
    with output.open("w") as file, subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as sweep:
        wait_for(lambda: read_progress(first).epochs_done > 0)
        (victim,) = processes_of(first)
        os.kill(victim, signal.SIGKILL)
        # One run goes on while the other is started again.
        wait_for(lambda: processes_of(first) not in ([], [victim]))
        wait_for(lambda: read_progress(second).epochs_done > 0)
        sweep.kill()
    # The kernel tells the runs of the dead sweep to stop; they note it down, or end by the signal where they start.
    wait_for(lambda: not is_active(first) and not is_active(second))
    assert "baseline_seed0: failed (ended by SIGKILL); it is started again" in output.read_text()
    done = {folder: read_progress(folder).epochs_done for folder in (first, second)}
    assert all(done.values())

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [read_progress(folder).epochs_done for folder in (first, second)] == [6, 6]
    for folder in (first, second):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == list(range(1, 7))
        state = "finished" if done[folder] == 6 else f"resumes after epoch {done[folder]}"
        assert re.search(rf"{folder.name} +{done[folder]}/6 epochs  {state}", result.stdout)
    table = result.stdout[result.stdout.index("architecture  recipe") :]
    assert re.search(r"^resnet10 +none +baseline +1 .*\nresnet10 +none +maxsup +1 ", table, re.MULTILINE)
