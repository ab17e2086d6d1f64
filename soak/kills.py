"""Kill trainings at random moments until enough have died, and compare what they end with.

    python soak/kills.py [--kills 30] [--rank-kills 20] [--data FOLDER] [--seed 0]

A run of one process is killed (kill -9) and started again with another number of loader workers, until it finishes;
then the next run begins. Runs of two processes are started by torchrun --max-restarts, which starts both anew when one
of them, chosen at random, is killed. After every kill each file of the run folder must be whole and no logged epoch may
be missing; in the end weights and log must be bitwise those of a run that nobody disturbed, times left out. Prints a
line of figures; the exit status is 1 when something was lost or differs. FOLDER has train.beton and val.beton (none:
a few of scikit-learn's digits).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ffcv_imagenet.models  # noqa: F401 (torchvision takes seconds, and no thread: imported once, before the forks)
from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.digits import draw_digits
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits
from ffcv_imagenet.options import build
from ffcv_imagenet.run.checkpoint import CheckpointFolder, load_checkpoint
from ffcv_imagenet.run.lock import is_active

ROOT = Path(__file__).parent.parent
#: What a log line says about time is all that may differ.
TIMES = ("images_per_second", "seconds", "total_seconds", "wait_share")


class Trial:
    """Runs in ``folder`` on the data in ``data``, and what has been counted."""

    def __init__(self, data: Path, folder: Path, seed: int):
        self.data, self.folder, self.random = data, folder, random.Random(seed)
        self.kills = self.runs = self.equal = self.bytes_lost = 0

    def options(self, name: str) -> dict[str, str]:
        """A tiny training with dropout and a loss that changes: four epochs of six steps."""
        return {
            "data.train": f"{self.data}/train.beton",
            "data.val": f"{self.data}/val.beton",
            "data.num_workers": str(self.random.choice((1, 2))),
            "model.arch": "squeezenet1_1",
            "resolution.min_res": "32",
            "resolution.max_res": "32",
            "validation.resolution": "32",
            "validation.batch_size": "4",
            "loss.name": "maxsup",
            "lr.lr": "0.01",
            "lr.base_batch": "16",
            "lr.peak_epoch": "1",
            "training.epochs": "4",
            "training.batch_size": "16",
            "dist.device": "cpu",
            "dist.cpu_threads": "1",
            "dist.timeout_minutes": "1",
            "checkpoint.resume": "auto",
            "checkpoint.every_steps": "2",
            "logging.folder": str(self.folder),
            "logging.name": name,
        }

    def start_one(self, name: str) -> _Child:
        """A process that trains. Forked, which saves the seconds of importing torch."""
        options = self.options(name)
        child = os.fork()
        if child:
            return _Child(child)
        status = 1
        try:
            with (self.folder / f"{name}.out").open("a") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            # Not before the fork: with it FFCV starts numba's threads, which a fork does not take along.
            from ffcv_imagenet.experiment import train

            train(build(TrainConfig, options))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def start_two(self, name: str) -> subprocess.Popen[bytes]:
        """torchrun with two processes that train."""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        # Nothing but torchrun's restart makes it go on.
        options = self.options(name) | {"checkpoint.resume": "none"}
        words = [f"--{key}={value}" for key, value in options.items()]
        with (self.folder / f"{name}.out").open("a") as out:
            return subprocess.Popen(
                [*command, "--max-restarts=1000", str(ROOT / "train_imagenet.py"), *words],
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def undisturbed(self, name: str, poll: Callable[[], int | None]) -> float:
        """Train without a kill; returns the seconds between the run's beginning and its end."""
        self._begun(name, poll)
        began = time.monotonic()
        while (status := poll()) is None:
            time.sleep(0.01)
        if status:
            raise self._failure(name)
        return time.monotonic() - began

    def disturb_one(self, kills: int) -> None:
        """Kill runs of one process, ``kills`` times in all."""
        if not kills:
            return
        seconds = self.undisturbed("one", self.start_one("one").poll)
        while kills:
            name = f"one_{self.runs}"
            while True:
                child = self.start_one(name)
                self._begun(name, child.poll)
                if kills and self._wait(child.poll, self.random.uniform(0, seconds)):
                    child.kill()
                    kills -= 1
                    self._count_kill(name)
                elif self._end(child.poll) == 0:
                    break
                else:
                    raise self._failure(name)
            self._compare(name, "one")

    def disturb_two(self, kills: int) -> None:
        """Kill one of two processes, ``kills`` times in all."""
        if not kills:
            return
        seconds = self.undisturbed("two", self.start_two("two").poll)
        while kills:
            name = f"two_{self.runs}"
            torchrun = self.start_two(name)
            while kills:
                self._begun(name, torchrun.poll)
                if not self._wait(torchrun.poll, self.random.uniform(0, seconds)):
                    break
                victims = _children(torchrun.pid)
                if len(victims) == 2:
                    os.kill(self.random.choice(victims), signal.SIGKILL)
                    kills -= 1
                    while set(_children(torchrun.pid)) & set(victims):  # until torchrun has ended both
                        time.sleep(0.01)
                    self._count_kill(name)
            if self._end(torchrun.poll):
                raise self._failure(name)
            self._compare(name, "two")

    def _failure(self, name: str) -> RuntimeError:
        return RuntimeError(f"{name} failed:\n" + (self.folder / f"{name}.out").read_text())

    def _begun(self, name: str, poll: Callable[[], int | None]) -> None:
        """Wait until a process has the run's folder."""
        while not is_active(self.folder / name) and poll() is None:
            time.sleep(0.01)

    def _wait(self, poll: Callable[[], int | None], seconds: float) -> bool:
        """Whether the process is still there after so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if poll() is not None:
                return False
            time.sleep(0.005)
        return poll() is None

    def _end(self, poll: Callable[[], int | None]) -> int:
        while (status := poll()) is None:
            time.sleep(0.01)
        return status

    def _count_kill(self, name: str) -> None:
        """Look whether everything that has its final name is whole."""
        self.kills += 1
        run = self.folder / name
        for file in [*run.glob("[!.]*.json*"), *CheckpointFolder(run / "checkpoints", 1).files()]:
            try:
                if file.suffix == ".pt":
                    load_checkpoint(file)
                else:
                    for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
                        json.loads(line)
            except FileNotFoundError:  # Pruned meanwhile: with two processes the other one may be still there.
                pass
            except ValueError as error:
                self.bytes_lost += file.stat().st_size
                print(f"{name}: {file.name} is damaged: {error}", file=sys.stderr)

    def _compare(self, name: str, reference: str) -> None:
        self.runs += 1
        same = _outcome(self.folder / name) == _outcome(self.folder / reference)
        self.equal += same
        print(f"{name}: {'bitwise equal' if same else 'DIFFERS'}, {self.kills} kills so far", flush=True)


class _Child:
    def __init__(self, pid: int):
        self.pid = pid
        self.status: int | None = None

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _children(pid: int) -> list[int]:
    """The processes that train, among torchrun's children."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"train_imagenet.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def _outcome(run: Path) -> tuple[Any, ...]:
    """Names of the last checkpoints, all bytes of the last one's tensors, and the log without times."""
    files = CheckpointFolder(run / "checkpoints", 1).files()
    state = load_checkpoint(files[-1])
    tensors: list[tuple[str, bytes]] = []

    def collect(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            tensors.append((name, value.contiguous().numpy().tobytes()))
        elif isinstance(value, dict):
            for key, part in value.items():
                collect(f"{name}.{key}", part)
        elif isinstance(value, list):
            for number, part in enumerate(value):
                collect(f"{name}.{number}", part)

    for key in ("model", "optimizer", "loss", "rng"):
        collect(key, state[key])
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    log = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    return [file.name for file in files], tensors, log


def few_digits(folder: Path) -> None:
    """96 digits for training and 31 for validation, as .beton files in ``folder``."""
    draw_digits(folder / "all")
    for split, count in (("train", 32), ("val", 11)):
        for label in "012":
            target = folder / "few" / split / label
            target.mkdir(parents=True)
            for image in sorted((folder / "all" / split / label).iterdir())[:count]:
                shutil.copy(image, target)
    write_splits(folder / "few", folder, ("train", "val"), resolve_parameters(mode="jpg"), num_workers=1)


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description="Kill trainings at random moments and compare what they end with.")
    parser.add_argument("--kills", type=int, default=30, help="kills of a run with one process")
    parser.add_argument("--rank-kills", type=int, default=20, help="kills of one of two processes")
    parser.add_argument("--data", type=Path, help="folder with train.beton and val.beton")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # A fork does not take OpenMP's threads with it.
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = arguments.data
        if data is None:
            data = folder / "data"
            data.mkdir()
            few_digits(data)
        trial = Trial(data, folder, arguments.seed)
        trial.disturb_one(arguments.kills)
        trial.disturb_two(arguments.rank_kills)
    print(
        f"kills survived: {trial.kills} ({arguments.kills} of one process, {arguments.rank_kills} of one of two); "
        f"runs bitwise equal: {trial.equal} of {trial.runs}; bytes lost: {trial.bytes_lost}; "
        f"{time.monotonic() - began:.0f} s"
    )
    sys.exit(trial.equal != trial.runs or trial.bytes_lost != 0)


if __name__ == "__main__":
    main()
