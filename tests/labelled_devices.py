"""GPUs that a test can see: tensors that carry the label of a device and hold their numbers in RAM.

The emulated accelerator's tensors are the CPU's, so a tensor left on the wrong device would go unnoticed. These are
refused by any operation whose operands lie on several devices, as CUDA refuses them; only copies cross over. The label
is ``meta`` with an index, which torch knows on every machine and nothing else uses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from llmrun.runtime.accelerator import EmulatedAccelerator, Event

CPU = torch.device("cpu")
_COPY = torch.ops.aten.copy_.default
_CASTS = ("aten::to", "aten::_to_copy")


class LabelledTensor(torch.Tensor):
    """``data`` with ``device`` written on it."""

    @staticmethod
    def __new__(cls, data: torch.Tensor, device: torch.device) -> LabelledTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=device,
        )
        tensor.in_ram = data
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class LabelledDevices(TorchDispatchMode):
    """While it is entered, tensors can be made on labelled devices.

    In place of inference mode, in which torch lets no subclass of a tensor be made.
    """

    def __enter__(self) -> Any:
        self._no_grad = torch.no_grad()
        self._no_grad.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._no_grad.__exit__(*error)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


def label(device: str) -> torch.device:
    """The label of ``gpu:0`` and so on; the CPU needs none."""
    return CPU if device == "cpu" else torch.device("meta", int(device.removeprefix("gpu:")))


class LabelledAccelerator(EmulatedAccelerator):
    """The emulated GPU with its label on all that it holds."""

    def __init__(self, budget_bytes: int, name: str) -> None:
        super().__init__(budget_bytes)
        self.device = label(name)

    def allocate(self, nbytes: int) -> torch.Tensor:
        return LabelledTensor(super().allocate(nbytes), self.device)

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Event) -> Event:
        assert isinstance(target, LabelledTensor)
        super().copy(target.in_ram, source, after)


def _run(operation: Any, args: Any, kwargs: Any) -> Any:
    values = list(tree_iter((args, kwargs)))
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    wanted = next((value for value in values if isinstance(value, torch.device)), None)
    if operation is _COPY:
        device = args[0].device
    elif operation.name().split(".")[0] in _CASTS:
        device = wanted or args[0].device
        if device == CPU != args[0].device and kwargs.get("non_blocking"):
            raise RuntimeError(f"{operation}: the CPU may use it before it has come")
    else:
        device = _common_device(operation, tensors, wanted)
    plain_args, plain_kwargs = tree_map(_in_ram, args), tree_map(_in_ram, kwargs)
    own = {id(_in_ram(tensor)): tensor for tensor in tensors}
    return tree_map(lambda result: _labelled(result, device, own), operation(*plain_args, **plain_kwargs))


def _common_device(operation: Any, tensors: list[torch.Tensor], wanted: torch.device | None) -> torch.device:
    """The one that all operands are on; a CPU scalar may meet any, as with CUDA."""
    devices = {tensor.device for tensor in tensors if tensor.dim() or tensor.device != CPU}
    if len(devices) > 1:
        raise RuntimeError(f"{operation}: operands on {sorted(map(str, devices))}")
    return wanted or next(iter(devices), CPU)


def _in_ram(value: Any) -> Any:
    if isinstance(value, torch.device):
        return CPU
    return value.in_ram if isinstance(value, LabelledTensor) else value


def _labelled(result: Any, device: torch.device, own: dict[int, torch.Tensor]) -> Any:
    if not isinstance(result, torch.Tensor):
        return result
    if id(result) in own:
        tensor = own[id(result)]
        if tensor.device == device:
            return tensor  # in place, or nothing to do
        result = result.clone()
    return LabelledTensor(result, device) if device != CPU else result
