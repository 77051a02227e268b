"""Limits of control groups, read from file systems as kernels and containers show them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from centra.system import processors
from centra.system.cgroups import cpu_quota, memory_limit
from centra.system.memory import available_memory
from centra.training.features import default_budget

if TYPE_CHECKING:
    from pathlib import Path

V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "34 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
OTHERS = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw"
UNLIMITED = "9223372036854771712"


def tree(root: Path, own: str, mounts: str, **files: str) -> Path:
    """A root with what the kernel says of the process, and files of groups."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    files |= {"proc/self/cgroup": own, "proc/self/mountinfo": f"{OTHERS}\n{mounts}"}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("own", "mounts", "files", "quota"),
    [
        pytest.param("0::/", V2, {"cpu.max": "150000 100000"}, 1.5, id="v2 in its own namespace"),
        pytest.param("0::/a/b", V2, {"a/b/cpu.max": "50000 100000"}, 0.5, id="v2 below the root"),
        pytest.param(
            "0::/a/b",
            V2,
            {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "cpu.max": "max 100000"},
            2.0,
            id="v2, the group above",
        ),
        pytest.param(
            "0::/a/b",
            V2,
            {"a/b/cpu.max": "300000 100000", "a/cpu.max": "100000 50000"},
            2.0,
            id="v2, the smallest wins",
        ),
        pytest.param(
            "0::/a",
            V2,
            {"a/cpu.max": "max 100000", "b/cpu.max": "1000 100000"},
            None,
            id="v2, a neighbour's limit",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/x",
            V1_CPU,
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2.5,
            id="v1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/kubepods/pod/x",
            V1_CPU.replace("0:29 /", "0:29 /kubepods/pod/x"),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            1.0,
            id="v1 without a namespace: the container's group is mounted",
        ),
        pytest.param(
            "4:cpu,cpuacct:/pods/x/y",
            V1_CPU.replace("0:29 /", "0:29 /pods/x"),
            {
                "cpu,cpuacct/y/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/y/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "150000",
                "cpu,cpuacct/cpu.cfs_period_us": "50000",
            },
            3.0,
            id="v1, a group inside the container",
        ),
        pytest.param(
            "4:cpu,cpuacct:/pods/xy",
            V1_CPU.replace("0:29 /", "0:29 /pods/x"),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "150000",
                "cpu,cpuacct/cpu.cfs_period_us": "50000",
            },
            None,
            id="v1, a group that only begins alike",
        ),
        pytest.param(
            "4:cpu,cpuacct:/a\n0::/user.slice",
            f"{V1_CPU}\n{V2.replace('/sys/fs/cgroup', '/sys/fs/cgroup/unified')}",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                "unified/user.slice/cpu.max": "max 100000",
            },
            4.0,
            id="hybrid",
        ),
        pytest.param(
            "0::/../../x", V2, {"cpu.max": "100000 100000"}, 1.0, id="outside of the namespace"
        ),
        pytest.param("0::/gone (deleted)", V2, {"cpu.max": "7 1"}, 7.0, id="a group that went"),
        pytest.param(
            "0::/a:b", V2, {"a:b/cpu.max": "20 10"}, 2.0, id="a name with the separator in it"
        ),
        pytest.param(
            "0::/",
            V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/with\040space"),
            {"with space/cpu.max": "30 10"},
            3.0,
            id="a mount with a space",
        ),
        pytest.param("0::/", V2, {"cpu.max": "max"}, None, id="one word"),
        pytest.param("0::/", V2, {"cpu.max": "100000"}, None, id="one number"),
        pytest.param("0::/", V2, {"cpu.max": "0 100000"}, None, id="none at all"),
        pytest.param("0::/", V2, {"cpu.max": "5 0"}, None, id="of no time"),
        pytest.param("0::/", V2, {"cpu.max": "1e5 100000"}, None, id="no whole number"),
        pytest.param("0::/", V2, {"cpu.max": "²5 10"}, None, id="no plain number"),
        pytest.param("0::/", V2, {"cpu.max": ""}, None, id="empty"),
        pytest.param("0::/", V2, {}, None, id="no file"),
        pytest.param("", V2, {"cpu.max": "10 10"}, None, id="no group"),
        pytest.param("nonsense\n0", V2, {"cpu.max": "10 10"}, None, id="a malformed group"),
        pytest.param("0::/", "", {"cpu.max": "10 10"}, None, id="no mount"),
        pytest.param("0::/", "30 24\n - cgroup2", {"cpu.max": "10 10"}, None, id="bad mounts"),
        pytest.param(
            "4:cpuacct:/", V1_CPU.replace("cpu,", ""), {"cpuacct/cpu.max": "1 1"}, None, id="other"
        ),
    ],
)
def test_the_quota_is_the_smallest_of_the_own_group_and_those_above(
    tmp_path: Path, own: str, mounts: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(tree(tmp_path, own, mounts, **files)) == quota


@pytest.mark.parametrize(
    ("own", "mounts", "files", "limit"),
    [
        pytest.param(
            "0::/a", V2, {"a/memory.max": "max", "memory.max": "4096"}, 4096, id="v2, nested"
        ),
        pytest.param(
            "0::/", V2, {"memory.max": "9000", "memory.high": "8000"}, 8000, id="v2, throttled"
        ),
        pytest.param(
            "9:memory:/a",
            V1_MEMORY,
            {
                "memory/a/memory.limit_in_bytes": "5000",
                "memory/memory.limit_in_bytes": UNLIMITED,
            },
            5000,
            id="v1",
        ),
        pytest.param(
            "9:memory:/", V1_MEMORY, {"memory/memory.limit_in_bytes": UNLIMITED}, None, id="v1, no"
        ),
        pytest.param("0::/", V2, {"memory.max": "lots"}, None, id="malformed"),
    ],
)
def test_the_memory_is_the_smallest_of_the_own_group_and_those_above(
    tmp_path: Path, own: str, mounts: str, files: dict[str, str], limit: int | None
) -> None:
    assert memory_limit(tree(tmp_path, own, mounts, **files)) == limit


def test_a_system_without_any_of_this_limits_nothing(tmp_path: Path) -> None:
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (None, None)
    assert available_memory(tmp_path) is None


def test_memory_is_the_less_of_what_the_machine_has_and_the_container_may(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/", V2, **{"memory.max": "5000000"})
    (root / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert available_memory(root) == 4_096_000
    (root / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_memory(root) == 5_000_000


@pytest.mark.parametrize(
    ("quota", "allowed"), [(None, 4), (0.1, 1), (1.0, 1), (1.01, 2), (2.5, 3), (64.0, 4)]
)
def test_processors_are_the_quota_rounded_up_within_the_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, allowed: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6})
    monkeypatch.setattr(processors, "cpu_quota", lambda: quota)
    assert processors.processors() == allowed
    assert processors.affinity() == 4


def test_torch_takes_no_more_threads_than_there_are_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(processors, "processors", lambda: 5)
        processors.bound_torch()
        assert torch.get_num_threads() == 3
        monkeypatch.setattr(processors, "processors", lambda: 2)
        processors.bound_torch()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("memory", "budget"), [(None, 20e9), (64_000_000_000, 20e9), (1_000_001, 500_000), (1, 0)]
)
def test_the_feature_cache_takes_half_of_the_memory_by_default(
    monkeypatch: pytest.MonkeyPatch, memory: int | None, budget: float
) -> None:
    monkeypatch.setattr("centra.training.features.available_memory", lambda: memory)
    assert default_budget() == budget


def test_this_machine_can_be_read() -> None:
    assert 1 <= processors.processors() <= processors.affinity()
    assert available_memory() != 0
