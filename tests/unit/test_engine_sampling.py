import dataclasses
import math
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from llmrun.engine.options import check_options
from llmrun.engine.sampling import Sampler
from llmrun.errors import CheckpointError, UsageError
from llmrun.settings import SamplingSettings

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
PROMPT = [5, 17, 42, 5, 8]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def generate(model, **options):
    """What transformers' own generate says, without the prompt."""
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, **options)
    return out[0, len(PROMPT) :].tolist()


def generate_with(sampler, model):
    answer = []
    with torch.no_grad():
        for _ in range(24):
            logits = model(torch.tensor([PROMPT + answer]), use_cache=False).logits[0, -1]
            answer.append(sampler.next(logits, answer))
    return answer


def draws(sampler, n, logits=LOGITS):
    return [sampler.next(logits, []) for _ in range(n)]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_chooses_what_generate_chooses(model, penalty):
    settings = SamplingSettings(temperature=0, repetition_penalty=penalty)
    expected = generate(model, do_sample=False, repetition_penalty=penalty)
    assert generate_with(Sampler(settings, {}, PROMPT), model) == expected


def test_the_repetition_penalty_changes_the_greedy_answer(model):
    """So that the test above compares something."""
    assert generate(model, do_sample=False) != generate(model, do_sample=False, repetition_penalty=1.3)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 0, "top_p": 0.8},
        {"temperature": 1.6, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
)
def test_sampling_chooses_what_generate_chooses_with_the_same_seed(model, options):
    torch.manual_seed(1234)
    expected = generate(model, do_sample=True, **options)
    assert generate_with(Sampler(SamplingSettings(seed=1234, **options), {}, PROMPT), model) == expected


def test_the_values_of_the_checkpoint_hold_where_the_user_says_nothing(model):
    checkpoint = {"do_sample": True, "temperature": 2, "top_k": 9.0, "top_p": 0.95, "repetition_penalty": 1.1}
    torch.manual_seed(7)
    expected = generate(model, do_sample=True, temperature=2.0, top_k=9, top_p=0.95, repetition_penalty=1.1)
    assert generate_with(Sampler(SamplingSettings(seed=7), checkpoint, PROMPT), model) == expected


def test_the_prompt_may_be_among_the_past_tokens():
    sampler = Sampler(SamplingSettings(temperature=0, repetition_penalty=3.0), {}, [0])
    assert sampler.next(LOGITS, []) == sampler.next(LOGITS, [0]) == 1


@pytest.mark.parametrize(
    ("settings", "checkpoint", "greedy"),
    [
        (SamplingSettings(), {}, True),
        (SamplingSettings(), {"do_sample": False, "temperature": 0.6}, True),
        (SamplingSettings(), {"do_sample": True}, False),
        (SamplingSettings(), {"do_sample": True, "temperature": 0.0}, True),
        (SamplingSettings(temperature=0.6), {}, False),
        (SamplingSettings(temperature=0.6), {"do_sample": False}, False),
        (SamplingSettings(temperature=0), {"do_sample": True, "temperature": 0.6}, True),
    ],
)
def test_temperature_decides_and_otherwise_the_checkpoint(settings, checkpoint, greedy):
    sampler = Sampler(settings, checkpoint, [])
    assert sampler.greedy is greedy
    assert (set(draws(sampler, 200)) == {0}) is greedy


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_of_the_temperature(temperature):
    sampler = Sampler(SamplingSettings(temperature=temperature, top_k=0, seed=11), {}, [])
    n = 4000
    counts = Counter(draws(sampler, n))
    expected = (LOGITS / temperature).softmax(-1).double()
    expected = (expected / expected.sum() * n).tolist()
    assert chisquare([counts[i] for i in range(len(LOGITS))], expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 0}, {0, 1, 2, 3, 4}),  # the last one has a probability of 0.4 % and is not drawn surely
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.6}, {0, 1}),
        ({"min_p": 0.2}, {0, 1, 2}),
        ({"top_k": 3, "min_p": 0.3}, {0, 1}),
        ({"top_k": 1000}, {0, 1, 2, 3, 4}),
    ],
)
def test_only_the_likely_tokens_are_drawn(options, kept):
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=3, **options), {}, [])
    assert set(draws(sampler, 1500)) - {5} == kept


