"""Models that exist only as numbers, and plans as one letter a unit: the planner needs no files and no torch."""

from collections.abc import Sequence

from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind, UnitSpec
from llmrun.planner.plan import Placement
from llmrun.units import MIB

LETTERS = {
    ("cpu", "cpu"): "R",  # resident in RAM
    ("disk", "cpu"): "d",  # streamed from disk
    ("gpu:0", "gpu:0"): "0",  # resident on a GPU
    ("gpu:1", "gpu:1"): "1",
    ("cpu", "gpu:0"): "a",  # streamed from RAM to a GPU
    ("cpu", "gpu:1"): "b",
    ("disk", "gpu:0"): "x",  # streamed from disk to a GPU
    ("disk", "gpu:1"): "y",
}


def letters(placements: Sequence[Placement]) -> str:
    """Embedding, rest, the layers, head."""
    return "".join(LETTERS[placement.home, placement.device] for placement in placements)


def model(
    layer_bytes: Sequence[int],
    head_bytes: int = 40 * MIB,
    *,
    tied: bool = False,
    kv_bytes_per_token: int = 1024,
    windows: Sequence[int | None] = (),
    columns: int = 1,
) -> ModelSpec:
    """A model whose layers have those sizes; embedding and head are as large as each other (one matrix if tied).

    All of a layer is one matrix of two bytes a weight: two FLOPs a weight are as many as it has bytes. ``columns``: of
    the matrices; with a multiple of 32 they can be rounded to blocks of integers.
    """
    head = _tensor("head", head_bytes, columns)
    embedding = head if tied else _tensor("embedding", head_bytes, columns)
    layers = [
        UnitSpec(
            f"layer {n}",
            UnitKind.LAYER,
            n,
            (_tensor(f"layer {n}", nbytes, columns),),
            nbytes,
            kv_bytes_per_token,
            window,
        )
        for n, (nbytes, window) in enumerate(zip(layer_bytes, windows or [None] * len(layer_bytes), strict=True))
    ]
    return ModelSpec(
        name="numbers",
        folder="/nowhere",
        architecture="LlamaForCausalLM",
        model_type="llama",
        dtype="BF16",
        n_layers=len(layers),
        hidden_size=64,
        intermediate_size=256,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        vocab_size=1024,
        context_tokens=32768,
        tied_embeddings=tied,
        embedding=embedding,
        units=(
            UnitSpec("embedding", UnitKind.EMBEDDING, None, () if tied else (embedding,), 0),
            UnitSpec("rest", UnitKind.REST, None, (_tensor("rest", 4096),), 0),
            *layers,
            UnitSpec("head", UnitKind.HEAD, None, (head,), head_bytes),
        ),
    )


def _tensor(name: str, nbytes: int, columns: int = 1) -> TensorSpec:
    """A tensor in a file of its own, from byte 0, so that its buffer is as large as it is, rounded up to a page."""
    matrix = name if columns == 1 else f"{name}.weight"
    return TensorSpec(matrix, f"{name}.safetensors", 0, nbytes, "BF16", (nbytes // 2 // columns, columns))
