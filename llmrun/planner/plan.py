"""The plan: where each unit lives, where it is computed, and what that takes on each device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from llmrun.settings import AUTO, LOSSLESS, SELF, SPECULATE_OFF, Precision, Quality, Speculating, Workload

SCHEMA_VERSION = 4

CPU = "cpu"
DISK = "disk"


def is_gpu(device: str) -> bool:
    """Whether a device or home name is a GPU's: ``gpu:0``."""
    return device.startswith("gpu:")


@dataclass(frozen=True)
class Placement:
    """A unit's home tier (``gpu:k``, ``cpu``, ``disk``) and the device that computes it (``gpu:k``, ``cpu``).

    ``prompt_device``: computes it in a prefill, where that is another one; its KV cache then visits there.
    ``kept``: the format, by its name for ``--format``, in which a unit that lives in RAM and is computed on the CPU has
    its plain matrices; ``None``: as they are in the file.
    ``substitute``: the format of a copy in RAM, with which the CPU drafts, of a unit that it computes from disk.
    """

    unit: str
    home: str
    device: str
    prompt_device: str | None = None
    kept: str | None = None
    substitute: str | None = None

    @property
    def resident(self) -> bool:
        """Whether its weights stay where each token is computed, so that nothing moves for one after the first pass."""
        return self.home == self.device

    @property
    def prefill_device(self) -> str:
        """The device that computes it in a prefill."""
        return self.prompt_device or self.device

    @property
    def comes_once(self) -> bool:
        """Whether its bytes pass the ring in RAM in the first pass alone: on to a GPU, or to be rounded."""
        return is_gpu(self.home) or self.kept is not None

    @property
    def rounded_to(self) -> str | None:
        """The format that its plain matrices are rounded to in RAM, to be kept or to draft with."""
        return self.kept or self.substitute

    def computed_on(self, *, prefill: bool) -> str:
        """The device that computes it in a prefill, or for a token."""
        return self.prefill_device if prefill else self.device


@dataclass(frozen=True)
class Slots:
    """How many slots the ring in RAM has, and the ring on each GPU.

    With two, one is computed while the other is filled; more helps where units differ, or are read in bursts.
    """

    host: int = 2
    gpu: int = 2

    def on(self, device: str) -> int:
        """Of the ring on a device."""
        return self.host if device == CPU else self.gpu


DEFAULT_SLOTS = Slots()


@dataclass(frozen=True)
class RingSpec:
    """A ring of equal slots on a device, through which streamed units pass."""

    device: str
    slots: int
    slot_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of all its slots."""
        return self.slots * self.slot_bytes


@dataclass(frozen=True)
class MemoryLine:
    """One reason why a device's memory is taken."""

    label: str
    nbytes: int
    detail: str = ""


@dataclass(frozen=True)
class DeviceMemory:
    """What a plan takes on a device, line by line, against the budget there."""

    device: str
    budget_bytes: int
    lines: tuple[MemoryLine, ...]

    @property
    def nbytes(self) -> int:
        """The planned peak."""
        return sum(line.nbytes for line in self.lines)

    @property
    def fits(self) -> bool:
        """Whether the planned peak is within the budget."""
        return self.nbytes <= self.budget_bytes


@dataclass(frozen=True)
class Busy:
    """How long one resource works for each decoded token."""

    resource: str  # "disk", "link gpu:0", "cpu", "gpu:0"
    busy_s: float


@dataclass(frozen=True)
class Drafting:
    """What drafts by substitutes, or by another model, will give.

    Attributes:
        draft_tokens: guessed before each pass.
        acceptance: the share of guesses that are right, where those before them were.
        draft_s: of all guesses before a pass; weights go on coming in meanwhile.
        pass_s: from a pass to the next, with the guesses.
        making_s: rounding the substitutes, once, in the passes of the first tokens that are decoded.
        plain_tpot_s: a token, by the best plan without these drafts; ``None`` where there is none.
        alone_s: a token, by this plan without drafts.
        load_s: another model comes in, once, beside the first pass.
        prompt_token_s: that model reads a token of the prompt, before the first guess of a request.
    """

    draft_tokens: int
    acceptance: float
    draft_s: float
    pass_s: float
    making_s: float
    plain_tpot_s: float | None = None
    alone_s: float = 0.0
    load_s: float = 0.0
    prompt_token_s: float = 0.0

    @property
    def tokens_per_pass(self) -> float:
        """As expected: 1 + a + a^2 + ... + a^k (Leviathan et al. 2023, arXiv 2211.17192, eq. 1)."""
        return sum(self.acceptance**place for place in range(self.draft_tokens + 1))

    @property
    def verify_s(self) -> float:
        """What is left of a pass after the guesses."""
        return self.pass_s - self.draft_s

    @property
    def making_passes(self) -> int:
        """Passes in which substitutes are made, so much of them in each that reading the weights takes as long."""
        return max(1, ceil(self.making_s / self.verify_s)) if self.verify_s > 0 else 1

    def first_tpot_s(self, tpot_s: float, tokens: int) -> float:
        """Of ``tokens`` that begin with the passes in which substitutes are made, each of which gives one."""
        if not self.making_s:
            return tpot_s
        making_tokens = min(tokens, self.making_passes)
        making_s = making_tokens * max(self.alone_s, self.making_s / self.making_passes)
        return (making_s + (tokens - making_tokens) * tpot_s) / tokens


