"""Models, workloads and budgets of all kinds, for property tests of planners."""

from hypothesis import strategies as st
from tiny_spec import model

from llmrun.settings import Workload
from llmrun.units import GIB, MIB

sizes = st.integers(1, 300).map(lambda n: n * MIB)
unlike_layers = st.lists(sizes, min_size=1, max_size=10)
equal_layers = st.builds(lambda nbytes, count: [nbytes] * count, sizes, st.integers(1, 10))
works = st.builds(
    Workload,
    context_tokens=st.sampled_from([1, 255, 256, 1000, 4096, 32768]),
    prefill_chunk_tokens=st.sampled_from([1, 512]),
)
rams = st.integers(400 * MIB, 5 * GIB)
vrams = st.dictionaries(st.sampled_from(["gpu:0", "gpu:1"]), st.integers(0, 4 * GIB))


@st.composite
def model_of(draw, layers):
    """A model of such layers."""
    kv_bytes = draw(st.sampled_from([0, 1024, 16384]))
    return model(draw(layers), draw(sizes), tied=draw(st.booleans()), kv_bytes_per_token=kv_bytes)
