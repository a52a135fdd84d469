"""Models, workloads and budgets of all kinds, for property tests of planners."""

from hypothesis import strategies as st
from tiny_spec import model

from llmrun.planner.memory import CUDA_CONTEXT_BYTES, fixed_ram_bytes, workspace_bytes
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

sizes = st.integers(1, 300).map(lambda n: n * MIB)
unlike_layers = st.lists(sizes, min_size=1, max_size=10)
equal_layers = st.builds(lambda nbytes, count: [nbytes] * count, sizes, st.integers(1, 10))
works = st.builds(
    Workload,
    context_tokens=st.sampled_from([1, 255, 256, 1000, 4096, 32768]),
    prefill_chunk_tokens=st.sampled_from([1, 512]),
    draft_model_bytes=st.sampled_from([0, 100 * MIB]),
)
rams = st.integers(400 * MIB, 5 * GIB)
vrams = st.dictionaries(st.sampled_from(["gpu:0", "gpu:1"]), st.integers(0, 4 * GIB))


@st.composite
def model_of(draw, layers):
    """A model of such layers."""
    kv_bytes = draw(st.sampled_from([0, 1024, 16384]))
    return model(draw(layers), draw(sizes), tied=draw(st.booleans()), kv_bytes_per_token=kv_bytes)


@st.composite
def budgets_for(draw, spec, work, *, lowest=-0.1):
    """Nought to two GPUs; of each memory so much that nothing, a part or all of the model fits."""
    beside = workspace_bytes(spec, work) + spec.kv_bytes_per_token * work.context_tokens
    shares = st.floats(lowest, 1.2).map(lambda share: beside + int(share * spec.nbytes))
    n_gpus = draw(st.sampled_from([0, 0, 1, 2]))
    ram_bytes = fixed_ram_bytes(spec, work) + draw(shares)
    return Budget(ram_bytes, {f"gpu:{k}": CUDA_CONTEXT_BYTES + draw(shares) for k in range(n_gpus)})


@st.composite
def cases(draw, layers, *, lowest=-0.1):
    """A model, a workload and a budget that is tight for it."""
    spec, work = draw(model_of(layers)), draw(works)
    return spec, work, draw(budgets_for(spec, work, lowest=lowest))
