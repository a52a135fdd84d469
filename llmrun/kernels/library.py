"""The kernels' shared library through ctypes: its functions with the types that `src/llmrun.h` gives them."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_float, c_int, c_long, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ABI = 7
"""What `llmrun_abi` says if the library was built from the header that this module follows."""


class Matrix(ctypes.Structure):
    """`llmrun_matrix`: rows of packed weights; `format` is `WeightFormat.number`, what is not given 0."""

    _fields_ = (
        ("format", c_int),
        ("rows", c_long),
        ("columns", c_long),
        ("data", c_void_p),
        ("row_bytes", c_long),
        ("scales", c_void_p),
        ("block_rows", c_long),
        ("block_columns", c_long),
    )


_CACHE_FIELDS = (
    ("keys", c_void_p),
    ("values", c_void_p),
    ("key_head", c_long),
    ("key_token", c_long),
    ("value_head", c_long),
    ("value_token", c_long),
)
"""Keys and values of a layer, as both structures have them."""


class AttentionJob(ctypes.Structure):
    """`llmrun_attention_job`: strides in elements, `window` and `softcap` 0 for none."""

    _fields_ = (
        ("format", c_int),
        ("kv_heads", c_long),
        ("group", c_long),
        ("queries", c_long),
        ("tokens", c_long),
        ("head_dim", c_long),
        ("query", c_void_p),
        ("query_head", c_long),
        ("query_token", c_long),
        *_CACHE_FIELDS,
        ("window", c_long),
        ("scale", c_float),
        ("softcap", c_float),
        ("out", c_void_p),
        ("out_head", c_long),
        ("out_token", c_long),
    )


class GatedMlpJob(ctypes.Structure):
    """`llmrun_gated_mlp`: addresses of matrices."""

    _fields_ = (("gate", c_void_p), ("up", c_void_p), ("down", c_void_p), ("fine", c_int))


class AttentionBlock(ctypes.Structure):
    """`llmrun_attention_block`: addresses of matrices and of fp32 vectors, 0 for none; strides in elements."""

    _fields_ = (
        ("query", c_void_p),
        ("key", c_void_p),
        ("value", c_void_p),
        ("out", c_void_p),
        ("query_bias", c_void_p),
        ("key_bias", c_void_p),
        ("value_bias", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("epsilon", c_float),
        ("fine", c_int),
        ("query_paired", c_int),
        ("key_paired", c_int),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("format", c_int),
        ("kv_heads", c_long),
        ("head_dim", c_long),
        ("past", c_long),
        *_CACHE_FIELDS,
        ("scale", c_float),
    )


SIGNATURES = {  # name: what it returns, what it takes
    "llmrun_abi": (c_int, []),
    "llmrun_variant": (c_char_p, []),
    "llmrun_supports": (c_int, [c_int]),
    "llmrun_pool_new": (c_void_p, [c_int]),
    "llmrun_pool_free": (None, [c_void_p]),
    "llmrun_pool_threads": (c_int, [c_void_p]),
    "llmrun_linear": (c_int, [c_void_p, c_void_p, c_void_p, c_long, c_void_p]),  # an address costs less than a pointer
    "llmrun_linear_fine": (c_int, [c_void_p, c_void_p, c_void_p, c_long, c_void_p]),
    "llmrun_floats": (c_int, [c_void_p, POINTER(Matrix), c_void_p]),
    "llmrun_dequantise": (c_int, [c_int, c_void_p, c_long, c_void_p]),
    "llmrun_round": (c_int, [c_void_p, POINTER(Matrix), c_int, c_void_p, c_void_p]),
    "llmrun_attention": (c_int, [c_void_p, POINTER(AttentionJob)]),
    "llmrun_rms_norm": (c_int, [c_void_p, c_void_p, c_void_p, c_long, c_long, c_float, c_void_p]),
    "llmrun_mlp": (c_int, [c_void_p, POINTER(GatedMlpJob), c_void_p, c_long, c_void_p]),
    "llmrun_attend": (c_int, [c_void_p, POINTER(AttentionBlock), c_void_p, c_long, c_void_p]),
}


class Library:
    """One loaded library. `functions` has its C functions, which take addresses and check no memory.

    Args:
        path: of the shared library.

    Raises:
        OSError: it cannot be loaded.
        ValueError: it is none of ours, or built from another version of the header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.functions = ctypes.CDLL(str(path))
        try:
            for name, (returned, taken) in SIGNATURES.items():
                function = getattr(self.functions, name)
                function.restype, function.argtypes = returned, taken
        except AttributeError as error:
            raise ValueError(f"{path} has no kernels: {error}") from error
        if self.functions.llmrun_abi() != ABI:
            raise ValueError(f"{path} was built from another version of llmrun: build it again")

    @property
    def variant(self) -> str:
        """The instruction set that was picked: `avx512`, `avx2`, `neon` or `portable`."""
        name: bytes = self.functions.llmrun_variant()
        return name.decode()


def chosen_library() -> Library | None:
    """The library that products are computed with; ``None``: by torch, as LLMRUN_KERNELS=torch asks for."""
    return None if os.environ.get("LLMRUN_KERNELS") == "torch" else find_library()


def kernels_variant() -> str:
    """The instruction set of the kernels that are used, `torch` where there are none."""
    library = chosen_library()
    return library.variant if library else "torch"


def find_library(folder: Path | None = None) -> Library | None:
    """The library that was built with this package (in `folder`), or `None`: there is none, or none that fits."""
    folder = folder or Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        path = folder / f"_llmrun{suffix}"
        if path.exists():
            try:
                return Library(path)
            except (OSError, ValueError):
                continue
    return None
