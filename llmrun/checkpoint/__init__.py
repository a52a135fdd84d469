"""A checkpoint on disk as data: configuration and safetensors headers become a ``ModelSpec``; no weight is read."""

from llmrun.checkpoint.files import Files, HeadersOnly
from llmrun.checkpoint.layout import ALIGNMENT, Extent, TensorView, UnitLayout, layout
from llmrun.checkpoint.read import read_spec, spec_from_headers
from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind, UnitSpec

__all__ = [
    "ALIGNMENT",
    "Extent",
    "Files",
    "HeadersOnly",
    "ModelSpec",
    "TensorSpec",
    "TensorView",
    "UnitKind",
    "UnitLayout",
    "UnitSpec",
    "layout",
    "read_spec",
    "spec_from_headers",
]
