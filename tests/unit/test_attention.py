"""Attention that transformers' models are given: the last of the tokens in the cache, each to all before it."""

from types import SimpleNamespace

import pytest
import torch
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from llmrun.models.attention import grouped_attention, mask_unless_causal

HEADS, KV_HEADS, DIM, SCALE = 6, 2, 16, 0.3
MODULE = SimpleNamespace(num_key_value_groups=HEADS // KV_HEADS, is_causal=True)


def in_double(query, key, value, seen):
    key, value = (each.double().repeat_interleave(HEADS // KV_HEADS, 1) for each in (key, value))
    scores = query.double() @ key.transpose(2, 3) * SCALE
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernels", "torch"])
@pytest.mark.parametrize(("new", "cached"), [(1, 40), (3, 40), (40, 40), (33, 70)])
def test_without_a_mask_the_new_tokens_are_the_last(dtype, new, cached):
    query = torch.randn(1, new, HEADS, DIM, dtype=dtype).transpose(1, 2)
    key, value = torch.randn(2, 1, KV_HEADS, cached, DIM).half()
    found, _ = grouped_attention(MODULE, query, key, value, None, scaling=SCALE)
    expected = in_double(query, key, value, torch.ones(new, cached, dtype=torch.bool).tril(cached - new))
    assert (found.shape, found.dtype) == ((1, new, HEADS, DIM), dtype)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_mask_is_kept_to():
    query, (key, value) = torch.randn(1, HEADS, 3, DIM), torch.randn(2, 1, KV_HEADS, 9, DIM)
    seen = torch.rand(1, 1, 3, 9) < 0.5
    seen[..., 0] = True
    found, _ = grouped_attention(MODULE, query, key, value, seen, scaling=SCALE)
    torch.testing.assert_close(found.double(), in_double(query, key, value, seen), rtol=1e-4, atol=1e-5)


def test_no_mask_is_made_where_causality_is_all():
    asked = {"batch_size": 1, "q_length": 3, "kv_length": 9, "q_offset": 6, "attention_mask": None}
    assert mask_unless_causal(**asked, mask_function=causal_mask_function) is None
    for other in (
        {"mask_function": sliding_window_causal_mask_function(4), "local_size": 4},
        {"mask_function": causal_mask_function, "allow_is_causal_skip": False},
        {"mask_function": causal_mask_function, "attention_mask": torch.ones(1, 9, dtype=torch.bool)},
    ):
        assert mask_unless_causal(**{**asked, **other}).shape == (1, 1, 3, 9)
