"""The transformers model of a checkpoint, without its weights.

It is built on the meta device; only buffers that no checkpoint holds (rotary frequencies, embedding scales) are real.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.errors import CheckpointError
from llmrun.kernels.own_modules import use_own_modules
from llmrun.models.attention import use_grouped_attention
from llmrun.models.unit_module import (
    HEAD,
    EmbeddingModule,
    Gate,
    HeadModule,
    LayerModule,
    RestModule,
    UnitModule,
    WeightSource,
    Wrapper,
)


@dataclass(frozen=True)
class Skeleton:
    """A model whose units are wrapped.

    Args:
        model: the transformers model.
        gate: which units of a pass compute.
        rest: parameter name -> name in the checkpoint of what no wrapper brings in.
    """

    model: Any
    gate: Gate
    rest: Mapping[str, str]

    def bind_rest(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Give the model its small resident tensors, by their names in the checkpoint."""
        self.model.load_state_dict({p: weights[n] for p, n in self.rest.items()}, assign=True, strict=False)


def build_skeleton(
    spec: ModelSpec, source: WeightSource, *, trust_remote_code: bool = False, own_modules: bool = True
) -> Skeleton:
    """The model of ``spec``, its units taking their weights from ``source``.

    ``own_modules``: whether those of llmrun, which call no matrix by itself, may stand for some of the model's.

    Raises:
        CheckpointError: ``unsupported-architecture``, where this transformers has no such model or keeps its weights in
            another form than the checkpoint does.
    """
    model = _meta_model(spec, trust_remote_code=trust_remote_code)
    _materialise_buffers(model)
    use_grouped_attention(model)
    if own_modules and source.only_cpu:
        use_own_modules(model)
    gate = Gate()
    parameters = _parameters(spec, model)
    modules = {id(module): path for path, module in model.named_modules()}
    embedding = model.get_input_embeddings()
    embedding.padding_idx = None  # rows are renumbered when only some are read; it matters to training alone
    _replace(model, modules[id(embedding)], EmbeddingModule(embedding, "embedding", {}, source, gate))
    for unit in spec.units:
        if unit.kind is UnitKind.LAYER:
            path = _layer_path(unit, parameters)
            _replace(
                model,
                path,
                LayerModule(model.get_submodule(path), unit.name, _own(unit, path, parameters), source, gate),
            )
    head = model.get_output_embeddings()
    head_names = dict.fromkeys(["weight"], spec.embedding.name) if spec.tied_embeddings else {}
    head_names |= _own(spec.unit(HEAD), modules[id(head)], parameters)
    _replace(model, modules[id(head)], HeadModule(head, HEAD, head_names, source, gate))
    rest = {_wrap_owner(model, parameters[tensor.name], gate): tensor.name for tensor in spec.unit("rest").parameters}
    _keep_at_hand(model)
    return Skeleton(model.eval().requires_grad_(False), gate, rest)


def _meta_model(spec: ModelSpec, *, trust_remote_code: bool) -> Any:  # noqa: ANN401
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(spec.folder, local_files_only=True, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config,
                dtype=torch.float32,  # of the CPU; units on other devices are handed what they compute in
                attn_implementation="sdpa",
                trust_remote_code=trust_remote_code,
            )
    except (ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            "unsupported-architecture",
            f"{spec.folder}: transformers cannot build {spec.architecture} ({spec.model_type}): {first_line}",
            hint="a newer transformers may know it: pip install -U transformers",
        ) from error


def _materialise_buffers(model: Any) -> None:  # noqa: ANN401
    """Compute the buffers that checkpoints do not hold, as transformers itself does after a load on the meta device."""
    for module in model.modules():
        names = [name for name in module._non_persistent_buffers_set if module._buffers.get(name) is not None]
        for name in names:
            module._buffers[name] = torch.empty_like(module._buffers[name], device="cpu")
        if names:
            with torch.no_grad():
                model._init_weights(module)


def _parameters(spec: ModelSpec, model: Any) -> dict[str, str]:  # noqa: ANN401
    """For each tensor of the checkpoint the model's name for it (a base model's checkpoint lacks, or has, a prefix)."""
    known = set(model.state_dict())
    prefix = f"{model.base_model_prefix}."
    matrices = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    paths = {
        unit: path for unit, matrix in matrices.items() for path, module in model.named_modules() if module is matrix
    }
    parameters = {}
    for unit in spec.units:
        for tensor in unit.parameters:
            own = f"{paths.get(unit.name)}.{tensor.name.rpartition('.')[2]}"  # GPT-NeoX's embed_out is its lm_head
            candidates = (tensor.name, prefix + tensor.name, tensor.name.removeprefix(prefix), own)
            name = next((candidate for candidate in candidates if candidate in known), None)
            if name is None:
                raise _foreign(spec, f"{tensor.name} is no parameter of it")
            parameters[tensor.name] = name
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    missing = {name for name, _ in model.named_parameters()} - set(parameters.values()) - tied
    if missing:
        raise _foreign(
            spec, f"the checkpoint lacks {min(missing)}" + (f" and {len(missing) - 1} more" * (len(missing) > 1))
        )
    return parameters


def _foreign(spec: ModelSpec, why: str) -> CheckpointError:
    import transformers

    return CheckpointError(
        "unsupported-architecture",
        f"{spec.folder}: its tensors are not those of {spec.architecture} "
        f"in transformers {transformers.__version__}: {why}",
        hint="transformers may fuse or rename them when it loads; such checkpoints cannot be streamed yet",
    )


def _layer_path(unit: UnitSpec, parameters: Mapping[str, str]) -> str:
    """``model.layers.3`` from the names of the parameters of layer 3."""
    name = parameters[unit.parameters[0].name]
    match = re.match(rf"(.*?\.{unit.layer})\.", name)
    assert match, f"{name} has no layer number {unit.layer}"
    return match[1]


def _own(unit: UnitSpec, path: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """Parameter name within the module at ``path`` -> name in the checkpoint, for the tensors of ``unit``."""
    prefix = f"{path}."
    return {
        parameters[tensor.name].removeprefix(prefix): tensor.name
        for tensor in unit.parameters
        if parameters[tensor.name].startswith(prefix)
    }


def _wrap_owner(model: nn.Module, parameter: str, gate: Gate) -> str:
    """Wrap the module that holds ``parameter``, unless it holds units as well; returns the parameter's new name."""
    path, _, name = parameter.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(owner, RestModule):  # for another of its parameters
        return f"{path}.inner.{name}"
    if any(isinstance(module, UnitModule) for module in owner.modules()):
        return parameter
    _replace(model, path, RestModule(owner, gate))
    return f"{path}.inner.{name}"


def _keep_at_hand(model: nn.Module) -> None:
    """Make the parts of each module, and the biases that it has not, plain attributes as well.

    Else torch looks for them in Python code after all other attributes, which a token does hundreds of times. What is
    set later takes their place (``nn.Module.__setattr__``); parameters that come and go are left out.
    """
    for module in model.modules():
        absent = {name: None for name, parameter in module._parameters.items() if parameter is None}
        vars(module).update(module._modules, **absent)


def _replace(model: nn.Module, path: str, wrapper: Wrapper) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, wrapper)
