"""Cores and memory of this process: what affinity, control groups and ulimit leave of the machine."""

import os
import resource

import pytest

from ffcv_imagenet import limits

GIB = 1 << 30


def machine(root, cgroup, mounts, files=()):
    """A folder with the proc and sys of a machine of 64 GiB, 40 GiB of them available."""
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal:  {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {40 << 20} kB\n")
    (proc / "self/cgroup").write_text("".join(f"{line}\n" for line in cgroup))
    (proc / "self/mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    (proc / "self/statm").write_text("1000 1 1 1 0 1 0\n")
    for name, text in dict(files).items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "32 31 0:29 {} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "35 31 0:32 {} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


def test_without_limits_the_machine_and_the_affinity_count(tmp_path):
    root = machine(tmp_path, ["0::/user.slice"], [V2], {"user.slice/cpu.max": "max 100000"})
    assert limits.cores(root) == limits.Cores(len(os.sched_getaffinity(0)), None)
    assert limits.memory(root) == limits.Memory(64 * GIB, 40 * GIB, "the machine")
    assert limits.memory(machine(tmp_path / "bare", [], [])) == limits.memory(root)


def test_the_tightest_of_the_groups_above_a_process_counts(tmp_path):
    files = {"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000", "job/memory.max": 8 * GIB}
    files |= {"job/memory.current": 6 * GIB, "job/step/memory.max": "max"}
    files["job/memory.stat"] = f"anon 1\nactive_file {2 * GIB}\ninactive_file {3 * GIB}"
    root = machine(tmp_path, ["0::/job/step"], [V2], files)
    assert limits.cores(root).quota == 1.5
    assert limits.memory(root) == limits.Memory(8 * GIB, 7 * GIB, "a control group")


@pytest.mark.parametrize("mounted", ["/", "/docker/abc"])
def test_groups_of_version_1_count_also_where_a_container_sees_its_own_alone(tmp_path, mounted):
    inside = "docker/abc/" if mounted == "/" else ""
    files = {f"cpu/{inside}cpu.cfs_quota_us": 400000, f"cpu/{inside}cpu.cfs_period_us": 100000}
    files |= {f"memory/{inside}memory.limit_in_bytes": 4 * GIB, f"memory/{inside}memory.usage_in_bytes": GIB}
    files["memory/memory.limit_in_bytes"] = files.get("memory/memory.limit_in_bytes", 9223372036854771712)
    cgroup = ["4:memory:/docker/abc", "1:cpu,cpuacct:/docker/abc", "0::/"]
    root = machine(tmp_path, cgroup, [V1_CPU.format(mounted), V1_MEMORY.format(mounted)], files)
    assert limits.cores(root).quota == 4
    assert limits.memory(root) == limits.Memory(4 * GIB, 3 * GIB, "a control group")


def test_a_quota_below_one_core_leaves_one_and_a_part_of_a_core_counts_whole():
    assert [limits.Cores(8, quota).usable for quota in (None, 0.4, 1.5, 100.0)] == [8, 1, 2, 8]


def test_ulimit_counts(tmp_path, monkeypatch):
    root = machine(tmp_path, [], [])
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2 * GIB, resource.RLIM_INFINITY))
    mapped = 1000 * resource.getpagesize()
    assert limits.memory(root) == limits.Memory(2 * GIB, 2 * GIB - mapped, "ulimit -v")
