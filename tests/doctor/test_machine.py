"""What the doctor says of a machine, and what it notes about it."""

from dataclasses import replace

import pytest

from ffcv_imagenet.doctor.machine import (
    Disk,
    Gpu,
    describe_disk,
    describe_machine,
    is_supported,
    machine_notes,
    processor_has_bf16,
)
from ffcv_imagenet.limits import Cores

GIB = 1 << 30
H100 = Gpu("NVIDIA H100", 79 * GIB, "9.0", True, "32.0 GT/s x16", "32.0 GT/s x16", 0)


@pytest.fixture
def machine():
    """This one, with what tests change set."""
    here = describe_machine()
    return replace(
        here, cores=Cores(8, None), numa={0: 8}, shm=64 * GIB, open_files=65536, disks=(), gpus=(H100, H100),
        driver="570.10", driver_cuda="12.8", torch_cuda="12.6",
    )  # fmt: skip


def test_a_machine_as_it_should_be_has_no_notes(machine):
    assert list(machine_notes(machine, 2)) == []


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"gpus": (), "torch_cuda": None}, "this torch was built without CUDA"),
        ({"gpus": (), "torch_cuda": "13.0"}, "the driver (570.10) runs CUDA up to 12.8, torch was built with 13.0"),
        ({"gpus": ()}, "CUDA sees no GPU"),
        ({"gpus": (replace(H100, supported=False),)}, "torch has no code for GPU 0 (NVIDIA H100, compute capability"),
        ({"gpus": (replace(H100, link="32.0 GT/s x4"),)}, "GPU 0 is linked by 32.0 GT/s x4, it could be by"),
        ({"gpus": (replace(H100, link="2.5 GT/s x16"),)}, None),  # an idle link slows down
        ({"numa": {0: 0, 1: 8}}, "GPU 0 is on NUMA node 0, of which this process has no core"),
        ({"cores": Cores(64, 4.0)}, "may run on 64 cores, but its control group pays for 4: a training uses 4"),
        ({"shm": 64 << 20}, "/dev/shm has 64 MiB: NCCL wants 1 GiB"),
        ({"open_files": 256}, "ulimit -n 1024"),
        ({"disks": (Disk("/data", "ext4", "/dev/sda1", True, 1, 1),)}, "/data lies on a rotating disk (/dev/sda1)"),
        ({"disks": (Disk("/data", "nfs4", "server:/x", None, 1, 1),)}, "/data lies on nfs4, not on a disk of this"),
    ],
)
def test_what_is_in_the_way_is_noted(machine, changes, note):
    notes = list(machine_notes(replace(machine, **changes), 2))
    if note is None:
        assert notes == []
    else:
        assert any(note in text for text in notes)


def test_code_runs_on_its_major_capability_and_ptx_on_newer_ones():
    assert is_supported((8, 6), ["sm_80"])
    assert not is_supported((8, 0), ["sm_86"])
    assert not is_supported((9, 0), ["sm_80", "sm_86"])
    assert is_supported((9, 0), ["sm_80", "compute_80"])
    assert is_supported((9, 0), ["sm_90a"])
    assert is_supported((12, 0), ["sm_120"])
    assert not is_supported((10, 0), ["sm_120"])


def test_a_disk_is_the_one_that_is_mounted_nearest(tmp_path):
    data = tmp_path / "my data" / "set"
    data.mkdir(parents=True)
    root = tmp_path / "root"
    (root / "proc/self").mkdir(parents=True)
    escaped = str(tmp_path / "my data").replace(" ", r"\040")
    mounts = ["1 0 8:1 / / rw - ext4 /dev/sda1 rw", f"2 1 8:17 / {escaped} rw shared:1 - xfs /dev/sdb1 rw"]
    (root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    (root / "sys/block/sdb/sdb1").mkdir(parents=True)
    (root / "sys/block/sdb/queue").mkdir()
    (root / "sys/block/sdb/queue/rotational").write_text("1\n")
    (root / "sys/dev/block").mkdir(parents=True)
    (root / "sys/dev/block/8:17").symlink_to(root / "sys/block/sdb/sdb1")
    disk = describe_disk(data / "not there yet", root)
    assert (disk.path, disk.kind, disk.device, disk.rotates) == (str(data), "xfs", "/dev/sdb1", True)
    assert describe_disk(tmp_path, root).kind == "ext4"
    assert 0 < disk.free <= disk.total


@pytest.mark.parametrize(
    ("cpuinfo", "has_it"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx512f avx512_bf16 avx2\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx512f avx2\n", False),
        ("", False),
    ],
)
def test_a_processor_that_computes_in_bf16(tmp_path, cpuinfo, has_it):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    assert processor_has_bf16(tmp_path) == has_it
