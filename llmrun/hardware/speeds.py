"""How fast the host is, as measured: what a plan needs to know time.

Every figure is taken the way the runtime does the work: direct I/O of the checkpoint's own bytes, torch's own matrix
multiplication, a real decoder layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

CPU = "cpu"


@dataclass(frozen=True)
class Spread:
    """A figure that varies: the values that 10 %, half and 90 % of the samples stay below."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True)
class ReadShape:
    """Reading with so many requests of so many bytes in flight at once."""

    block_bytes: int
    in_flight: int
    bytes_per_s: Spread


@dataclass(frozen=True)
class DiskSpeed:
    """Direct-I/O reading of the file system that holds the checkpoint."""

    bytes_per_s: Spread  # in the runtime's own shape
    single_bytes_per_s: float  # one request in flight, as while torch is being imported
    request_s: float  # a request of one page
    shapes: tuple[ReadShape, ...] = ()


@dataclass(frozen=True)
class WeightSpeed:
    """Multiplying by weights of one dtype: ``bytes_per_s[i]`` weight bytes a second for ``tokens[i]`` tokens at once.

    The FLOP/s follow: 2 x tokens x bytes_per_s / bytes per weight.
    """

    dtype: str  # safetensors' name: BF16, F16, F32
    tokens: tuple[int, ...]  # rising, from 1 on
    bytes_per_s: tuple[float, ...]


@dataclass(frozen=True)
class LinkSpeed:
    """Between RAM and a GPU."""

    h2d_pinned_bytes_per_s: Spread
    h2d_pageable_bytes_per_s: float
    d2h_pinned_bytes_per_s: float
    d2h_pageable_bytes_per_s: float
    latency_s: float  # a copy of a few bytes, waited for


@dataclass(frozen=True)
class ThreadSpeed:
    """Reading RAM with so many threads."""

    threads: int
    bytes_per_s: float


@dataclass(frozen=True)
class DeviceSpeed:
    """What one device computes and reads."""

    device: str  # "cpu", "gpu:0"
    name: str
    memory_bytes_per_s: Spread  # reading its memory, with all threads
    weights: tuple[WeightSpeed, ...]
    kv_bytes_per_s: float  # attention of one new token over a long past: keys and values read
    attention_flops_per_s: float  # attention of a chunk of a prompt
    layer_s: float  # a decoder layer and pass, beyond its matrices and attention
    element_s: float  # that grows with the pass: for each token and element of (hidden size + intermediate size)
    threads: tuple[ThreadSpeed, ...] = ()  # of a CPU
    link: LinkSpeed | None = None  # of a GPU
    kv_flops_per_s: float | None = None  # attention of one new token: 4 x heads x past x head size, if that is slower


@dataclass(frozen=True)
class OwnLayers:
    """Layers of a checkpoint, to be measured as a run computes them."""

    shape: str  # as ``ModelSpec.layer_shape`` says it
    formats: tuple[tuple[str, str], ...]  # of every tensor of one, by its name within the layer
    rounded: bool = False  # whether weights become so as they come in, which is measured too
    fine: bool = True  # whether what meets the weights is rounded less, as ``kernels.multiply`` has it


@dataclass(frozen=True)
class LayerSpeed:
    """What the CPU takes for one layer of a model, for so many tokens at once and none before them.

    ``token_past_s`` and ``chunk_past_s`` are the attention of one token to ``PAST_TOKENS``, and of ``CHUNK_TOKENS``;
    ``None`` where the model's heads are not all alike, or the time ran out. ``first_s``: what the first prompt of a
    process takes beyond a later one, for pages of libraries and what oneDNN prepares for shapes that it has not met.
    ``rounding_s``: of one whose weights are rounded to their formats as they come in.
    """

    PAST_TOKENS: ClassVar[int] = 4096
    CHUNK_TOKENS: ClassVar[int] = 512

    shape: str  # of the model's layers, as ``ModelSpec.layer_shape`` says it
    nbytes: int
    tokens: tuple[int, ...]  # rising, from 1 on
    seconds: tuple[float, ...]
    token_past_s: float | None = None
    chunk_past_s: float | None = None
    first_s: float = 0.0
    rounding_s: float | None = None

    def past_s(self, past: int, tokens: int) -> float | None:
        """What so many tokens take to attend to so many before them: in proportion to both."""
        if tokens == 1:
            return self.token_past_s and self.token_past_s * past / self.PAST_TOKENS
        return self.chunk_past_s and self.chunk_past_s * past / self.PAST_TOKENS * tokens / self.CHUNK_TOKENS


@dataclass(frozen=True)
class Speeds:
    """All of it, and where and when it was measured."""

    measured_at: str  # ISO 8601, UTC
    host: str  # what must be the same for the figures to hold: processor, GPUs, disk, torch
    disk: DiskSpeed
    devices: tuple[DeviceSpeed, ...]  # the CPU first
    reading_slowdown: float  # time of a computation on the CPU while the disk is being read / without; at least 1
    startup_s: float  # from the start of reading to an engine that computes: imports, the model's skeleton
    token_s: float  # a token beyond its layers: sampling, embedding, events
    notes: tuple[str, ...] = ()  # what could not be measured, and what stands in for it
    complete: bool = True  # False where the time ran out or no weights could be read: not kept for the next run
    layers: tuple[LayerSpeed, ...] = ()  # of the models that were run here
    startup_bytes: int = 0  # what the imports read from the disk meanwhile, where no page cache had it

    def device(self, name: str) -> DeviceSpeed:
        """The figures of one device.

        Raises:
            KeyError: it was not measured.
        """
        for device in self.devices:
            if device.device == name:
                return device
        raise KeyError(name)

    def layer(self, shape: str) -> LayerSpeed | None:
        """The figures of a model's own layers, if it was run here and they could be measured."""
        return next((layer for layer in self.layers if layer.shape == shape and layer.tokens), None)
