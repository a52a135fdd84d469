"""The one account of memory: what a placement takes on each device, line by line.

The planner counts with these functions and the runtime allocates by the same plan, so a plan that fits runs within it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmrun.checkpoint.kept import kept_unit
from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.formats import weight_format
from llmrun.hardware.heap import KEPT_BYTES, kept_tokens
from llmrun.planner.plan import CPU, DEFAULT_SLOTS, DISK, DeviceMemory, MemoryLine, Placement, RingSpec, Slots, is_gpu
from llmrun.settings import DEFAULT_PREFILL_CHUNK_TOKENS, Budget, Workload
from llmrun.units import MIB, format_bytes

PROCESS_BYTES = 424 * MIB
"""Interpreter, torch, transformers, planner and libraries, with the file pages they map.

This and the next two are measured by `benchmarks/process_memory.py`.
"""

TOKENIZER_BYTES_PER_ENTRY = 2000
"""RAM that loading a fast tokenizer takes for each entry, with two merges an entry, as Llama 3 has."""

LOADED_TOKENIZER_BYTES_PER_ENTRY = 450
"""What of that is kept once it is loaded and the heap trimmed."""

HEAP_BYTES = 32 * MIB
"""The small holes of the heap while it is computed."""

HOLES, GROWING_HOLES = 1, 4
"""Of the size of the largest activation in the heap: small pieces settle in what it left, and the next has no room.

More of what grows with the tokens seen: what one chunk of a prompt leaves is too small for the next.
"""

STATE_BYTES = 4
"""Of an activation: in fp32 on the CPU, counted as large on a GPU."""

INTEGER_BYTES = 3
"""Of an activation that meets integer weights: two, and scales and sums for each 32 (kernels/src/activations.inc)."""

ROUNDING_BYTES = 4 * MIB
"""While weights are rounded to the format that they stay in RAM in: some rows of them (runtime/kept.py)."""

DRAFT_COPIES = 3
"""Of one number for each drafted token and entry of the vocabulary (engine/speculation/)."""

FEW_TOKENS, TILE_BYTES, BF16_TILE_BYTES = 32, 8 * MIB, 32 * MIB
"""More tokens than these meet tiles: of weights that are made floats, and of bf16 weights (kernels/multiply.py)."""

CUDA_CONTEXT_BYTES = 600 * MIB
"""What the driver and the libraries take on a GPU before the first tensor."""

_ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


def item_bytes(dtype: str) -> int:
    """Bytes of one element of a dtype that can be computed in."""
    return _ITEM_BYTES[dtype]


def kv_capacity_tokens(unit: UnitSpec, workload: Workload) -> int:
    """Tokens that the KV cache of a layer holds: the context, or a sliding window with room for one chunk."""
    if unit.kv_window_tokens is None:
        return workload.context_tokens
    chunk_tokens = min(workload.prefill_chunk_tokens, workload.context_tokens)
    return min(workload.context_tokens, unit.kv_window_tokens + chunk_tokens)


def kv_bytes(unit: UnitSpec, workload: Workload) -> int:
    """Bytes of the KV cache of a layer, allocated once for the asked context."""
    return unit.kv_bytes_per_token * kv_capacity_tokens(unit, workload) * workload.batch


def visit_bytes(device: str, spec: ModelSpec, workload: Workload, placements: Sequence[Placement]) -> int:
    """Bytes on a device for the KV caches that visit it in a prefill, one layer's at a time."""
    return max((kv_bytes(spec.unit(p.unit), workload) for p in placements if _visits(p, device)), default=0)


def _visits(placement: Placement, device: str) -> bool:
    return placement.prefill_device == device != placement.device


def prefill_chunk_tokens(spec: ModelSpec) -> int:
    """How many tokens of a prompt go through a layer at once: as many as the heap keeps the activations of."""
    widest = max(spec.hidden_size, spec.intermediate_size) * STATE_BYTES
    return kept_tokens(widest, DEFAULT_PREFILL_CHUNK_TOKENS)


