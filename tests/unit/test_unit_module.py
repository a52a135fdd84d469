"""The wrappers around the modules of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from llmrun.checkpoint import read_spec
from llmrun.models.skeleton import build_skeleton
from llmrun.models.unit_module import Gate, HeadModule
from llmrun.runtime.sequential import SequentialWeights


class OneMatrix:
    """Weights for a head of width 3 and a vocabulary of 2."""

    @contextmanager
    def acquire(self, unit: str) -> Iterator[dict[str, torch.Tensor]]:
        yield {"head.weight": torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])}

    def rows(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError

    def is_permanent(self, unit: str) -> bool:
        return False

    def device(self, unit: str) -> torch.device:
        return torch.device("cpu")

    only_cpu = True

    def dtype(self, unit):
        return torch.float32


class Recording(nn.Linear):
    """A linear layer that remembers the strides of its last input."""

    strides: tuple[int, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.strides = x.stride()
        return super().forward(x)


def test_the_head_sees_the_last_token_of_a_prompt_as_if_it_stood_alone() -> None:
    inner = Recording(3, 2, bias=False)
    head = HeadModule(inner, "head", {"weight": "head.weight"}, OneMatrix(), Gate())
    prompt = torch.arange(12.0).view(1, 4, 3)
    logits = head(prompt[:, -1:])
    assert logits.tolist() == [[[9.0, 21.0]]]
    assert inner.strides == (3, 3, 1)  # the prompt's are (12, 3, 1): 60 x the time in bf16
    assert head(prompt).tolist() == [[[x, 2 * x + 3] for x in (0.0, 3.0, 6.0, 9.0)]]


def test_what_is_set_later_takes_the_place_of_a_part_that_is_at_hand(tiny_checkpoint):
    spec = read_spec(tiny_checkpoint)
    layer = build_skeleton(spec, SequentialWeights(spec)).model.model.layers[0]
    attention = layer.inner.self_attn
    assert vars(attention)["q_proj"] is attention._modules["q_proj"]
    assert vars(attention.q_proj)["bias"] is None
    assert "weight" not in vars(attention.q_proj)
    other, bias = nn.Linear(3, 2), nn.Parameter(torch.ones(2))
    attention.q_proj = other
    assert attention.q_proj is attention._modules["q_proj"] is other
    attention.k_proj.bias = bias
    assert attention.k_proj.bias is attention.k_proj._parameters["bias"] is bias
