"""How others lay integers into int32, taken apart: pure functions of tensors, one module for each way."""

from llmrun.quantize.layouts.unpacked import Unpacked, unpacker

__all__ = ["Unpacked", "unpacker"]
