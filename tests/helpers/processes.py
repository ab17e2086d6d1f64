"""Processes that start with torch imported, which takes seconds: forked from one that has done nothing else."""

import os
import runpy
import socket
import sys

from torch import multiprocessing


def start_processes(function, arguments, count):
    """``function(number, *arguments)`` in as many processes; raises what one of them raises."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torchvision"])
    multiprocessing.start_processes(function, arguments, nprocs=count, start_method="forkserver")


def run_together(module, words, count, folder):
    """A command in as many processes as torchrun would start on this machine: of each (status, output, errors)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_processes(_run, (module, words, count, folder, port), count)
    return [
        (int((folder / f"{rank}.status").read_text()), *((folder / f"{rank}.{n}").read_text() for n in (1, 2)))
        for rank in range(count)
    ]


def _run(rank, module, words, count, folder, port):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for descriptor in (1, 2):
        os.dup2(os.open(folder / f"{rank}.{descriptor}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv, status = [module, *words], 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    (folder / f"{rank}.status").write_text(str(status))
