"""A checkpoint on disk as data: configuration and safetensors headers become a ``ModelSpec``; no weight is read."""

from llmrun.checkpoint.layout import ALIGNMENT, Extent, TensorView, UnitLayout, layout
from llmrun.checkpoint.read import read_spec
from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind, UnitSpec

__all__ = [
    "ALIGNMENT",
    "Extent",
    "ModelSpec",
    "TensorSpec",
    "TensorView",
    "UnitKind",
    "UnitLayout",
    "UnitSpec",
    "layout",
    "read_spec",
]
