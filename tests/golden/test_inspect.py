import json
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import SPEEDS

from llmrun.cli.inspect import as_json, as_text
from llmrun.hardware import Cpu, Disk, Gpu, HardwareProfile, MemoryLimit, default_budget
from llmrun.hardware.presets import preset, preset_names
from llmrun.units import GIB, MIB

CACHES = {"hub": Path("/home/ada/.cache/huggingface/hub"), "imported": Path("/home/ada/.cache/llmrun/models")}
WORKSTATION = HardwareProfile(
    cpu=Cpu("AMD Ryzen 9 7950X", physical_cores=16, logical_cores=32, kernels="avx512"),
    limits=(
        MemoryLimit("physical memory", 64 * GIB, 51 * GIB),
        MemoryLimit("control group /user.slice", 16 * GIB, 12 * GIB + 300 * MIB),
        MemoryLimit("ulimit -v", 40 * GIB, 40 * GIB),
    ),
    gpus=(
        Gpu("gpu:0", "NVIDIA GeForce RTX 4090", "GPU-1", 24 * GIB, 23 * GIB, "550.54"),
        Gpu("gpu:1", "NVIDIA T4", "GPU-2", 16 * GIB, 15 * GIB, "550.54"),
    ),
    disk=Disk(
        path="/home/ada/.cache/huggingface/hub",
        mount_point="/home",
        file_system="ext4",
        device="/dev/nvme0n1p3",
        total_bytes=1800 * GIB,
        free_bytes=420 * GIB,
        rotational=False,
        direct_io=True,
    ),
    notes=("CUDA_VISIBLE_DEVICES hides 1 of 3 GPUs",),
)
WORKSTATION_TEXT = """\
processor
  AMD Ryzen 9 7950X  16 cores, 32 threads
  kernels            avx512
memory
  physical memory            64.0 GiB  51.0 GiB available
  control group /user.slice  16.0 GiB  12.3 GiB available  <- the tightest
  ulimit -v                  40.0 GiB  40.0 GiB available
GPUs
  gpu:0  NVIDIA GeForce RTX 4090  24.0 GiB  23.0 GiB available  driver 550.54
  gpu:1  NVIDIA T4                16.0 GiB  15.0 GiB available  driver 550.54
disk under /home/ada/.cache/huggingface/hub
  mounted at  /home (ext4, /dev/nvme0n1p3; solid state)
  free        420.0 GiB of 1.8 TiB
  direct I/O  works
budget, if you set none
  RAM    11.1 GiB  12.3 GiB available less 1.2 GiB headroom
  gpu:0  21.9 GiB  23.0 GiB available less 1.1 GiB headroom
  gpu:1  14.2 GiB  15.0 GiB available less 768.0 MiB headroom
caches
  downloaded models  /home/ada/.cache/huggingface/hub  HF_HOME moves it
  imported models    /home/ada/.cache/llmrun/models    LLMRUN_CACHE moves it
notes
  CUDA_VISIBLE_DEVICES hides 1 of 3 GPUs"""

SPEEDS_TEXT = """\
speeds, measured 2026-01-01 00:00 UTC
  disk             1.9 GiB/s    p10..p90 0.9..2.8 GiB/s with 4 x 16 MiB
                   953.7 MiB/s  with 16 MiB; a page takes 0.10 ms
  cpu memory       27.9 GiB/s   p10..p90 18.6..37.3 GiB/s
                   18.6 GiB/s   with 1 thread
  cpu BF16         18.6 GiB/s   of weights for 1 token, 512 GFLOP/s for 512
  cpu attention    4.7 GiB/s    of KV, up to 5 GFLOP/s; prompt 90 GFLOP/s
  cpu layer        0.20 ms      beside its matrices and attention
  gpu:0 memory     372.5 GiB/s  p10..p90 372.5..372.5 GiB/s
  gpu:0 BF16       279.4 GiB/s  of weights for 1 token, 600 GFLOP/s for 2
  gpu:0 attention  186.3 GiB/s  of KV; prompt 10,000 GFLOP/s
  gpu:0 layer      0.20 ms      beside its matrices and attention
  to gpu:0         10.2 GiB/s   p10..p90 9.3..11.2 GiB/s; not pinned 4.7 GiB/s
  from gpu:0       9.3 GiB/s    not pinned 3.7 GiB/s
  start            2.5 s        imports, tokenizer and the model's skeleton
  token            1.00 ms      beside its layers
  reading          x 1.20       time of a product while the disk is read
"""

LAPTOP = HardwareProfile(Cpu("Apple M2", 1, 1, "torch"), (MemoryLimit("physical memory", 8 * GIB, 2 * GIB),), (), None)
LAPTOP_TEXT = """\
processor
  Apple M2  1 core, 1 thread
  kernels   none built: torch computes, slower (a C compiler was missing)
memory
  physical memory  8.0 GiB  2.0 GiB available
GPUs
  none found
budget, if you set none
  RAM  1.5 GiB  2.0 GiB available less 512.0 MiB headroom
caches
  downloaded models  /home/ada/.cache/huggingface/hub  HF_HOME moves it
  imported models    /home/ada/.cache/llmrun/models    LLMRUN_CACHE moves it"""


def test_text_for_a_workstation() -> None:
    assert as_text(WORKSTATION, default_budget(WORKSTATION), CACHES) == WORKSTATION_TEXT


def test_text_for_a_laptop_without_a_gpu() -> None:
    assert as_text(LAPTOP, default_budget(LAPTOP), CACHES) == LAPTOP_TEXT


def test_speeds_come_before_the_budget() -> None:
    text = as_text(replace(WORKSTATION, speeds=SPEEDS), default_budget(WORKSTATION), CACHES)
    before, after = WORKSTATION_TEXT.split("budget, if")
    assert text == f"{before}{SPEEDS_TEXT}budget, if{after}"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_fits_80_columns(name: str) -> None:
    profile = preset(name)
    assert max(map(len, as_text(profile, default_budget(profile), CACHES).splitlines())) <= 80


def test_json_has_a_schema_and_bytes() -> None:
    value = json.loads(as_json(WORKSTATION, default_budget(WORKSTATION), CACHES))
    assert value["schema"] == 1
    assert value["binding_limit"] == "control group /user.slice"
    assert value["hardware"]["disk"]["direct_io"] is True
    assert value["hardware"]["gpus"][1]["free_bytes"] == 15 * GIB
    assert value["default_budget"]["vram_bytes"] == default_budget(WORKSTATION).vram_bytes
    assert value["caches"]["imported"] == "/home/ada/.cache/llmrun/models"
