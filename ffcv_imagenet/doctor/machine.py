"""What the machine is, as far as a training cares; nothing is measured here."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ffcv_imagenet import limits
from ffcv_imagenet.limits import Cores, Memory
from ffcv_imagenet.units import size

_PACKAGES = ("torch", "torchvision", "ffcv", "numba", "numpy")
_ROOT = Path("/")
#: Open files below which a sweep or the compiler's helpers may run out of them.
_FEW_FILES = 1024
#: What several processes with GPUs want of /dev/shm, in bytes: NCCL sends through it.
_SHM_FOR_NCCL = 1 << 30


@dataclass(frozen=True)
class Disk:
    """Where a file or folder lies: ``kind`` of file system, its device and whether that rotates (None: not known)."""

    path: str
    kind: str
    device: str
    rotates: bool | None
    total: int
    free: int


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA sees. ``link`` is its connection to the host now and at most, such as ``8.0 GT/s x16``.

    ``numa_node`` is None where the system does not tell; ``supported`` says whether torch has code for it.
    """

    name: str
    memory: int
    capability: str
    supported: bool
    link: str | None
    best_link: str | None
    numa_node: int | None


@dataclass(frozen=True)
class Machine:
    """The machine as this process sees it.

    ``numa`` are the nodes with the cores of each that the process may use; ``driver`` is NVIDIA's, ``driver_cuda`` the
    newest CUDA that it runs, ``torch_cuda`` what torch was built with; None where there is none.
    """

    host: str
    system: str
    processor: str
    versions: dict[str, str]
    cores: Cores
    numa: dict[int, int]
    memory: Memory
    shm: int
    shm_free: int
    open_files: int
    disks: tuple[Disk, ...]
    gpus: tuple[Gpu, ...]
    driver: str | None
    driver_cuda: str | None
    torch_cuda: str | None