@dataclass(frozen=True)
class Prediction:
    """What a run of the plan will show, for the plan's workload or another.

    Attributes:
        startup_s: from the start of reading to an engine that computes.
        ttft_s: of a first request, made as soon as the engine is ready.
        warm_ttft_s: of a later request, whose prompt shares nothing with what is in the KV cache.
        tpot_s: of a decoded token, at the mean length of the past; with ``drafting`` its share of a pass.
        bytes_per_token: read for each decoded token from each tier (``disk``, ``cpu``, ``gpu:0``).
        busy: of each resource, for each decoded token.
        peak_bytes: what the process will have taken on each device in the end.
        drafting: where tokens are drafted.
    """

    startup_s: float
    ttft_s: float
    warm_ttft_s: float
    tpot_s: float
    bytes_per_token: Mapping[str, int]
    busy: tuple[Busy, ...]
    peak_bytes: Mapping[str, int]
    drafting: Drafting | None = None

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens a second in decode, of one sequence."""
        return 1 / self.tpot_s

    @property
    def bottleneck(self) -> str:
        """The resource that works most of the time."""
        return max(self.busy, key=lambda busy: busy.busy_s).resource


@dataclass(frozen=True)
class Certificate:
    """How the plan was found and how near to the best it is."""

    objective: str
    seconds: float  # the objective of this plan
    bound_s: float  # no plan within the budget can be shorter
    seed: int
    evaluations: int  # simulated candidates

    @property
    def gap(self) -> float:
        """How much longer than the bound it is, as a share of the bound."""
        return self.seconds / self.bound_s - 1


@dataclass(frozen=True)
class Plan:
    """A placement for every unit, in execution order, with the rings and the memory that it takes.

    ``fingerprint`` is the checkpoint's, ``hardware`` names the host whose speeds it was made for. A plan that was put
    together by hand has neither, and no prediction.
    """

    model: str
    planner: str
    workload: Workload
    placements: tuple[Placement, ...]
    rings: tuple[RingSpec, ...]
    memory: tuple[DeviceMemory, ...]
    fingerprint: str = ""
    hardware: str = ""
    prediction: Prediction | None = None
    certificate: Certificate | None = None
    precision: Precision = LOSSLESS
    speculating: Speculating = SPECULATE_OFF
    schema: int = SCHEMA_VERSION

    @property
    def fits(self) -> bool:
        """Whether every device keeps its budget."""
        return all(memory.fits for memory in self.memory)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that compute anything, in a prefill or for a token."""
        used = {device for p in self.placements for device in (p.device, p.prefill_device)}
        return tuple(sorted(device for device in used if is_gpu(device)))

    @property
    def kept_formats(self) -> tuple[str, ...]:
        """The formats that anything is kept in, other than that of the file."""
        return tuple(sorted({placement.kept for placement in self.placements if placement.kept}))

    @property
    def substitutes(self) -> tuple[str, ...]:
        """The units of which there is a copy in fewer bits, to draft with."""
        return tuple(placement.unit for placement in self.placements if placement.substitute)

    @property
    def substitute_format(self) -> str | None:
        """The format of these copies."""
        return next((placement.substitute for placement in self.placements if placement.substitute), None)

    @property
    def precision_words(self) -> str:
        """``q4 in RAM, quality balanced``: what is otherwise than in the file; empty where nothing is."""
        kept = [f"{' and '.join(self.kept_formats)} in RAM"] if self.kept_formats else []
        is_other = self.precision.quality is not Quality.LOSSLESS
        return ", ".join([*kept, *([f"quality {self.precision.quality}"] if is_other else [])])

    def drafts(self, asked: Speculating) -> bool:
        """Whether what the plan has for it drafts, as it does unless something else is asked for."""
        if self.speculating.model:
            return asked.method in (AUTO, self.speculating.method)
        return bool(self.substitutes) and asked.method in (AUTO, SELF)

    def speculating_as(self, asked: Speculating) -> Plan:
        """The plan with what it will show if drafts are made so."""
        if self.drafts(asked) or self.prediction is None:
            return self
        return replace(self, prediction=replace(self.prediction, drafting=None))

    def placement(self, unit: str) -> Placement:
        """The placement of a unit.

        Raises:
            KeyError: the plan does not know the unit.
        """
        for placement in self.placements:
            if placement.unit == unit:
                return placement
        raise KeyError(unit)

    @property
    def slots(self) -> Slots:
        """The slots that its rings have; where it has none, what a ring has by default."""
        host = self.ring(CPU)
        gpu = next((ring for ring in self.rings if is_gpu(ring.device)), None)
        return Slots(host.slots if host else DEFAULT_SLOTS.host, gpu.slots if gpu else DEFAULT_SLOTS.gpu)

    def ring(self, device: str) -> RingSpec | None:
        """The ring on a device, if the plan has one."""
        return next((ring for ring in self.rings if ring.device == device), None)
