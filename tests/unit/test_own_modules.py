"""Which modules of a model llmrun computes itself, and that they give the same numbers."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from tiny_model import FAMILIES
from torch import nn

from llmrun.kernels.blocks import Room
from llmrun.kernels.cached_attention import CachedAttention
from llmrun.kernels.gated_mlp import GatedMlp
from llmrun.kernels.library import find_library
from llmrun.kernels.own_modules import use_own_modules

pytestmark = pytest.mark.skipif(find_library() is None, reason="the kernels are not built")


def replaced(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    use_own_modules(model)
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(
    ("family", "attention", "mlps"),
    [
        ("llama", 6, 6),
        ("llama-tied", 0, 6),  # a bias after attention
        ("qwen2", 6, 6),
        ("qwen3", 6, 6),
        ("mistral", 6, 6),
        ("gemma3", 0, 0),  # other norms, another gate
        ("phi3", 0, 0),  # matrices that are several in one
        ("gpt-neox", 0, 0),
        ("gpt2", 0, 0),
    ],
)
def test_which_families_are_known(family, attention, mlps):
    model = FAMILIES[family].build().to("meta")
    assert (len(replaced(model, CachedAttention)), len(replaced(model, GatedMlp))) == (attention, mlps)


def test_layers_without_rotary_embeddings_stay_what_they_are():
    config = transformers.SmolLM3Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        pad_token_id=0,
        no_rope_layers=[1, 0, 1, 0],
        layer_types=["full_attention"] * 4,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert [module.layer_idx for module in replaced(model, CachedAttention)] == [0, 2]


class Doubling(nn.Module):
    """As a gated MLP, but for its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(4, 4, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(nn.functional.gelu(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize("module", [Doubling(), nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))])
def test_anything_else_stays_what_it_is(module):
    model = nn.Sequential(module)
    use_own_modules(model)
    assert model[0] is module


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def models(request):
    return FAMILIES[request.param].build(), FAMILIES[request.param].build()


def test_parameters_keep_their_names(models):
    plain, own = models
    assert replaced(own, CachedAttention)
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    others = {name: values * 2 for name, values in plain.state_dict().items()}
    for model in models:
        model.load_state_dict(others, assign=True)
    ids = torch.arange(3)[None]
    with torch.inference_mode():
        torch.testing.assert_close(own(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)


class Rooms:
    """A cache of layers that tell their room; how often they were asked."""

    def __init__(self, kv_heads: int, dim: int) -> None:
        self.memory = torch.zeros(6, 2, 1, kv_heads, 32, dim)
        self.layers = [SimpleNamespace(room=lambda tokens, at=at: self._room(at, tokens)) for at in range(6)]
        self.tokens = self.asked = 0

    def _room(self, layer: int, tokens: int) -> Room:
        self.asked += 1
        return Room(*self.memory[layer], self.tokens)


def test_tokens_go_through_their_layers_one_after_the_other(models):
    plain, own = models
    attention = replaced(own, CachedAttention)
    config = own.config
    rooms = Rooms(config.num_key_value_heads, attention[0].head_dim)
    states = torch.randn(1, 7, config.hidden_size)
    turns = tuple(own.model.rotary_emb(states, torch.arange(7)[None]))
    with torch.inference_mode():
        for layer, module in enumerate(attention):
            original = plain.model.layers[layer].self_attn
            expected, _ = original(
                states,
                position_embeddings=turns,
                attention_mask=None,
            )
            found = []
            for first, end in ((0, 3), (3, 4), (4, 7)):
                rooms.tokens = first
                turned = tuple(each[:, first:end] for each in turns)
                asked = {"position_embeddings": turned, "attention_mask": None, "past_key_values": rooms}
                found.append(module(hidden_states=states[:, first:end].clone(), **asked)[0])
            torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-4, atol=1e-5)
    assert rooms.asked == 3 * len(attention)


def test_with_a_mask_the_original_computes(models):
    plain, own = models
    states, mask = torch.randn(1, 3, own.config.hidden_size), torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    mask[..., 2, 0] = False
    module, original = replaced(own, CachedAttention)[0], plain.model.layers[0].self_attn
    turns = own.model.rotary_emb(states, torch.arange(3)[None])
    asked = {"position_embeddings": turns, "attention_mask": mask, "past_key_values": None}
    with torch.inference_mode():
        found, expected = (each(hidden_states=states, **asked)[0] for each in (module, original))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
