"""What the host has and what this process may take of it."""

from llmrun.hardware.headroom import default_budget, free_ram_bytes
from llmrun.hardware.probe import probe
from llmrun.hardware.process import ProcessMemory, process_io, process_memory
from llmrun.hardware.profile import Cpu, Disk, Gpu, HardwareProfile, MemoryLimit, to_json

__all__ = [
    "Cpu",
    "Disk",
    "Gpu",
    "HardwareProfile",
    "MemoryLimit",
    "ProcessMemory",
    "default_budget",
    "free_ram_bytes",
    "probe",
    "process_io",
    "process_memory",
    "to_json",
]
