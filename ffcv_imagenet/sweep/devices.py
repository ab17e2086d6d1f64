"""The machine cut into slots, each with the GPUs and CPU cores of one run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Slot:
    """What one run at a time is pinned to: GPUs, as ``CUDA_VISIBLE_DEVICES`` names them, and numbers of CPU cores."""

    gpus: tuple[str, ...]
    cores: tuple[int, ...]

    def __str__(self) -> str:
        """In words, such as ``GPU 0,1 on cores 0-15``."""
        cores = f"core{'s' if len(self.cores) > 1 else ''} {_ranges(self.cores)}"
        return f"GPU {','.join(self.gpus)} on {cores}" if self.gpus else cores


def visible_gpus(count: int) -> list[str]:
    """The names by which ``CUDA_VISIBLE_DEVICES`` can choose each of the ``count`` GPUs that CUDA sees here."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(count)] if listed is None else listed.split(",")
    return [name.strip() for name in names[:count]]


def make_slots(
    gpus: Sequence[str],
    cores: Sequence[int],
    *,
    gpus_per_run: int | None,
    cores_per_run: int | None,
    runs: int,
    root: Path = Path("/"),
) -> list[Slot]:
    """Cut the machine into at most ``runs`` slots with the same number of GPUs and cores.

    GPUs without a whole group stay idle. A slot has cores of its GPUs' NUMA node as far as there are any, and never
    one of two hardware threads of a core while another slot has the other one, as far as that is possible.

    Args:
        gpus: names of the GPUs; none: the slots are groups of cores.
        cores: the cores to share.
        gpus_per_run: GPUs of a slot; None: 1 where there are GPUs.
        cores_per_run: cores of a slot; None: an equal share.
        runs: how many slots are of use.
        root: where proc and sys lie.

    Raises:
        ValueError: more GPUs or cores per run than there are.
    """
    if gpus:
        size = gpus_per_run or 1
        if size > len(gpus):
            raise ValueError(f"sweep.gpus_per_run: got {size}, allowed are at most the {len(gpus)} GPUs here")
        groups = [tuple(gpus[i : i + size]) for i in range(0, len(gpus) - size + 1, size)]
    elif gpus_per_run:
        raise ValueError(f"sweep.gpus_per_run: got {gpus_per_run}, allowed is none where no GPU is used")
    else:
        groups = [()] * max(1, len(cores) // (cores_per_run or 1))
    groups = groups[:runs]
    share = cores_per_run or max(1, len(cores) // len(groups))
    if cores_per_run and cores_per_run * len(groups) > len(cores):
        raise ValueError(
            f"sweep.cores_per_run: got {cores_per_run}, allowed are at most {len(cores) // len(groups)} "
            f"({len(cores)} cores, {len(groups)} runs side by side)"
        )

    place = {core: _core_place(core, root) for core in cores}
    gpu_nodes = _gpu_nodes(root) if gpus else {}
    order = sorted(cores, key=lambda core: place[core])
    free, slots = list(order), []
    for number, group in enumerate(groups):
        nodes = {node for name, node in gpu_nodes.items() if any(_means(gpu, name) for gpu in group)}
        near = [core for core in free if place[core][0] in nodes]
        chosen = (near + [core for core in free if core not in near])[:share]
        free = [core for core in free if core not in chosen]
        # With fewer cores than slots, several slots have the same one.
        slots.append(Slot(group, tuple(sorted(chosen or [order[number % len(order)]]))))
    return slots


def _core_place(core: int, root: Path) -> tuple[int, int, int]:
    """NUMA node, first hardware thread of the same physical core, and the core itself: the order to cut in."""
    folder = root / f"sys/devices/system/cpu/cpu{core}"
    siblings = folder / "topology/thread_siblings_list"
    node = next((int(path.name[4:]) for path in folder.glob("node[0-9]*")), 0)
    first = re.match(r"\d+", siblings.read_text()) if siblings.is_file() else None
    return node, int(first[0]) if first else core, core


def _gpu_nodes(root: Path) -> dict[str, int]:
    """The NUMA node of each GPU that has one, by its index (in the order of the bus) and by its UUID."""
    nodes: dict[str, int] = {}
    for index, file in enumerate(sorted(root.glob("proc/driver/nvidia/gpus/*/information"))):
        node_file = root / "sys/bus/pci/devices" / file.parent.name.lower() / "numa_node"
        uuid = re.search(r"GPU UUID:\s*(\S+)", file.read_text())
        if uuid and node_file.is_file() and (node := int(node_file.read_text())) >= 0:
            nodes |= {str(index): node, uuid[1]: node}
    return nodes


def _means(gpu: str, name: str) -> bool:
    """Whether a name in CUDA_VISIBLE_DEVICES, where UUIDs may be cut short, means the GPU of this index or UUID."""
    return gpu == name or (gpu.startswith("GPU-") and name.startswith(gpu))


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3,8`` for 0, 1, 2, 3, 8."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
