"""What a decoder layer and a token cost beyond matrices and attention, from small Llama models of transformers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from llmrun.events import Event, LayerDone
from llmrun.hardware.measure_compute import attend, torch_type
from llmrun.hardware.target import Target
from llmrun.hardware.timing import median_s

if TYPE_CHECKING:
    import torch

LAYERS = (2, 6)
STEPS = 2
VOCAB = 1000
SAMPLED_VOCAB = 128_000
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 1024, 2816, 16, 4
CHUNK_TOKENS = 512
LEAST_S = 1e-7
LEAST_ELEMENT_S = 1e-14


@dataclass(frozen=True)
class Overheads:
    """Seconds of a layer and of a token, beyond what grows with weights and context."""

    layer_s: float
    token_s: float


def overheads(target: Target, dtype: str, limit_s: float) -> Overheads:
    """From models of 2 and of 6 layers so thin that only overhead is left: the slope is a layer, the rest a token."""
    import torch

    few, many = (_token_of(target, dtype, n_layers) for n_layers in LAYERS)
    few()  # libraries choose their kernels, the same for more layers
    fews, manies = list[float](), list[float]()
    deadline_s = time.perf_counter() + 0.8 * limit_s
    while not fews or time.perf_counter() < deadline_s:  # in turns, so that both see the same machine
        fews.append(few())
        manies.append(many())
    few_s = median(fews)
    slope_s = max(LEAST_S, (median(manies) - few_s) / (LAYERS[1] - LAYERS[0]))
    wrapper_s = median_s(_wrapper(), 0.05 * limit_s)
    logits = target.numbers(torch.float32, SAMPLED_VOCAB)
    sample_s = median_s(lambda: _sample(logits), 0.15 * limit_s)
    return Overheads(slope_s + wrapper_s, max(LEAST_S, few_s - LAYERS[0] * slope_s) + sample_s)


def _token_of(target: Target, dtype: str, n_layers: int) -> Callable[[], float]:
    """A function that gives the seconds of one of ``STEPS`` tokens of a new conversation."""
    import torch
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(num_hidden_layers=n_layers, vocab_size=VOCAB, attn_implementation="sdpa", **shape)
    model = _as_run(target, LlamaForCausalLM(config).to(target.device).eval(), torch_type(dtype))

    def tokens() -> float:
        cache = DynamicCache(config=config)
        began_s = time.perf_counter()
        for token in range(STEPS):
            ids = torch.tensor([[token]], device=target.device)
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            logits[0, -1].float().cpu()
        return (time.perf_counter() - began_s) / STEPS

    return tokens


def _as_run(target: Target, model: Any, kind: torch.dtype) -> Any:  # noqa: ANN401
    """The model with its weights in a dtype, as the runtime has them on the device."""
    from llmrun.kernels.packed import plain_weight

    weights = {
        name: plain_weight(weight.to(kind), target.states_dtype(kind)) for name, weight in model.named_parameters()
    }
    model.load_state_dict(weights, strict=False, assign=True)
    return model


def _wrapper() -> Callable[[], None]:
    """What the runtime does around a resident layer: ask for the weights, tell that it is done."""
    changed = threading.Condition()
    units: dict[str, dict[str, object]] = {"layer 0": {}}
    events: deque[Event] = deque(maxlen=1)

    @contextmanager
    def acquire(unit: str) -> Iterator[dict[str, object]]:
        yield units[unit]
        with changed:
            events.append(LayerDone(time.monotonic(), unit, "cpu"))
            changed.notify_all()

    def work() -> None:
        with acquire("layer 0"):
            pass

    return work


def _sample(logits: Any) -> int:  # noqa: ANN401
    import torch

    scores = logits.to(torch.float32, copy=True)[None]
    assert not torch.isnan(scores).any()
    return int(torch.multinomial(scores.softmax(-1).cpu(), 1))


def element_seconds(target: Target, dtype: str, limit_s: float) -> float:
    """What norms, rotation, activation and sums of a layer take, a token and element of (hidden + intermediate size).

    A whole layer over 512 tokens, less its matrices and its attention, which are timed alone in the same turns. The
    first turn, in which libraries choose their kernels, counts only where it took all the time.
    """
    whole, matrices, attention = _layer(target, dtype)
    found = list[float]()
    deadline_s = time.perf_counter() + limit_s
    while not found or time.perf_counter() < deadline_s:
        times_s = []
        for work in (whole, matrices, attention):
            began_s = time.perf_counter()
            work()
            target.synchronize()
            times_s.append(time.perf_counter() - began_s)
        found.append(times_s[0] - times_s[1] - times_s[2])
    return max(LEAST_ELEMENT_S, median(found[1:] or found) / CHUNK_TOKENS / (HIDDEN + INTERMEDIATE))


def _layer(target: Target, dtype: str) -> tuple[Callable[[], object], Callable[[], object], Callable[[], object]]:
    """A layer over a chunk of a prompt, its matrices alone, its attention alone."""
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    kind = target.states_dtype(torch_type(dtype))
    shape = {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_attention_heads": HEADS}
    config = LlamaConfig(num_key_value_heads=KV_HEADS, attn_implementation="sdpa", **shape)
    with torch.device("meta"):  # numbers that nobody looks at need no random generator
        empty: Any = LlamaDecoderLayer(config, 0).to(kind).eval()
    layer = empty.to_empty(device=target.device)
    for weight in layer.parameters():
        weight.fill_(0.01)
    layer = _as_run(target, layer, torch_type(dtype))
    states = {size: target.numbers(kind, 1, CHUNK_TOKENS, size) for size in (HIDDEN, INTERMEDIATE)}
    positions = torch.arange(CHUNK_TOKENS, device=target.device)[None]
    angles = LlamaRotaryEmbedding(config).to(target.device)(states[HIDDEN], positions)
    weights = [weight for weight in layer.parameters() if weight.dim() == 2]
    query, keys, values = (
        target.numbers(kind, 1, heads, CHUNK_TOKENS, HIDDEN // HEADS) for heads in (HEADS, KV_HEADS, KV_HEADS)
    )

    def matrices() -> None:
        for weight in weights:
            torch.nn.functional.linear(states[weight.shape[1]], weight)

    return (
        lambda: layer(states[HIDDEN], position_embeddings=angles),
        matrices,
        lambda: attend(query, keys, values, None),
    )
