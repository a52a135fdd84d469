"""How the next token is chosen from the logits: transformers' own processors, in the order its ``generate`` has them.

Repetition penalty, then, when sampling, temperature, top-k, top-p and min-p: as in transformers'
``GenerationMixin._get_logits_processor``. With the same seed, ``generate`` on a CPU chooses the same tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmrun.engine.options import check_options, violated_range
from llmrun.errors import CheckpointError
from llmrun.settings import SamplingSettings

# What transformers takes where neither the user nor the checkpoint says anything; top_k 50 is its default too.
_DEFAULTS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


class Sampler:
    """Chooses the tokens of one answer.

    Temperature 0 is greedy. Without a temperature the checkpoint decides (``do_sample``; greedy when it does not say).

    Args:
        settings: what the user asks for; ``None`` in it means what the checkpoint says.
        generation_config: the checkpoint's ``generation_config.json``.
        prompt_ids: the prompt, which the repetition penalty counts as said.

    Raises:
        UsageError: ``bad-option``, a setting is out of its range.
        CheckpointError: ``bad-generation-config``, a value of the checkpoint is.
    """

    def __init__(
        self, settings: SamplingSettings, generation_config: Mapping[str, Any], prompt_ids: Sequence[int]
    ) -> None:
        check_options(settings)
        values = _resolve(settings, generation_config)
        samples = generation_config.get("do_sample") is True if settings.temperature is None else True
        self.greedy = not samples or values["temperature"] == 0
        self._processors = _processors(values, greedy=self.greedy)
        self._penalises = values["repetition_penalty"] != 1
        self._prompt_ids = torch.tensor(sorted(set(prompt_ids)), dtype=torch.long)
        self.repeatable = settings.seed is not None
        self._generator = torch.Generator()
        if settings.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(settings.seed)

    def next(self, logits: torch.Tensor, past_ids: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: ``(V,)``, on any device, of any floating dtype; not changed.
            past_ids: the tokens of the answer so far (the prompt may be among them).

        Raises:
            CheckpointError: ``bad-logits``, a logit is not a number.
        """
        scores = self._scores(logits, past_ids)
        # Drawn on the CPU whatever device computes, so that a seed means the same on every placement.
        return int(scores.argmax()) if self.greedy else self.draw(scores.softmax(-1).cpu())

    def probabilities(self, logits: torch.Tensor, past_ids: Sequence[int]) -> torch.Tensor:
        """What ``next`` would draw from, ``(V,)`` in fp32 on the CPU; nothing is drawn.

        Raises:
            CheckpointError: ``bad-logits``.
        """
        scores = self._scores(logits, past_ids)
        if self.greedy:
            return torch.zeros(len(scores)).index_fill(0, scores.argmax().cpu(), 1.0)
        return scores.softmax(-1).cpu()

    def draw(self, weights: torch.Tensor) -> int:
        """A token by weights ``(V,)`` on the CPU, which need not sum to 1."""
        return int(torch.multinomial(weights, 1, generator=self._generator))

    def chance(self) -> float:
        """A number from 0 to 1, 1 excluded."""
        return float(torch.rand((), generator=self._generator))

    def ahead(self) -> Sampler:
        """Another that will draw what this one will, without this one having drawn."""
        other = copy.copy(self)
        other._generator = torch.Generator()
        other._generator.set_state(self._generator.get_state())
        return other

    def leanings(self, logits: torch.Tensor, past_ids: Sequence[int], noise: torch.Tensor) -> torch.Tensor:
        """``(V,)`` in fp32 on the CPU, of which ``next`` takes the greatest where that noise is in its draw.

        Raises:
            CheckpointError: ``bad-logits``.
        """
        return self._scores(logits, past_ids).log_softmax(-1).cpu() + noise

    def noise_ahead(self) -> Callable[[int], torch.Tensor]:
        """Gives, call after call, the noise of the draws that come next, without drawing: for ``V`` tokens ``(V,)``.

        torch draws a token as the argmax of p / e with e from an exponential distribution; this is -log(e). Greedily
        there is none: zeros.
        """
        generator = self.ahead()._generator
        if self.greedy:
            return torch.zeros
        return lambda size: -torch.empty(size).exponential_(generator=generator).log()

    def _scores(self, logits: torch.Tensor, past_ids: Sequence[int]) -> torch.Tensor:
        scores = logits.detach().to(torch.float32, copy=True)[None]
        if self._processors:
            said = self._said(past_ids if self._penalises else ()).to(scores.device)
            scores = self._processors(said, scores)
        if torch.isnan(scores).any():
            raise _bad_logits(len(past_ids))
        return scores[0]

    def _said(self, past_ids: Sequence[int]) -> torch.Tensor:
        """``(1, n)``, for the repetition penalty, which asks only which tokens there are, not where or how often."""
        return torch.cat([self._prompt_ids, torch.tensor(list(past_ids), dtype=torch.long)])[None]


def _resolve(settings: SamplingSettings, generation_config: Mapping[str, Any]) -> dict[str, float]:
    """Each value from the first that has one: the user, the checkpoint, transformers."""
    values = {}
    for name, default in _DEFAULTS.items():
        value = getattr(settings, name)
        if value is None:
            value = _of_checkpoint(name, generation_config, default)
        values[name] = value
    return values


def _of_checkpoint(name: str, generation_config: Mapping[str, Any], default: float) -> float:
    value = generation_config.get(name)
    if value is None:
        return default
    if name == "top_p" and value == 0:  # transformers takes 0, and keeps the likeliest token
        return 0.0
    if words := violated_range(name, value):
        raise CheckpointError(
            "bad-generation-config",
            f"{name} is {value} in the checkpoint's generation_config.json; it has to be {words}",
            hint=f"`--{name.replace('_', '-')} {default}` overrides it",
        )
    return float(value)


def _processors(values: Mapping[str, float], *, greedy: bool) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if values["repetition_penalty"] != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(float(values["repetition_penalty"])))
    if greedy:
        return processors
    if values["temperature"] != 1:
        processors.append(TemperatureLogitsWarper(float(values["temperature"])))
    if values["top_k"] > 0:
        processors.append(TopKLogitsWarper(int(values["top_k"])))
    if values["top_p"] < 1:
        processors.append(TopPLogitsWarper(float(values["top_p"])))
    if values["min_p"] > 0:
        processors.append(MinPLogitsWarper(float(values["min_p"])))
    return processors


def _bad_logits(n_past_tokens: int) -> CheckpointError:
    return CheckpointError(
        "bad-logits",
        f"The model's output is not a number (NaN) after {n_past_tokens} tokens",
        hint="the weights are damaged, or float16 overflows; compare the checkpoint's checksums",
    )
