"""What every choice costs for every stage, in seconds, from measured speeds.

A stage computes in ``max(weight bytes / memory bandwidth, FLOPs / rate) + attention + overhead`` (the roofline of
Williams, Waterman & Patterson 2009, with the rate taken from a measured curve over the number of tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.kept import kept_unit, layer_shape
from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.formats import weight_format
from llmrun.hardware.speeds import DeviceSpeed, LayerSpeed, Speeds, WeightSpeed
from llmrun.planner.choices import Choice, stages
from llmrun.planner.memory import item_bytes
from llmrun.planner.plan import CPU, DISK, is_gpu
from llmrun.settings import Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NO_LINK = -1

LEAST_STARTUP_RATE = 0.05

ROUNDED_BYTES_PER_S = 400e6
"""Of plain weights, where rounding them was not measured: two slow cores."""


@dataclass(frozen=True)
class PassCost:
    """One kind of pass. ``n`` stages, ``C`` choices; devices are numbered as the CPU 0, the GPUs from 1 on.

    Attributes:
        compute_s: ``(n, C)``, on the device of the pass.
        copy_s: ``(n, C)``, from RAM to that device through its ring; 0 where nothing moves.
        link: ``(C,)`` the GPU (from 0 on) whose link and ring that takes, or ``NO_LINK``.
        hop_s: ``(C, C)``, handing the hidden states from the stage before to this one.
        device: ``(C,)`` the number of the device that computes.
    """

    compute_s: Floats
    copy_s: Floats
    link: Ints
    hop_s: Floats
    device: Ints


@dataclass(frozen=True)
class Cost:
    """All that the simulation needs to know of a model on a host under a workload.

    Attributes:
        read_s: ``(n,)``, one read of a stage's weights from disk at full speed.
        streamed: ``(C,)`` whether every pass reads it.
        in_ram: ``(C,)`` whether it lives in RAM as it was read, in memory of its own.
        load_s: ``(n, C)``, what is done once with what passes the ring in RAM once: the copy to the GPU where it lives,
            or rounding it to the format that it is kept in; 0 where it lives elsewhere.
        load_link: ``(C,)`` that GPU (from 0 on), or ``NO_LINK``.
        prefill: a pass over the prompt.
        decode: a pass over one token (of each sequence), at the mean length of the past.
        startup_s: imports, during which reading goes on at ``startup_rate`` of its full speed and nothing computes.
        lead_s: reading what comes before the first stage, once.
        token_s: between a pass and the next.
        n_gpus: links and device rings.
        idle_s: from the moment the engine is ready to the first request; reading and copying go on.
    """

    read_s: Floats
    streamed: NDArray[np.bool_]
    in_ram: NDArray[np.bool_]
    load_s: Floats
    load_link: Ints
    prefill: PassCost
    decode: PassCost
    startup_s: float
    startup_rate: float
    lead_s: float
    token_s: float
    n_gpus: int
    idle_s: float = 0.0

    @property
    def loads(self) -> NDArray[np.bool_]:
        """``(C,)`` whether it passes the ring in RAM in the first pass alone."""
        once: NDArray[np.bool_] = ~self.streamed & ~self.in_ram
        return once

    @property
    def first_s(self) -> Floats:
        """``(n, C)``, the computation in a first pass over a prompt, with the rounding before it."""
        found: Floats = self.prefill.compute_s + self.load_s * (self.load_link == NO_LINK)
        return found

    def after_waiting(self, idle_s: float) -> Cost:
        """The costs of a first request ``idle_s`` after the engine is ready."""
        return replace(self, idle_s=idle_s)


def cost(
    spec: ModelSpec,
    speeds: Speeds,
    workload: Workload,
    choices: Sequence[Choice],
    gpus: Sequence[str],
    *,
    fine: bool = True,
    decode_tokens: int = 1,
) -> Cost:
    """The costs of all choices.

    Args:
        fine: as ``kernels.multiply`` has it.
        decode_tokens: of a pass that is no prefill: more than one where drafts are verified.

    Raises:
        KeyError: a GPU of the choices was not measured.
    """
    units = stages(spec)
    read_s = np.array([read_seconds(unit, speeds) for unit in units])
    homes = [choice.home for choice in choices]
    link_of = {gpu: index for index, gpu in enumerate(gpus)}
    own = {name: speeds.layer(layer_shape(spec, name, fine=fine)) for name in {choice.kept for choice in choices}}
    prompt, token = (_Pass(spec, speeds, workload, own, tokens) for tokens in (None, decode_tokens))
    return Cost(
        read_s=read_s,
        streamed=np.array([home == DISK for home in homes]),
        in_ram=np.array([choice.home == CPU and choice.kept is None for choice in choices]),
        load_s=np.array([[prompt.load_s(unit, choice) for choice in choices] for unit in units]),
        load_link=np.array([link_of.get(home, NO_LINK) for home in homes]),
        prefill=prompt.cost(units, choices, link_of),
        decode=token.cost(units, choices, link_of),
        startup_s=speeds.startup_s,
        startup_rate=_startup_rate(speeds),
        lead_s=sum(read_seconds(unit, speeds) for unit in spec.units if unit.kind is UnitKind.REST),
        token_s=speeds.token_s,
        n_gpus=len(gpus),
    )


def _startup_rate(speeds: Speeds) -> float:
    """The share of the disk at which weights come in during the startup: one request, and what imports leave."""
    disk_bytes_per_s = speeds.disk.bytes_per_s.p50
    single = speeds.disk.single_bytes_per_s / disk_bytes_per_s
    left = 1 - speeds.startup_bytes / (disk_bytes_per_s * speeds.startup_s) if speeds.startup_s else 1.0
    return max(LEAST_STARTUP_RATE, min(1.0, single, left))


def read_seconds(unit: UnitSpec, speeds: Speeds) -> float:
    """One read from disk, the runtime's requests in flight."""
    return unit.buffer_bytes / speeds.disk.bytes_per_s.p50 if unit.tensors else 0.0


