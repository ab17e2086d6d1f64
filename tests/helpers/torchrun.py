"""Trainings of several gloo processes on the CPU, started by torchrun, and what they leave."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


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


def torchrun(*arguments, env=None, **keywords):
    command = torchrun_command(*arguments, **keywords)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


class Ends:
    """The threads that each process of a torchrun with this ``environment`` has when Python ends, in files."""

    def __init__(self, folder):
        self.folder = folder
        at_exit = Path(__file__).parent / "at_exit"
        self.environment = {**os.environ, "PYTHONPATH": str(at_exit), "THREADS_AT_EXIT": str(folder)}

    def check(self, processes):
        """A thread of gloo's that holds a tensor when Python ends would abort its process (SIGABRT)."""
        lists = [file.read_text() for file in self.folder.iterdir()]
        assert len(lists) == processes
        assert all("gloo" not in names for names in lists), lists


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
