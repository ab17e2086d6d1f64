"""The GPU's kernels, compiled for the host: what data/kernels.py's CudaKernels does, without a GPU."""

import contextlib
import ctypes
import subprocess
from pathlib import Path

import torch

from ffcv_imagenet import native
from ffcv_imagenet.data.read.kernels import KERNELS

SOURCE = Path(__file__).with_name("gpu_on_host.c")


def build(folder):
    """Compile the kernels to a shared library in ``folder``."""
    library = folder / "gpu_on_host.so"
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-fno-strict-aliasing"]
    command = ["gcc", *options, "-fPIC", "-shared", f"-I{native.GPU_KERNELS.parent}", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


class Done:
    def synchronize(self):
        pass

    def wait(self):
        pass


class HostKernels:
    """Everything happens when it is asked for, so that there is nothing to wait for."""

    device = torch.device("cpu")

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        int32, uint32, pointer, int64 = ctypes.c_int32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int64
        self.library.launch.argtypes = [int32, uint32, uint32, pointer, int64, *[pointer] * 4, *[int64] * 3]
        self.launched = []

    def launch(self, name, grid, arguments):
        self.launched.append((name, grid))
        self.library.launch(KERNELS.index(name), *grid, *arguments)

    def host_buffer(self, size):
        return torch.empty(size, dtype=torch.uint8)

    def stream(self):
        return contextlib.nullcontext()

    def record(self):
        return Done()
