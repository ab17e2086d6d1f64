"""The GPU's part of the decoder: its kernels, compiled when they are first needed, and the stream on which they run.

The compiler is NVRTC, which comes with torch, through NVIDIA's cuda.core.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from ffcv_imagenet import native

#: In the order in which they run; native/gpu_kernels.cu says what each does.
KERNELS = ("fic_gpu_filters", "fic_gpu_decode", "fic_gpu_resize_down", "fic_gpu_resize_across")

#: Threads per block.
THREADS = 128


def is_installed() -> bool:
    """Whether the library that compiles and starts the kernels is there."""
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.core") is not None


@functools.cache
def compile_kernels(architecture: str) -> Any:
    """The kernels as machine code for one architecture (``"sm_90"``); needs no GPU. A second or so, once per process.

    Raises:
        RuntimeError: the compiler's messages.
    """
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        name=native.GPU_KERNELS.name, arch=architecture, std="c++17", include_path=str(native.GPU_KERNELS.parent)
    )
    return Program(native.GPU_KERNELS.read_text(), "c++", options).compile("cubin")


class Event(Protocol):
    """A point in the stream's work."""

    def synchronize(self) -> None:
        """Wait on the host until the work before it is done."""

    def wait(self) -> None:
        """Let the current stream wait until the work before it is done."""


class Kernels(Protocol):
    """Where the kernels run. Memory belongs to :attr:`device`."""

    device: torch.device

    def launch(self, name: str, grid: tuple[int, int], arguments: tuple[int, ...]) -> None:
        """Start a kernel on the stream; ``arguments`` are 64 bits wide each."""

    def host_buffer(self, size: int) -> torch.Tensor:
        """[size] uint8 on the host, from which copies to the device run by themselves."""

    def stream(self) -> contextlib.AbstractContextManager[None]:
        """Make the kernels' stream the current one, also for torch."""

    def record(self) -> Event:
        """An event after the work queued on the current stream."""


class CudaKernels:
    """The kernels on a GPU, on a stream of their own.

    Raises:
        ValueError: cuda.core is not installed.
    """

    def __init__(self, device: torch.device):
        if not is_installed():
            raise ValueError("data.decode: got gpu, which needs NVIDIA's cuda.core: pip install cuda-core")
        from cuda.core import Device, Stream

        number = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", number)
        major, minor = torch.cuda.get_device_capability(self.device)
        self._cuda_device = Device(number)
        self._cuda_device.set_current()
        code = compile_kernels(f"sm_{major}{minor}")
        self._kernels = {name: code.get_kernel(name) for name in KERNELS}
        self._stream = torch.cuda.Stream(self.device)
        self._launch_stream = Stream.from_handle(self._stream.cuda_stream)

    def launch(self, name: str, grid: tuple[int, int], arguments: tuple[int, ...]) -> None:
        """See :class:`Kernels`."""
        from cuda.core import LaunchConfig, launch

        launch(self._launch_stream, LaunchConfig(grid=grid, block=THREADS), self._kernels[name], *arguments)

    def host_buffer(self, size: int) -> torch.Tensor:
        """See :class:`Kernels`."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """See :class:`Kernels`."""
        self._cuda_device.set_current()  # a thread begins without a device
        with torch.cuda.stream(self._stream):
            yield

    def record(self) -> torch.cuda.Event:
        """See :class:`Kernels`. Waiting for the event sleeps: a spinning thread would take a core."""
        event = torch.cuda.Event(blocking=True)
        event.record()
        return event
