"""How much memory llmrun takes if nobody says: what is free now, less a headroom for the rest of the machine.

The rule, the only place of it::

    RAM   headroom = max(512 MiB, 10 % of what is free)
    VRAM  headroom = max(256 MiB,  5 % of what is free)

Free RAM is what the tightest of these leaves: physical memory, each control group above the process, ``ulimit``.
"""

from __future__ import annotations

from llmrun.hardware.profile import HardwareProfile
from llmrun.settings import Budget
from llmrun.units import MIB

RAM_HEADROOM_BYTES = 512 * MIB
RAM_HEADROOM_PERCENT = 10
VRAM_HEADROOM_BYTES = 256 * MIB
VRAM_HEADROOM_PERCENT = 5


def free_ram_bytes(profile: HardwareProfile) -> int:
    """RAM that a new process could take now, never more than control groups and ulimits allow."""
    return profile.binding.available_bytes


def ram_headroom_bytes(free_bytes: int) -> int:
    """RAM that is left free by default."""
    return max(RAM_HEADROOM_BYTES, free_bytes * RAM_HEADROOM_PERCENT // 100)


def vram_headroom_bytes(free_bytes: int) -> int:
    """Memory of a GPU that is left free by default."""
    return max(VRAM_HEADROOM_BYTES, free_bytes * VRAM_HEADROOM_PERCENT // 100)


def default_budget(profile: HardwareProfile) -> Budget:
    """What is free on each device less the headroom; 0 where not even the headroom is free."""
    free = free_ram_bytes(profile)
    vram = {gpu.device: max(0, gpu.free_bytes - vram_headroom_bytes(gpu.free_bytes)) for gpu in profile.gpus}
    return Budget(ram_bytes=max(0, free - ram_headroom_bytes(free)), vram_bytes=vram)