def copy_seconds(unit: UnitSpec, speeds: Speeds, gpu: str) -> float:
    """One copy of the weights from pinned RAM to a GPU."""
    link = speeds.device(gpu).link
    assert link, f"{gpu} has no link"
    return unit.buffer_bytes / link.h2d_pinned_bytes_per_s.p50 + link.latency_s


def rounding_seconds(unit: UnitSpec, kept: UnitSpec, own: LayerSpeed | None) -> float:
    """Rounding a unit's plain matrices to the formats of ``kept``; as its own layers took, where that was measured."""
    if own and own.rounding_s:
        return own.rounding_s * kept.nbytes / own.nbytes
    return unit.nbytes / ROUNDED_BYTES_PER_S


def weight_bytes_per_s(device: DeviceSpeed, fmt: str, tokens: int) -> float:
    """Weight bytes multiplied per second, interpolated between the measured numbers of tokens on a log-log scale.

    Of a packed format that was not measured: as fast as the memory was for plain weights, or the FLOP/s reached there.
    """
    curve = next((curve for curve in device.weights if curve.dtype == fmt), None)
    if curve is None:
        return _like_plain(device.weights[0], fmt, tokens)
    if tokens <= curve.tokens[0]:
        return curve.bytes_per_s[0]
    if tokens >= curve.tokens[-1]:  # at the rate of FLOP/s reached there
        return curve.bytes_per_s[-1] * curve.tokens[-1] / tokens
    return exp(float(np.interp(log(tokens), np.log(curve.tokens), np.log(curve.bytes_per_s))))


def layer_seconds(own: LayerSpeed, tokens: int) -> float:
    """A measured layer for so many tokens, interpolated on a log-log scale; beyond the last as much for each token."""
    if tokens >= own.tokens[-1]:
        return own.seconds[-1] * tokens / own.tokens[-1]
    return exp(float(np.interp(log(tokens), np.log(own.tokens), np.log(own.seconds))))


