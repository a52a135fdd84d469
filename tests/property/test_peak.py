"""What a request takes at its peak, against what is reserved."""

from dataclasses import replace
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner import memory
from llmrun.planner.memory import account, process_bytes, running_process_bytes, starting_process_bytes, workspace_bytes
from llmrun.planner.peak import PAGE_BYTES, peak_bytes, request_bytes, touched_kv_bytes
from llmrun.planner.plan import CPU, Placement, Slots, is_gpu
from llmrun.settings import Budget, Workload
from llmrun.units import MIB
from tests.tiny_spec import LETTERS, model

GPUS = {"gpu:0": 0, "gpu:1": 0}
KV_BYTES_PER_TOKEN = 1024


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    layers = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    windows = [draw(st.none() | st.integers(1, 3000)) for _ in layers]
    spec = model([n * MIB for n in layers], windows=windows, kv_bytes_per_token=KV_BYTES_PER_TOKEN)
    n_kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    return replace(
        spec,
        hidden_size=draw(st.sampled_from([64, 576, 4096])),
        intermediate_size=draw(st.sampled_from([128, 1536, 60000])),
        n_kv_heads=n_kv_heads,
        n_heads=n_kv_heads * draw(st.integers(1, 8)),
        head_dim=draw(st.sampled_from([16, 128])),
        vocab_size=draw(st.integers(100, 260_000)),
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    context = draw(st.integers(8, 5000))
    past = draw(st.integers(0, context - 4))
    prompt = draw(st.integers(1, context - past - 2))
    new = draw(st.integers(1, context - past - prompt))
    chunk = draw(st.sampled_from([1, 7, 128, 512, 8192]))
    draft_model_bytes = draw(st.sampled_from([0, 300 * MIB]))
    return Workload(context, past, prompt, new, draw(st.integers(1, 3)), chunk, draft_model_bytes=draft_model_bytes)


@st.composite
def placed(draw: st.DrawFn, spec: ModelSpec) -> tuple[Placement, ...]:
    pairs = st.sampled_from(list(LETTERS))
    prompt_devices = st.none() | st.sampled_from([CPU, *GPUS])
    return tuple(Placement(unit.name, *draw(pairs), draw(prompt_devices)) for unit in spec.units)


@given(st.data())
def test_a_request_takes_no_more_than_is_reserved(data: st.DataObject) -> None:
    spec, work = data.draw(specs()), data.draw(workloads())
    placements, slots = data.draw(placed(spec)), Slots(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)))
    reserved = {one.device: one for one in account(spec, work, Budget(0, GPUS), placements, slots)}
    peak = peak_bytes(spec, work, placements, slots)
    used = {device for p in placements for device in (p.device, p.prefill_device) if is_gpu(device)}
    assert set(peak) == {CPU, *used}
    for device, nbytes in peak.items():
        steady = sum(line.nbytes for line in reserved[device].lines if line.label in ("weights", "weight ring"))
        assert steady < nbytes <= reserved[device].nbytes


@given(specs(), workloads())
def test_in_ram_weights_and_rings_count_in_full_and_the_rest_as_far_as_it_is_used(
    spec: ModelSpec, work: Workload
) -> None:
    placements = tuple(Placement(unit.name, ("cpu", "disk")[index % 2], CPU) for index, unit in enumerate(spec.units))
    lines = {line.label: line.nbytes for line in account(spec, work, Budget(0), placements)[0].lines}
    used = sum(touched_kv_bytes(spec, unit, work) for unit in spec.units) + request_bytes(spec, work)
    took = max(starting_process_bytes(spec), used + running_process_bytes(spec)) + work.draft_model_bytes
    assert peak_bytes(spec, work, placements) == {CPU: lines["weights"] + lines["weight ring"] + took}
    assert lines["workspace"] == workspace_bytes(spec, work) >= request_bytes(spec, work)
    assert lines["process"] == process_bytes(spec, work) >= running_process_bytes(spec)


@given(st.data(), st.sampled_from([0, 1 << 60]))
def test_longer_requests_take_no_less(data: st.DataObject, kept_bytes: int) -> None:
    """With a heap that keeps every activation from step to step, or none.

    With a real one a longer prompt may take less: pieces that were kept are then too large for that.
    """
    spec, work = data.draw(specs()), data.draw(workloads())
    placements = data.draw(placed(spec))
    room = work.context_tokens - work.past_tokens - work.prompt_tokens - work.new_tokens
    more = data.draw(st.integers(0, room))
    with patch.object(memory, "KEPT_BYTES", kept_bytes):
        shorter = peak_bytes(spec, work, placements)
        for field in ("past_tokens", "prompt_tokens", "new_tokens"):
            asked = replace(work, **{field: getattr(work, field) + more})
            longer = peak_bytes(spec, asked, placements)
            assert all(longer[device] >= nbytes for device, nbytes in shorter.items()), field


@given(st.data())
def test_more_new_tokens_take_no_less(data: st.DataObject) -> None:
    spec, work = data.draw(specs()), data.draw(workloads())
    placements = data.draw(placed(spec))
    room = work.context_tokens - work.past_tokens - work.prompt_tokens - work.new_tokens
    longer = peak_bytes(spec, replace(work, new_tokens=work.new_tokens + data.draw(st.integers(0, room))), placements)
    assert all(longer[device] >= nbytes for device, nbytes in peak_bytes(spec, work, placements).items())


def test_each_head_has_its_tokens_at_a_place_of_its_own() -> None:
    spec = replace(model([MIB], kv_bytes_per_token=KV_BYTES_PER_TOKEN), n_kv_heads=4)
    layer = spec.unit("layer 0")
    work = Workload(context_tokens=4096, prompt_tokens=33, new_tokens=1)  # a row of a head has 1024 / 8 = 128 bytes
    assert touched_kv_bytes(spec, layer, work) == 8 * (2 + 1) * PAGE_BYTES  # 33 rows end on a second page
    assert touched_kv_bytes(spec, layer, replace(work, prompt_tokens=32)) == 8 * (1 + 1) * PAGE_BYTES
    assert touched_kv_bytes(spec, layer, replace(work, new_tokens=9000)) == 4096 * 1024  # no more than there is


def test_a_prompt_whose_keys_the_heap_just_keeps_is_within_the_account():
    spec = replace(model([1 << 20]), n_heads=8, n_kv_heads=2, head_dim=128)
    for context_tokens in range(2600, 3000, 7):  # 2,731 tokens of three sequences are 32 MiB
        work = Workload(context_tokens, 0, 1485, 1, 3, prefill_chunk_tokens=7)
        shorter = replace(work, prompt_tokens=min(2730, context_tokens - 1))
        assert workspace_bytes(spec, work) >= max(request_bytes(spec, work), request_bytes(spec, shorter))