def workspace_bytes(spec: ModelSpec, workload: Workload) -> int:
    """Upper estimate of the activations of any request within the context.

    A last chunk that sees all of it; or a shorter one, or one that sees less, whose pieces the heap just keeps.

    With drafts, beside it the logits of all that is verified, and what their tokens were drawn from.
    """
    context, batch = workload.context_tokens, workload.batch
    most = min(workload.prefill_chunk_tokens, context)
    width, kv_width = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    passes = [
        pass_bytes(spec, tokens, seen, batch, masked=True)
        for tokens in _up_to(most, (batch * size for size in (spec.hidden_size, width, spec.intermediate_size)))
        for seen in _up_to(context, (batch * width, batch * kv_width, batch * tokens))
    ]
    states = workload.context_tokens * workload.batch * spec.hidden_size * STATE_BYTES
    return max(passes) + states + drafts_bytes(spec, workload)


def drafts_bytes(spec: ModelSpec, workload: Workload) -> int:
    """Logits of drafted tokens and the one before them; their probabilities, row by row and then together."""
    return DRAFT_COPIES * (workload.draft_tokens + 1) * spec.vocab_size * STATE_BYTES if workload.draft_tokens else 0


def _up_to(most: int, sizes: Iterable[int]) -> set[int]:
    """``most`` tokens, and the most below it with which pieces of so many activations for each are still kept."""
    kept = {(KEPT_BYTES - 1) // (STATE_BYTES * size) for size in sizes}
    return {most} | {tokens for tokens in kept if 0 < tokens < most}


def pass_bytes(spec: ModelSpec, tokens: int, seen_tokens: int, batch: int = 1, *, masked: bool) -> int:
    """Activations of one pass of ``tokens`` new tokens, the last of which attends to ``seen_tokens``.

    Throughout: the embeddings, the residual, the normed states and a layer's output, and the mask. Beside them the
    steps of a layer come one after the other; but of pieces below ``KEPT_BYTES`` the heap keeps what each of them took,
    so that adds up, with holes as large as the largest of them; of those above it is that of the greatest step.

    Args:
        masked: whether the new tokens follow others, so that attention takes a mask and repeated heads.
    """
    rows = tokens * batch
    states = rows * spec.hidden_size * STATE_BYTES
    mask = rows * seen_tokens if masked else 0
    steps = _steps(spec, rows, seen_tokens, batch, mask)
    small = [(count, nbytes) for step in steps for count, nbytes in step if nbytes < KEPT_BYTES]
    growing = [nbytes for _, nbytes in _growing(spec, seen_tokens, batch, mask) if nbytes < KEPT_BYTES]
    holes = HOLES * max((nbytes for _, nbytes in small), default=0) + GROWING_HOLES * max(growing, default=0)
    kept = sum(count * nbytes for count, nbytes in small) + holes
    mapped = max(sum(count * nbytes for count, nbytes in step if nbytes >= KEPT_BYTES) for step in steps)
    return 4 * states + mask + kept + mapped + _kernel_bytes(spec, rows) + HEAP_BYTES


def _kernel_bytes(spec: ModelSpec, rows: int) -> int:
    """What products take beside what they are made of and give.

    What stands between the products of a few tokens (kernels/src/blocks.c). With integer weights the activations as
    integers; with bf16 a tile as oneDNN has it; with other floats of 8 or 16 bits a tile of fp32, and what it gives.
    """
    formats = [weight_format(name) for name in spec.matrix_formats]
    integers = 0 if all(each.is_plain for each in formats) else _integer_bytes(spec, rows)
    between = 2 * max(spec.intermediate_size, (spec.n_heads + spec.n_kv_heads) * spec.head_dim)
    few = FEW_TOKENS * between * STATE_BYTES + integers
    if rows <= FEW_TOKENS:
        return few
    tiles = 0
    if any(each.name == "BF16" for each in formats):
        tiles = min(BF16_TILE_BYTES, spec.hidden_size * spec.intermediate_size * item_bytes("BF16"))
    if any(each.is_plain and each.name not in ("F32", "BF16") for each in formats):
        tile_rows = min(TILE_BYTES // (spec.hidden_size * STATE_BYTES), spec.intermediate_size)
        tiles = max(tiles, tile_rows * (spec.hidden_size + 2 * rows) * STATE_BYTES)
    return few + tiles


def _integer_bytes(spec: ModelSpec, rows: int) -> int:
    width = max(spec.hidden_size, spec.intermediate_size, spec.n_heads * spec.head_dim)
    return rows * width * INTEGER_BYTES


def keeping_bytes(spec: ModelSpec) -> int:
    """What it takes in RAM to round weights that are kept in another format, and for products with them."""
    return ROUNDING_BYTES + _integer_bytes(spec, prefill_chunk_tokens(spec))


def _steps(spec: ModelSpec, rows: int, seen_tokens: int, batch: int, mask: int) -> list[list[tuple[int, int]]]:
    """What transformers' ``LlamaDecoderLayer`` holds at once in each of its steps: how many pieces of how many bytes.

    A norm (the states, their squares, their product); queries with their rotation in the making, keys and values as
    they are computed with and repeated for the heads that share them, and the mask as numbers; three activations of the
    MLP, and what goes into a product of floats as oneDNN has it. At the end the logits and what sampling sorts.
    """
    of_mlp = 4 if any(weight_format(name).is_plain for name in spec.matrix_formats) else 3
    width_bytes = spec.n_heads * spec.head_dim * STATE_BYTES
    return [
        [(3, rows * spec.hidden_size * STATE_BYTES)],
        [(4, rows * width_bytes), *_growing(spec, seen_tokens, batch, mask)],
        [(of_mlp, rows * spec.intermediate_size * STATE_BYTES)],
        [(8, batch * spec.vocab_size * STATE_BYTES)],
    ]


def _growing(spec: ModelSpec, seen_tokens: int, batch: int, mask: int) -> list[tuple[int, int]]:
    """What attention holds of all tokens seen."""
    head_bytes = seen_tokens * batch * spec.head_dim * STATE_BYTES
    repeated = head_bytes * spec.n_heads if mask and spec.n_kv_heads < spec.n_heads else 0
    return [(2, head_bytes * spec.n_kv_heads), (2, repeated), (1, mask * STATE_BYTES)]


def process_bytes(spec: ModelSpec, workload: Workload) -> int:
    """What the process takes beside the rest; loading the tokenizer is over when the workspace begins to be used."""
    loading = starting_process_bytes(spec) - workspace_bytes(spec, workload)
    return max(loading, running_process_bytes(spec))


def fixed_ram_bytes(spec: ModelSpec, workload: Workload) -> int:
    """What every placement takes of RAM beside its workspace: the process, and a model that drafts."""
    return process_bytes(spec, workload) + workload.draft_model_bytes


def starting_process_bytes(spec: ModelSpec) -> int:
    """What the process takes beside weights and rings while it loads the tokenizer, at the most."""
    return PROCESS_BYTES + TOKENIZER_BYTES_PER_ENTRY * spec.vocab_size


def running_process_bytes(spec: ModelSpec) -> int:
    """What the process takes beside weights, rings, KV cache and workspace while it computes."""
    return PROCESS_BYTES + LOADED_TOKENIZER_BYTES_PER_ENTRY * spec.vocab_size


def passes_host_ring(placement: Placement, unit: UnitSpec) -> bool:
    """Whether a unit goes through the ring in RAM: streamed from disk, or once, on to a GPU or to be rounded."""
    if not unit.tensors or (unit.kind is UnitKind.EMBEDDING and placement.home == DISK):
        return False
    return placement.home == DISK or placement.comes_once


def device_rings(placement: Placement, unit: UnitSpec) -> set[str]:
    """The GPUs through whose ring a unit's bytes go, in a prefill or for a token."""
    used = {placement.device, placement.prefill_device} if unit.tensors else set()
    return {device for device in used if is_gpu(device) and device != placement.home}


def rings(spec: ModelSpec, placements: Sequence[Placement], slots: Slots = DEFAULT_SLOTS) -> tuple[RingSpec, ...]:
    """The rings that a placement needs: at most one in RAM and one on each GPU."""
    by_device: dict[str, int] = {}
    for placement in placements:
        unit = spec.unit(placement.unit)
        through = device_rings(placement, unit) | ({CPU} if passes_host_ring(placement, unit) else set())
        for device in through:
            by_device[device] = max(by_device.get(device, 0), unit.buffer_bytes)
    return tuple(RingSpec(device, slots.on(device), slot_bytes) for device, slot_bytes in sorted(by_device.items()))


def account(
    spec: ModelSpec,
    workload: Workload,
    budget: Budget,
    placements: Sequence[Placement],
    slots: Slots = DEFAULT_SLOTS,
) -> tuple[DeviceMemory, ...]:
    """What the placements take on every device of the budget, against that budget."""
    ring_of = {ring.device: ring for ring in rings(spec, placements, slots)}
    return tuple(
        DeviceMemory(device, budget.on(device), tuple(_lines(device, spec, workload, placements, ring_of.get(device))))
        for device in (CPU, *sorted(budget.vram_bytes))
    )


def _lines(
    device: str, spec: ModelSpec, workload: Workload, placements: Sequence[Placement], ring: RingSpec | None
) -> Iterable[MemoryLine]:
    own = [(spec.unit(placement.unit), placement) for placement in placements]
    resident = [(unit, placement) for unit, placement in own if placement.home == device and unit.tensors]
    computed = [unit for unit, placement in own if placement.device == device]
    visiting = [unit for unit, placement in own if _visits(placement, device)]
    weights = sum(kept_unit(unit, placement.kept).buffer_bytes for unit, placement in resident)
    kv = sum(kv_bytes(unit, workload) for unit in computed)
    if weights:
        yield MemoryLine("weights", weights, f"{len(resident)} of {len(spec.units)} units resident")
    if device == CPU and (copies := [kept_unit(unit, p.substitute) for unit, p in own if p.substitute]):
        detail = f"{len(copies)} units in fewer bits, to draft with"
        yield MemoryLine("substitutes", sum(unit.buffer_bytes for unit in copies), detail)
    if ring:
        yield MemoryLine("weight ring", ring.nbytes, f"{ring.slots} slots x {format_bytes(ring.slot_bytes)}")
    if kv:
        kv_per_token = sum(unit.kv_bytes_per_token for unit in computed)
        yield MemoryLine("KV cache", kv, f"{workload.context_tokens:,} tokens x {format_bytes(kv_per_token)}")
    if visit := visit_bytes(device, spec, workload, placements):
        yield MemoryLine("KV visit", visit, "one layer at a time, in a prefill")
    if device == CPU or computed or visiting:
        yield MemoryLine(
            "workspace", workspace_bytes(spec, workload), f"{workload.prefill_chunk_tokens:,} tokens a pass"
        )
    if device == CPU:
        if formats := sorted({placement.rounded_to for placement in placements if placement.rounded_to}):
            yield MemoryLine("rounding", keeping_bytes(spec), f"to {' and '.join(formats)}, as the weights come in")
        if nbytes := workload.draft_model_bytes:
            yield MemoryLine("draft model", nbytes, "its weights, KV cache and workspace")
        yield MemoryLine("process", process_bytes(spec, workload), "Python, torch, tokenizer")
    elif computed or visiting:
        yield MemoryLine("process", CUDA_CONTEXT_BYTES, "CUDA context and libraries")
