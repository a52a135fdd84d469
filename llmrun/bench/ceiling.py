"""What the measured bandwidths allow a case, before it is measured. Pure.

For one pass every resource needs at least

- disk: bytes streamed from it / bytes per second of direct reads (the median that was measured);
- link of a GPU: bytes copied over it / bytes per second of copies from pinned RAM;
- computing: the sum over the devices, which compute one after the other, of
  ``max(bytes of weights and KV cache / memory bytes per second, FLOPs / highest FLOPs per second measured)``

(the roofline of Williams, Waterman & Patterson 2009). At best all of that goes on at once, so the pass takes at least
the longest of them: the *ceiling* is ``tokens / (prefill + n_gen x token)`` with each at its least. The FLOPs are those
of the weights, attention left out; a prompt streams the weights once. With the caches dropped, a prompt reads and
copies all weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmrun.bench.case import Case
from llmrun.checkpoint.kept import kept_unit, layer_shape
from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.hardware.speeds import DeviceSpeed, Speeds
from llmrun.planner.memory import item_bytes
from llmrun.planner.plan import DISK, Placement, Plan, is_gpu


@dataclass(frozen=True)
class Limit:
    """The resource that a pass waits for at best, and the seconds that it takes."""

    resource: str  # "disk", "link gpu:0", "cpu", "gpu:0", "cpu and gpu:0"
    seconds: float


@dataclass(frozen=True)
class Ceiling:
    """The least time of a case: of its prompt, if it has one, and of each new token, if it has any."""

    case: Case
    prefill: Limit | None
    token: Limit | None

    @property
    def seconds(self) -> float:
        """Of the whole case."""
        return (self.prefill.seconds if self.prefill else 0.0) + self.case.n_gen * self._token_s

    @property
    def tokens_per_s(self) -> float | None:
        """The rate that it cannot exceed; ``None`` where nothing takes any time."""
        return self.case.n_tokens / self.seconds if self.seconds > 0 else None

    @property
    def resource(self) -> str:
        """What most of that time is spent on."""
        limits = [(self.prefill, 1), (self.token, self.case.n_gen)]
        return max((limit.seconds * count, limit.resource) for limit, count in limits if limit)[1]

    def mbu(self, tpot_s: float | None) -> float | None:
        """Achieved share of the bandwidth of what a token waits for: its bytes / bandwidth / measured seconds."""
        return self._token_s / tpot_s if self.token and tpot_s else None

    @property
    def _token_s(self) -> float:
        return self.token.seconds if self.token else 0.0


def ceiling(spec: ModelSpec, plan: Plan, speeds: Speeds, case: Case, *, cold: bool = False) -> Ceiling:
    """The ceiling of a case under a plan; ``cold``: the prompt finds no weights in memory.

    Raises:
        KeyError: a GPU of the plan was not measured.
    """
    past_tokens = case.n_depth + max(1, case.n_prompt) + case.n_gen // 2  # at the middle of the new tokens
    prompt = _Pass(spec, plan, speeds, case.n_depth, case.n_prompt, prefill=True, cold=cold)
    token = _Pass(spec, plan, speeds, past_tokens, 1, prefill=False)
    return Ceiling(case, prompt.limit() if case.n_prompt else None, token.limit() if case.n_gen else None)


@dataclass(frozen=True)
class _Pass:
    """``tokens`` after ``past_tokens``."""

    spec: ModelSpec
    plan: Plan
    speeds: Speeds
    past_tokens: int
    tokens: int
    prefill: bool
    cold: bool = False

    def limit(self) -> Limit:
        """The longest of what can go on at once."""
        computing = {device: self._compute_s(device) for device in self._devices()}
        words = " and ".join(device for device, seconds in computing.items() if seconds)
        found = [Limit(words, sum(computing.values())), Limit(DISK, self._disk_s())]
        found += [Limit(f"link {device}", self._link_s(device)) for device in computing if is_gpu(device)]
        return max(found, key=lambda limit: limit.seconds)

    def _disk_s(self) -> float:
        nbytes = sum(unit.nbytes for unit, p in self._units() if self.cold or p.home == DISK)
        return nbytes / self.speeds.disk.bytes_per_s.p50

    def _link_s(self, gpu: str) -> float:
        link = self.speeds.device(gpu).link
        nbytes = sum(unit.nbytes for unit, p in self._units() if self._device(p) == gpu and self._moves(p))
        return nbytes / link.h2d_pinned_bytes_per_s.p50 if link else 0.0

    def _compute_s(self, device: str) -> float:
        speed = self.speeds.device(device)
        units = [kept_unit(unit, p.kept) for unit, p in self._units() if self._device(p) == device]
        nbytes = sum(unit.nbytes + self._kv_bytes(unit) for unit in units)
        flops = sum(unit.flops_per_token * (1 if unit.kind is UnitKind.HEAD else self.tokens) for unit in units)
        return max(nbytes / speed.memory_bytes_per_s.p50, flops / self._peak_flops_per_s(speed))

    def _kv_bytes(self, unit: UnitSpec) -> int:
        tokens = self.past_tokens + self.tokens
        return unit.kv_bytes_per_token * min(tokens, unit.kv_window_tokens or tokens)

    def _peak_flops_per_s(self, device: DeviceSpeed) -> float:
        """The highest rate of any number of tokens at once, of a large matrix or of the model's own layers."""
        rates = [
            2 * tokens * bytes_per_s / item_bytes(curve.dtype)
            for curve in device.weights
            if curve.dtype in {self.spec.dtype, *self.spec.weight_formats} or len(device.weights) == 1
            for tokens, bytes_per_s in zip(curve.tokens, curve.bytes_per_s, strict=True)
        ]
        if not is_gpu(device.device):
            rates += self._own_flops_per_s()
        return max(rates, default=float("inf"))

    def _own_flops_per_s(self) -> Iterator[float]:
        """Of the model's own layers, in all formats that they are kept in."""
        layer = next(unit for unit in self.spec.units if unit.kind is UnitKind.LAYER)
        for name in (None, *self.plan.kept_formats):
            own = self.speeds.layer(layer_shape(self.spec, name, fine=self.plan.precision.quality.fine))
            points = zip(own.tokens, own.seconds, strict=True) if own else ()
            yield from (2 * layer.n_params * tokens / seconds for tokens, seconds in points if seconds > 0)

    def _devices(self) -> list[str]:
        return sorted({self._device(p) for _, p in self._units()})

    def _device(self, placement: Placement) -> str:
        return placement.computed_on(prefill=self.prefill)

    def _moves(self, placement: Placement) -> bool:
        return self.cold or placement.home != self._device(placement)

    def _units(self) -> Iterator[tuple[UnitSpec, Placement]]:
        """All that is read as a whole: of an embedding only rows are."""
        for placement in self.plan.placements:
            unit = self.spec.unit(placement.unit)
            if unit.kind is not UnitKind.EMBEDDING:
                yield unit, placement
