"""Processes that start with torch imported, which takes seconds: forked from one that has done nothing else."""

from torch import multiprocessing


def start_processes(function, arguments, count):
    """``function(number, *arguments)`` in as many processes; raises what one of them raises."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torchvision"])
    multiprocessing.start_processes(function, arguments, nprocs=count, start_method="forkserver")
