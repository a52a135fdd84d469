"""What a run will in fact have taken at its peak: the account, less what a request of that length leaves untouched.

The figure is that of the resident set at its peak (VmHWM), pages of mapped files included, which is what ``--ram``
promises to bound and what a run reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmrun.checkpoint.spec import ModelSpec, UnitSpec
from llmrun.planner.memory import (
    STATE_BYTES,
    account,
    kv_bytes,
    kv_capacity_tokens,
    pass_bytes,
    process_bytes,
    running_process_bytes,
    starting_process_bytes,
    workspace_bytes,
)
from llmrun.planner.plan import CPU, DEFAULT_SLOTS, Placement, Slots, is_gpu
from llmrun.settings import Budget, Workload

PAGE_BYTES = 4096


def peak_bytes(
    spec: ModelSpec, workload: Workload, placements: Sequence[Placement], slots: Slots = DEFAULT_SLOTS
) -> dict[str, int]:
    """Bytes on each device at the peak of a request of the workload's length; never more than the account has.

    Weights and rings are all read, so they count in full, and so does all that is allocated on a GPU. In RAM the KV
    cache takes the pages that tokens were written to, the workspace is that of the longest pass in fact made; the peak
    of a short request is in the start, while the tokenizer is loaded.
    """
    gpus = {device for p in placements for device in (p.device, p.prefill_device) if is_gpu(device)}
    reserved = account(spec, workload, Budget(0, dict.fromkeys(gpus, 0)), placements, slots)
    workspace, request = workspace_bytes(spec, workload), request_bytes(spec, workload)
    peak = {memory.device: memory.nbytes - workspace + request for memory in reserved}
    in_ram = [spec.unit(p.unit) for p in placements if p.device == CPU]
    held = sum(kv_bytes(unit, workload) for unit in in_ram) + request + process_bytes(spec, workload)
    touched = sum(touched_kv_bytes(spec, unit, workload) for unit in in_ram)
    computing = touched + request + running_process_bytes(spec)
    peak[CPU] += max(starting_process_bytes(spec), computing) - held
    return peak


def request_bytes(spec: ModelSpec, workload: Workload) -> int:
    """Activations of the largest pass of a request: its last chunk, beside the hidden states of a prompt of several."""
    seen_tokens = min(workload.past_tokens + workload.prompt_tokens, workload.context_tokens)
    prompt_tokens = min(workload.prompt_tokens, workload.context_tokens)
    tokens = min(workload.prefill_chunk_tokens, prompt_tokens)
    states = prompt_tokens * workload.batch * spec.hidden_size * STATE_BYTES
    largest = pass_bytes(spec, tokens, seen_tokens, workload.batch, masked=1 < tokens < seen_tokens)
    return largest + (states if prompt_tokens > tokens else 0)


def touched_kv_bytes(spec: ModelSpec, unit: UnitSpec, workload: Workload) -> int:
    """The pages of a layer's KV cache that a request writes to: for every head the tokens lie at a place of their own.

    The last new token is never fed back. A window that has moved on has written to all of its memory.
    """
    asked_tokens = workload.past_tokens + workload.prompt_tokens + workload.new_tokens - 1
    tokens = min(asked_tokens, kv_capacity_tokens(unit, workload))
    n_heads = max(1, 2 * spec.n_kv_heads * workload.batch)
    head_bytes = -(-unit.kv_bytes_per_token * workload.batch * tokens // n_heads)
    pages = -(-head_bytes // PAGE_BYTES) + 1  # a head begins anywhere within a page
    return min(kv_bytes(unit, workload), n_heads * pages * PAGE_BYTES if head_bytes else 0)