def describe_machine(paths: tuple[Path, ...] = (), root: Path = _ROOT) -> Machine:
    """Look at the machine; ``paths`` are files whose disks matter, ``root`` is where proc and sys lie."""
    shm = os.statvfs("/dev/shm") if Path("/dev/shm").is_dir() else None
    return Machine(
        host=platform.node(),
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(root),
        versions={"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        cores=limits.cores(root),
        numa=_numa(root),
        memory=limits.memory(root),
        shm=shm.f_frsize * shm.f_blocks if shm else 0,
        shm_free=shm.f_frsize * shm.f_bavail if shm else 0,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        disks=tuple(describe_disk(path, root) for path in paths),
        gpus=tuple(_gpu(index, root) for index in range(torch.cuda.device_count())),
        driver=_driver(root),
        driver_cuda=_driver_cuda(),
        torch_cuda=torch.version.cuda,
    )


def describe_disk(path: Path, root: Path = _ROOT) -> Disk:
    """The disk of a file or folder, or of the first folder above it that is there."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    mounts: dict[Path, tuple[str, str, str]] = {}
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        number, place = before.split(" ")[2], Path(_unescaped(before.split(" ")[4]))
        mounts[place] = (after.split(" ")[0], after.split(" ")[1], number)  # the last mount at a place hides the others
    places = [folder for folder in (path, *path.parents) if folder in mounts]
    kind, device, number = mounts[places[0]] if places else ("unknown", "", "")
    block = root / "sys/dev/block" / number
    rotational = _text(block / "queue/rotational") or _text(block.resolve().parent / "queue/rotational")
    if block.resolve().name.startswith(("vd", "xvd", "loop")):
        rotational = ""  # A virtual disk says 1, whatever it lies on.
    room = os.statvfs(path)
    return Disk(
        path=str(path),
        kind=kind,
        device=device,
        rotates=None if not rotational else rotational.strip() == "1",
        total=room.f_frsize * room.f_blocks,
        free=room.f_frsize * room.f_bavail,
    )


def machine_notes(machine: Machine, processes: int) -> Iterator[str]:
    """What about a machine is odd or in the way, a sentence each; ``processes`` are those of a training on it."""
    if not machine.gpus and machine.driver is not None:
        if machine.torch_cuda is None:
            yield "there is an NVIDIA driver, but this torch was built without CUDA: install one that was"
        elif machine.driver_cuda and _major(machine.driver_cuda) < _major(machine.torch_cuda):
            yield (
                f"the driver ({machine.driver}) runs CUDA up to {machine.driver_cuda}, torch was built with "
                f"{machine.torch_cuda}: update the driver, or install a torch for CUDA {machine.driver_cuda}"
            )
        else:
            yield "there is an NVIDIA driver, but CUDA sees no GPU (CUDA_VISIBLE_DEVICES, or the container's --gpus)"
    for index, gpu in enumerate(machine.gpus):
        if not gpu.supported:
            yield f"torch has no code for GPU {index} ({gpu.name}, compute capability {gpu.capability})"
        if gpu.best_link and gpu.link and gpu.link.split("x")[-1] != gpu.best_link.split("x")[-1]:
            yield f"GPU {index} is linked by {gpu.link}, it could be by {gpu.best_link}: see how it sits in its slot"
        if gpu.numa_node is not None and machine.numa and not machine.numa.get(gpu.numa_node):
            yield f"GPU {index} is on NUMA node {gpu.numa_node}, of which this process has no core"
    if machine.cores.quota is not None and machine.cores.quota < machine.cores.affinity:
        yield (
            f"the process may run on {machine.cores.affinity} cores, but its control group pays for "
            f"{machine.cores.quota:g}: a training uses {machine.cores.usable}"
        )
    if len(machine.gpus) > 1 and processes > 1 and machine.shm < _SHM_FOR_NCCL:
        yield f"/dev/shm has {size(machine.shm)}: NCCL wants 1 GiB (docker run --shm-size=1g)"
    if machine.open_files < _FEW_FILES:
        yield f"a process may open {machine.open_files} files: ulimit -n {_FEW_FILES}"
    for disk in machine.disks:
        if disk.rotates:
            yield f"{disk.path} lies on a rotating disk ({disk.device}), where random reads are slow"
        if disk.kind.startswith(("nfs", "cifs", "smb", "fuse")):
            yield f"{disk.path} lies on {disk.kind}, not on a disk of this machine, which would be faster"


def _processor(root: Path) -> str:
    found = re.search(r"^model name\s*:\s*(.*)", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.machine()


def processor_has_bf16(root: Path = _ROOT) -> bool:
    """Whether the processor multiplies matrices in bf16 itself (AVX-512 BF16, AMX; Arm's BF16)."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return flags is not None and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags[1].split())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _numa(root: Path) -> dict[int, int]:
    """How many of this process's cores each NUMA node has; nothing where the system does not tell."""
    mine, nodes = os.sched_getaffinity(0), {}
    for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        cores: set[int] = set()
        for part in filter(None, _text(folder / "cpulist").strip().split(",")):
            first, _, last = part.partition("-")
            cores |= set(range(int(first), int(last or first) + 1))
        nodes[int(folder.name[4:])] = len(cores & mine)
    return nodes


def _gpu(index: int, root: Path) -> Gpu:
    found = torch.cuda.get_device_properties(index)
    capability = torch.cuda.get_device_capability(index)
    bus = [getattr(found, f"pci_{part}_id", -1) for part in ("domain", "bus", "device")]
    folder = None if -1 in bus else root / f"sys/bus/pci/devices/{bus[0]:04x}:{bus[1]:02x}:{bus[2]:02x}.0"
    node = _text(folder / "numa_node").strip() if folder else ""
    return Gpu(
        name=found.name,
        memory=found.total_memory,
        capability=f"{capability[0]}.{capability[1]}",
        supported=is_supported(capability, torch.cuda.get_arch_list()),
        link=_link(folder, "current"),
        best_link=_link(folder, "max"),
        numa_node=int(node) if node and int(node) >= 0 else None,
    )


def is_supported(capability: tuple[int, int], built_for: list[str]) -> bool:
    """Whether code for ``built_for`` (``sm_90``, ``compute_90``) runs on a GPU of this compute capability.

    Binary code runs on the same major capability and an equal or larger minor one, PTX on all that are not older.
    """
    for name in built_for:
        kind, _, number = name.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            continue
        major, minor = divmod(int(digits[0]), 10)
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def _link(folder: Path | None, which: str) -> str | None:
    if folder is None:
        return None
    speed, width = (_text(folder / f"{which}_link_{what}").strip() for what in ("speed", "width"))
    return f"{speed.removesuffix(' PCIe')} x{width}" if speed and width else None


def _driver(root: Path) -> str | None:
    found = re.search(r"Kernel Module\D*([\d.]+)", _text(root / "proc/driver/nvidia/version"))
    return found[1] if found else None


def _driver_cuda() -> str | None:
    """The newest CUDA that the driver runs; None without one."""
    try:
        library, number = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}" if number.value else None


def _major(text: str) -> int:
    return int(text.partition(".")[0])


def _unescaped(text: str) -> str:
    """A path as mountinfo writes it, where a space is ``\\040``."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), text)


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