def _like_plain(curve: WeightSpeed, fmt: str, tokens: int) -> float:
    bits, plain_bits = (weight_format(name).bits_per_weight for name in (fmt, curve.dtype))
    most_per_s = curve.bytes_per_s[-1] * curve.tokens[-1] * bits / plain_bits
    return min(curve.bytes_per_s[0], most_per_s / tokens)


@dataclass(frozen=True)
class _Pass:
    """The costs of one kind of pass."""

    spec: ModelSpec
    speeds: Speeds
    workload: Workload
    own: Mapping[str | None, LayerSpeed | None]  # measured layers, by the format that they are kept in
    decode_tokens: int | None  # None: a prefill

    @property
    def prompt(self) -> bool:
        """Whether it is a prefill."""
        return self.decode_tokens is None

    def load_s(self, unit: UnitSpec, choice: Choice) -> float:
        """What is done once with a unit that stays, when it has come in."""
        if choice.kept:
            return rounding_seconds(unit, kept_unit(unit, choice.kept), self.own[choice.kept])
        return copy_seconds(unit, self.speeds, choice.home) if is_gpu(choice.home) else 0.0

    def cost(self, units: Sequence[UnitSpec], choices: Sequence[Choice], link_of: dict[str, int]) -> PassCost:
        devices = [choice.prefill_device if self.prompt else choice.device for choice in choices]
        moves = [device != choice.home and is_gpu(device) for choice, device in zip(choices, devices, strict=True)]
        columns = list(zip(choices, devices, moves, strict=True))
        return PassCost(
            compute_s=np.array([[self._compute_s(unit, choice) for choice in choices] for unit in units]),
            copy_s=np.array(
                [[copy_seconds(unit, self.speeds, d) if move else 0.0 for _, d, move in columns] for unit in units]
            ),
            link=np.array([link_of[device] if move else NO_LINK for _, device, move in columns]),
            hop_s=np.array([[self._hop_s(before, device) for device in devices] for before in devices]),
            device=np.array([link_of[device] + 1 if is_gpu(device) else 0 for device in devices]),
        )

    def _compute_s(self, unit: UnitSpec, choice: Choice) -> float:
        """A stage on the device that the choice gives it in this kind of pass, in the format that it is kept in."""
        unit, own = kept_unit(unit, choice.kept), self.own[choice.kept]
        device = self.speeds.device(choice.prefill_device if self.prompt else choice.device)
        total_s = sum(self._chunk_s(unit, own, device, past, tokens) for past, tokens in self._chunks(unit))
        if choice.home == DISK and device.device == CPU:
            total_s += self._stolen_s(unit, device)
        return total_s + (self._visit_s(unit, choice) if self.prompt and choice.splits else 0.0)

    def _chunks(self, unit: UnitSpec) -> list[tuple[int, int]]:
        """(tokens before, tokens) of each of the passes that the unit sees; the head sees the last token alone."""
        work = self.workload
        if self.decode_tokens is not None:
            return [(work.past_tokens + work.prompt_tokens + work.new_tokens // 2, self.decode_tokens)]
        if unit.kind is UnitKind.HEAD:
            return [(0, 1)]
        step = work.prefill_chunk_tokens
        begins = range(0, work.prompt_tokens, step)
        return [(work.past_tokens + begin, min(step, work.prompt_tokens - begin)) for begin in begins]

    def _chunk_s(self, unit: UnitSpec, own: LayerSpeed | None, device: DeviceSpeed, past: int, tokens: int) -> float:
        rows = tokens * self.workload.batch
        if own and device.device == CPU and unit.kind is UnitKind.LAYER:
            return layer_seconds(own, rows) * unit.nbytes / own.nbytes + self._past_s(own, unit, device, past, tokens)
        seconds = self._linear_s(unit, device, rows)
        if unit.kind is UnitKind.LAYER:
            width = self.spec.hidden_size + self.spec.intermediate_size
            seconds += self._attention_s(unit, device, past, tokens) + device.layer_s + device.element_s * rows * width
        return seconds

    def _past_s(self, own: LayerSpeed, unit: UnitSpec, device: DeviceSpeed, past: int, tokens: int) -> float:
        """What tokens before it add to a measured layer, of which that is measured too, or reckoned."""
        if not unit.kv_bytes_per_token:
            return 0.0
        seen = past if unit.kv_window_tokens is None else min(past, unit.kv_window_tokens)
        if (measured_s := own.past_s(seen, tokens)) is not None:
            return measured_s * self.workload.batch
        more_s = self._attention_s(unit, device, past, tokens) - self._attention_s(unit, device, 0, tokens)
        return max(0.0, more_s)

    def _linear_s(self, unit: UnitSpec, device: DeviceSpeed, rows: int) -> float:
        """Weights read once, or their FLOPs where those take longer. Of a mixture of experts only what is used."""
        if not unit.nbytes:
            return 0.0
        active = min(1.0, unit.flops_per_token / (2 * unit.n_params))
        memory_s = self._memory_s(unit, device, rows)
        return max(memory_s, unit.nbytes * active / weight_bytes_per_s(device, unit.weight_format, rows))

    def _memory_s(self, unit: UnitSpec, device: DeviceSpeed, rows: int) -> float:
        active = min(1.0, rows * unit.flops_per_token / (2 * unit.n_params))
        return unit.nbytes * active / weight_bytes_per_s(device, unit.weight_format, 1)

    def _attention_s(self, unit: UnitSpec, device: DeviceSpeed, past: int, tokens: int) -> float:
        if not unit.kv_bytes_per_token:
            return 0.0
        past = past if unit.kv_window_tokens is None else min(past, unit.kv_window_tokens)
        batch = self.workload.batch
        memory_s = unit.kv_bytes_per_token * (past + tokens) * batch / device.kv_bytes_per_s
        flops = 4 * self.spec.n_heads * self.spec.head_dim * tokens * (past + tokens) * batch
        flops_per_s = device.attention_flops_per_s if tokens > 1 else device.kv_flops_per_s
        return max(memory_s, flops / flops_per_s if flops_per_s else 0.0)

    def _stolen_s(self, unit: UnitSpec, device: DeviceSpeed) -> float:
        """What reading a unit takes from computations beside it, as far as those wait for memory.

        With a slowdown of k, a second of reading lets 1/k second of computation go by.
        """
        rows = sum(tokens for _, tokens in self._chunks(unit)) * self.workload.batch
        share = self._memory_s(unit, device, rows) / max(self._linear_s(unit, device, rows), 1e-12)
        return read_seconds(unit, self.speeds) * (1 - 1 / self.speeds.reading_slowdown) * share

    def _visit_s(self, unit: UnitSpec, choice: Choice) -> float:
        """The new keys and values go back to the device where tokens are computed."""
        nbytes = unit.kv_bytes_per_token * self.workload.prompt_tokens * self.workload.batch
        link = self.speeds.device(choice.prefill_device).link
        assert link, f"{choice.prefill_device} has no link"
        return nbytes / link.d2h_pageable_bytes_per_s + link.latency_s

    def _hop_s(self, before: str, after: str) -> float:
        """The hidden states of the pass cross the links between two devices."""
        if before == after:
            return 0.0
        tokens = self.workload.prompt_tokens if self.decode_tokens is None else self.decode_tokens
        nbytes = tokens * self.workload.batch * self.spec.hidden_size * item_bytes(self.spec.dtype)
        seconds = 0.0
        for device, outwards in ((before, True), (after, False)):
            if link := self.speeds.device(device).link:
                rate = link.d2h_pageable_bytes_per_s if outwards else link.h2d_pageable_bytes_per_s
                seconds += link.latency_s + nbytes / rate
        return seconds
