import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from llmrun.hardware import (
    Cpu,
    Gpu,
    HardwareProfile,
    MemoryLimit,
    default_budget,
    free_ram_bytes,
    probe,
    process_io,
    process_memory,
    to_json,
)
from llmrun.hardware.buffer import allocate
from llmrun.hardware.cgroup import memory_limits
from llmrun.hardware.disk import opens_direct, probe_disk
from llmrun.hardware.gpu import find_gpus, select
from llmrun.hardware.process import parse_status
from llmrun.units import GIB, MIB

V1_MOUNT = "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
V2_MOUNT = "41 31 0:38 {top} {at} rw,relatime - cgroup2 cgroup2 rw\n"
UNLIMITED_V1 = "9223372036854771712"


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """A fake file system with control groups."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(root: Path, group: str, files: Mapping[str, str], top: str = "/") -> Path:
    base = {"proc/self/cgroup": f"9:name=systemd:/\n4:memory:{group}\n0::/\n"}
    base["proc/self/mountinfo"] = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" + V1_MOUNT.format(top=top)
    return tree(root, base | {f"sys/fs/cgroup/memory/{name}": text for name, text in files.items()})


def v2(root: Path, group: str, files: Mapping[str, str], top: str = "/") -> Path:
    base = {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": V2_MOUNT.format(top=top, at="/sys/fs/cgroup")}
    return tree(root, base | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


def test_version_1_subtracts_what_cannot_be_reclaimed_but_not_the_page_cache(tmp_path: Path) -> None:
    stat = f"cache {2 * GIB}\ntotal_cache {2 * GIB}\ntotal_rss {MIB}\ntotal_shmem {2 * MIB}\nrss 7\n"
    root = v1(
        tmp_path,
        "/outer/inner",
        {
            "outer/inner/memory.limit_in_bytes": f"{3 * GIB}\n",
            "outer/inner/memory.stat": stat,
            "outer/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
            "memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
        },
    )
    assert memory_limits(root) == (MemoryLimit("control group /outer/inner", 3 * GIB, 3 * GIB - 3 * MIB),)


def test_version_2_counts_every_group_up_to_the_root(tmp_path: Path) -> None:
    stat = f"anon {MIB}\nfile {GIB}\nslab_unreclaimable {MIB}\nslab_reclaimable {GIB}\nkernel_stack 4096\nshmem 0\n"
    root = v2(
        tmp_path,
        "/a/b",
        {
            "a/b/memory.max": "max\n",
            "a/b/memory.high": f"{2 * GIB}\n",
            "a/b/memory.stat": stat,
            "a/memory.max": f"{GIB}\n",
            "a/memory.stat": f"anon {GIB // 2}\n",
        },
    )
    assert memory_limits(root) == (
        MemoryLimit("control group /a/b", 2 * GIB, 2 * GIB - 2 * MIB - 4096),
        MemoryLimit("control group /a", GIB, GIB // 2),
    )


def test_a_full_group_leaves_nothing(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/memory.max": "100", "a/memory.stat": "anon 500"})
    assert memory_limits(root)[0].available_bytes == 0


@pytest.mark.parametrize("make", [v1, v2])
def test_a_container_sees_its_own_part_of_the_tree(tmp_path: Path, make: object) -> None:
    limit = "memory.limit_in_bytes" if make is v1 else "memory.max"
    root = make(tmp_path, "/docker/1f/sub", {f"sub/{limit}": "900", limit: "700"}, top="/docker/1f")  # type: ignore
    assert [(found.name, found.limit_bytes) for found in memory_limits(root)] == [
        ("control group /sub", 900),
        ("control group /", 700),
    ]


def test_a_hybrid_host_has_its_memory_in_version_1(tmp_path: Path) -> None:
    root = v1(tmp_path, "/a", {"a/memory.limit_in_bytes": "800"})
    with (root / "proc/self/mountinfo").open("a") as mounts:
        mounts.write(V2_MOUNT.format(top="/", at="/sys/fs/cgroup/unified"))
    tree(root, {"sys/fs/cgroup/unified/cgroup.procs": ""})
    assert [limit.limit_bytes for limit in memory_limits(root)] == [800]


@pytest.mark.parametrize("group", ["/", "/gone", "/../x"])
def test_odd_trees_give_no_limit(tmp_path: Path, group: str) -> None:
    assert memory_limits(v2(tmp_path, group, {"memory.stat": "anon 1\nbroken\n", "memory.max": "many"})) == ()


def test_no_control_groups_give_no_limit(tmp_path: Path) -> None:
    assert memory_limits(tmp_path) == ()
    assert memory_limits(tree(tmp_path, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": "x\n - a\n"})) == ()


def profile(*available: int, gpus: tuple[Gpu, ...] = ()) -> HardwareProfile:
    limits = tuple(MemoryLimit(f"limit {number}", 64 * GIB, free) for number, free in enumerate(available))
    return HardwareProfile(Cpu("test", 2, 4), limits, gpus, None)


def gpu(free_bytes: int) -> Gpu:
    return Gpu("gpu:0", "test", "GPU-1", 80 * GIB, free_bytes, "1.0")


@pytest.mark.parametrize(
    ("free", "budget"),
    [(20 * GIB, 18 * GIB), (2 * GIB, 2 * GIB - 512 * MIB), (5 * GIB + 2, 5 * GIB + 2 - 512 * MIB), (MIB, 0), (0, 0)],
)
def test_the_default_budget_leaves_the_stated_headroom(free: int, budget: int) -> None:
    assert default_budget(profile(free)).ram_bytes == budget


def test_the_tightest_limit_binds() -> None:
    host = profile(20 * GIB, 3 * GIB, 9 * GIB)
    assert free_ram_bytes(host) == 3 * GIB
    assert host.binding.name == "limit 1"


@pytest.mark.parametrize(("free", "budget"), [(40 * GIB, 38 * GIB), (GIB, GIB - 256 * MIB), (MIB, 0)])
def test_the_default_vram_leaves_the_stated_headroom(free: int, budget: int) -> None:
    assert default_budget(profile(GIB, gpus=(gpu(free),))).on("gpu:0") == budget


def test_a_profile_becomes_json_with_its_schema() -> None:
    value = json.loads(to_json(replace(profile(GIB, gpus=(gpu(GIB),)), notes=("why",))))
    assert (value["schema"], value["gpus"][0]["free_bytes"], value["notes"]) == (2, GIB, ["why"])


def test_the_probe_tells_of_this_host(tmp_path: Path) -> None:
    host = probe(tmp_path)
    assert host.limits[0].name == "physical memory"
    assert 0 < free_ram_bytes(host) <= host.limits[0].limit_bytes
    assert 1 <= host.cpu.physical_cores <= host.cpu.logical_cores
    assert host.cpu.name
    assert host.disk is not None
    assert host.disk.free_bytes <= host.disk.total_bytes
    assert tmp_path.is_relative_to(host.disk.mount_point)
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind


def test_a_ulimit_is_a_limit() -> None:
    import subprocess
    import sys

    code = "from llmrun.hardware import probe; print(probe().binding)"
    command = ["sh", "-c", f'ulimit -d 200000 && exec "{sys.executable}" -c "{code}"']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ulimit -d" in done.stdout
    assert str(200000 * 1024) in done.stdout


def test_the_disk_of_a_folder_that_is_not_made_yet_is_its_parents(tmp_path: Path) -> None:
    here, there = probe_disk(tmp_path), probe_disk(tmp_path / "not" / "yet")
    assert here is not None
    assert there is not None
    assert there.mount_point == here.mount_point
    assert there.path == str(tmp_path / "not" / "yet")


def test_direct_io_that_cannot_be_tried_is_unknown(tmp_path: Path) -> None:
    assert opens_direct(tmp_path / "nowhere") is None


UUIDS = ["GPU-aa1", "GPU-ab2", "GPU-c"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [(None, [0, 1, 2]), ("", []), ("-1", []), ("2,0", [2, 0]), ("0,7,1", [0]), ("GPU-c", [2]), ("GPU-a", []),
     ("GPU-ab, 0", [1, 0]), ("1,1", [1])],
)  # fmt: skip
def test_gpus_are_those_that_cuda_shows(wanted: str | None, chosen: list[int]) -> None:
    assert select(UUIDS, wanted) == chosen


class FakeNvml:
    """The part of pynvml that is used, with two GPUs; what is named in ``fails`` raises."""

    class NVMLError(Exception):
        pass

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.shut_down = False

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fails == "init":
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down = True

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return UUIDS[handle]

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"550.1"

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return f"card {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:  # noqa: N802
        if self.fails == "memory":
            raise self.NVMLError("Not Supported")
        return type("Memory", (), {"total": 8 * GIB, "free": (handle + 1) * GIB})


def find_with(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None, environment: Mapping[str, str]) -> object:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    return find_gpus(environment)


def test_gpus_come_in_the_order_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    gpus, note = find_with(monkeypatch, nvml, {"CUDA_VISIBLE_DEVICES": "1"})  # type: ignore
    assert gpus == (Gpu("gpu:0", "card 1", "GPU-ab2", 8 * GIB, 2 * GIB, "550.1"),)
    assert note == "CUDA_VISIBLE_DEVICES hides 1 of 2 GPUs"
    assert nvml.shut_down
    assert [found.device for found in find_with(monkeypatch, nvml, {})[0]] == ["gpu:0", "gpu:1"]  # type: ignore


@pytest.mark.parametrize(
    ("nvml", "words"),
    [(None, "not installed"), (FakeNvml("init"), "Driver Not Loaded"), (FakeNvml("memory"), "Not Supported")],
)
def test_without_nvml_there_are_no_gpus_but_a_note(
    monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None, words: str
) -> None:
    gpus, note = find_with(monkeypatch, nvml, {})  # type: ignore
    assert gpus == ()
    assert words in note


STATUS = "Name:\tx\nVmHWM:\t    300 kB\nVmRSS:\t    200 kB\nRssAnon:\t     100 kB\nThreads:\t1\n"


def test_memory_of_the_process_is_read_from_its_status() -> None:
    memory = parse_status(STATUS)
    assert (memory.rss_bytes, memory.peak_rss_bytes, memory.anonymous_bytes) == (204800, 307200, 102400)


def test_memory_of_this_process_grows_with_what_it_takes() -> None:
    before = process_memory()
    block = allocate(32 * MIB)  # not from the heap, which may have kept as much
    block[:] = os.urandom(32 * MIB)
    after = process_memory()
    assert after.anonymous_bytes - before.anonymous_bytes > 24 * MIB
    assert after.peak_rss_bytes >= after.rss_bytes - MIB
    assert len(block) == 32 * MIB


def test_a_host_without_proc_has_the_portable_figures(tmp_path: Path) -> None:
    memory = process_memory(tmp_path / "status")
    assert memory.peak_rss_bytes >= memory.rss_bytes == memory.anonymous_bytes > MIB
    assert process_io(tmp_path / "io") is None


def test_bytes_read_are_those_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "io").write_text("rchar: 9\nread_bytes: 4096\nwrite_bytes: 1\n")
    assert process_io(tmp_path / "io") == 4096