def test_top_k_is_50_where_nobody_says_anything_as_in_transformers():
    logits = torch.linspace(0, 0.1, 64)
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=3), {}, [])
    assert set(draws(sampler, 2000, logits)) == set(range(14, 64))


def test_a_seed_repeats_and_no_seed_does_not():
    def answer(seed):
        return draws(Sampler(SamplingSettings(temperature=1.0, seed=seed), {}, []), 100)

    assert answer(5) == answer(5)
    assert answer(5) != answer(6)
    assert answer(None) != answer(None)


def test_other_random_numbers_of_the_process_change_nothing():
    first = Sampler(SamplingSettings(temperature=1.0, seed=5), {}, [])
    torch.manual_seed(99)
    second = Sampler(SamplingSettings(temperature=1.0, seed=5), {}, [])
    torch.rand(10)
    assert draws(first, 50) == draws(second, 50)


def test_the_logits_stay_as_they_are():
    logits = LOGITS.clone()
    Sampler(SamplingSettings(temperature=0.5, repetition_penalty=1.5, top_k=1), {}, [0, 1]).next(logits, [2])
    assert torch.equal(logits, LOGITS)


def test_logits_in_bfloat16_are_sampled_in_float32():
    # 8 / 1.001 is 8 again in bfloat16: the penalty would be lost.
    logits = torch.tensor([8.0, 8.0], dtype=torch.bfloat16)
    sampler = Sampler(SamplingSettings(temperature=0, repetition_penalty=1.001), {}, [0])
    assert sampler.next(logits, []) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_an_error(temperature):
    sampler = Sampler(SamplingSettings(temperature=temperature), {}, [])
    with pytest.raises(CheckpointError, match="after 2 tokens") as caught:
        sampler.next(torch.tensor([1.0, math.nan]), [4, 4])
    assert caught.value.reference == "bad-logits"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", -0.1, "--temperature is -0.1"),
        ("temperature", math.inf, "--temperature is inf"),
        ("temperature", math.nan, "--temperature is nan"),
        ("top_k", -1, "--top-k is -1"),
        ("top_k", 1.5, "--top-k is 1.5"),
        ("top_p", 0.0, "--top-p is 0.0"),
        ("top_p", 1.01, "--top-p is 1.01"),
        ("min_p", -0.5, "--min-p is -0.5"),
        ("min_p", 1.5, "--min-p is 1.5"),
        ("repetition_penalty", 0.0, "--repetition-penalty is 0.0"),
        ("max_tokens", 0, "--max-tokens is 0"),
        ("seed", -1, "--seed is -1"),
        ("seed", 2**64, "--seed is 18446744073709551616"),
        ("stop", ("\n", ""), '--stop is ""'),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_range(name, value, message):
    settings = dataclasses.replace(SamplingSettings(), **{name: value})
    for refuses in (lambda: check_options(settings), lambda: Sampler(settings, {}, [])):
        with pytest.raises(UsageError) as caught:
            refuses()
        assert caught.value.reference == "bad-option"
        assert caught.value.message == message
        assert caught.value.hint is not None
        assert caught.value.hint.startswith(message.split(" is ")[0] + " is ")


def test_the_limits_themselves_are_valid():
    check_options(SamplingSettings())
    check_options(SamplingSettings(0, 0, 1, 0, 0.001, 0, 1, ("x",)))
    check_options(SamplingSettings(5.0, 100000, 0.001, 1, 10, 2**64 - 1, 10**6))
    Sampler(SamplingSettings(seed=2**64 - 1), {}, [])


@pytest.mark.parametrize(("name", "value"), [("top_p", 2.0), ("temperature", "hot"), ("top_k", True)])
def test_a_bad_value_in_the_checkpoint_is_the_checkpoints_fault(name, value):
    with pytest.raises(CheckpointError, match=name) as caught:
        Sampler(SamplingSettings(), {name: value}, [])
    assert caught.value.reference == "bad-generation-config"
    assert "overrides it" in (caught.value.hint or "")


def test_the_user_overrides_a_bad_value_of_the_checkpoint():
    assert Sampler(SamplingSettings(top_p=0.9), {"top_p": 2.0}, []).greedy


def test_top_p_0_in_a_checkpoint_keeps_the_likeliest_token_as_transformers_does():
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=0), {"top_p": 0}, [])
    assert set(draws(sampler, 50)) == {0}
