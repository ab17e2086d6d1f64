"""One process per device, through torchrun and torch.distributed; without torchrun, one process."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ffcv_imagenet.script import USER_ERROR_STATUS

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: its rank, the number of processes (here and in all), and its device."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process prints, logs and writes checkpoints."""
        return self.rank == 0


def find_world(device: str = "auto") -> World:
    """Read rank and world size from torchrun's environment; without torchrun this process is alone.

    Args:
        device: ``cuda``, ``cpu``, or ``auto`` (a GPU where there is one).

    Raises:
        ValueError: GPUs were asked for and there are fewer than local processes.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if local_size > torch.cuda.device_count():
            raise ValueError(
                f"dist.device=cuda: got {local_size} processes on this machine, "
                f"allowed are at most its {torch.cuda.device_count()} GPUs"
            )
        return World(rank, size, local_rank, local_size, torch.device("cuda", local_rank))
    return World(rank, size, local_rank, local_size, torch.device("cpu"))


@contextlib.contextmanager
def process_group(world: World, timeout_minutes: float) -> Iterator[None]:
    """Join the other processes for the length of a ``with`` block (nccl on GPUs, gloo on CPUs).

    Raises:
        ConnectionError: another process ended, or one waited longer than ``timeout_minutes`` for another.
    """
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1:
        yield
        return
    backend, timeout = "gloo", timedelta(minutes=timeout_minutes)
    if world.device.type == "cuda":
        # NCCL ends the process at its timeout, without our message: MaxOverRanks, through gloo, has to notice first.
        backend, timeout = "nccl", timeout + timedelta(minutes=1)
    # A thread of gloo's that has not put away its last tensor when Python ends aborts the process, and a run that is
    # complete counts as failed. Gloo's threads end with their groups, which cycles of the training's objects hold.
    atexit.register(gc.collect)
    try:
        # torchrun may keep its store when it starts the processes again; the addresses of those before are still in it.
        store, rank, size = next(dist.rendezvous("env://", timeout=timeout))
        store = dist.PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        # With its device named, NCCL connects now, and not in the first step, and never guesses the device.
        device = world.device if world.device.type == "cuda" else None
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=device)
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ConnectionError(
            f"another process has ended, or has not answered for dist.timeout_minutes={timeout_minutes:g} ({reason})"
        ) from error
    except SystemExit:  # on all processes: a signal has stopped them, or rank 0 reports an error
        dist.destroy_process_group()
        raise
    # Only when no process is lost: it would wait for those that are gone.
    dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective failed; gloo's errors have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def launcher() -> str | None:
    """The torchrun that started this process, by machine, process and start time; None without one.

    It is the same after torchrun has started its processes anew (``--max-restarts``).
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    parent = os.getppid()
    started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{platform.node()} {parent} {started}"


def on_main(world: World, function: Callable[[], T]) -> T:
    """What ``function`` returns on rank 0, on every rank; it is called there only.

    Raises:
        ValueError, OSError: what it raised, on rank 0; the other ranks end with SystemExit, because rank 0 reports it.
    """
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if world.is_main:
        try:
            outcome[0] = function()
        except (ValueError, OSError) as error:
            failure, outcome[1] = error, True
    if dist.is_initialized():
        dist.broadcast_object_list(outcome, src=0)
    if failure is not None:
        raise failure
    if outcome[1]:
        raise SystemExit(USER_ERROR_STATUS)
    return outcome[0]


def only_on_main(world: World, error: Exception) -> BaseException:
    """What to raise where every rank meets the same ``error``: rank 0 reports it, the others end silently."""
    return error if world.is_main else SystemExit(USER_ERROR_STATUS)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum ``tensor`` over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the buffers of rank 0: each has its own statistics in the normalisation layers."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class MaxOverRanks:
    """The largest of the numbers that the processes report, found while their devices compute.

    Called equally often on every process. Alone, a process gets its own number at once; several get the largest number
    of the call before, so that none has to wait for the slowest, nor for its device.
    """

    def __init__(self, timeout_minutes: float):
        self.group: Any = None
        if dist.is_initialized():
            self.group = dist.new_group(backend="gloo", timeout=timedelta(minutes=timeout_minutes))
        self.number = torch.zeros(1, dtype=torch.int32)
        self.exchange: dist.Work | None = None

    def __call__(self, number: int) -> int:
        """Report ``number``."""
        if self.group is None:
            return number
        known = self.finish()
        self.number.fill_(number)
        self.exchange = dist.all_reduce(self.number, dist.ReduceOp.MAX, group=self.group, async_op=True)
        return known

    def finish(self) -> int:
        """Wait for the last exchange; returns its result, 0 without one."""
        if self.exchange is None:
            return 0
        self.exchange.wait()
        self.exchange = None
        return int(self.number)


def gather(value: Any) -> list[Any]:
    """Every process's ``value``, in the order of their ranks, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
