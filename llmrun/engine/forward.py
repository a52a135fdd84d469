"""Passes over the model: a prompt in, logits out; a token, or several with a draft, in, logits out.

A prompt of several chunks goes through layer by layer: every chunk through the first layer, then every chunk through
the second. So the chunk bounds the workspace, and the weights are read once for the prompt, not once for a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.models.skeleton import Skeleton
from llmrun.models.unit_module import FIRST_LAYER
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency


class Forward:
    """Runs the wrapped model over tokens and keeps the KV cache in step.

    Memory: the activations of one chunk, and the hidden states of the whole prompt.
    """

    def __init__(
        self, spec: ModelSpec, skeleton: Skeleton, residency: Residency, cache: KVCache, chunk_tokens: int
    ) -> None:
        self._layers = [unit.name for unit in spec.units if unit.kind is UnitKind.LAYER]
        self._skeleton = skeleton
        self._residency = residency
        self._cache = cache
        self._chunk_tokens = chunk_tokens
        self._rest_bound = False

    def prefill(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits ``(V,)`` in fp32 on the CPU after a prompt, or the rest of one; its tokens are then in the cache.

        Raises:
            Interrupted: the run was cancelled.
            LlmrunError: a read failed. In both cases the cache holds what it held before.
        """
        return self._run(tokens, keep=1, prefill=True)[-1]

    def decode(self, token: int) -> torch.Tensor:
        """As ``prefill``, after one more token, with every unit on the device that the plan has for tokens."""
        return self.verify([token])[-1]

    def verify(self, tokens: Sequence[int], sees: torch.Tensor | None = None) -> torch.Tensor:
        """As ``decode``, the logits ``(T, V)`` after each of several tokens, of which there are no more than a chunk.

        All of them are then in the cache; ``KVCache.rewind`` takes back any but the first, ``KVCache.keep`` any others.

        Args:
            sees: of tokens in a tree, which of the last ``R`` each attends to, ``(T, R)``: of these ``T`` and of
                ``R - T`` in the cache before them; each does to all that came earlier, and stands as many places after
                that as it sees tokens of the tree. Only where the cache ``branches``.
        """
        assert len(tokens) <= self._chunk_tokens, "no draft is longer than a chunk"
        return self._run(tokens, keep=len(tokens), prefill=False, sees=sees)

    def _run(
        self, tokens: Sequence[int], *, keep: int, prefill: bool, sees: torch.Tensor | None = None
    ) -> torch.Tensor:
        try:
            self._residency.begin(prefill=prefill)
            self._bind_rest()
            whole = len(tokens) <= self._chunk_tokens
            logits = self._model(tokens, keep, sees) if whole else self._layer_by_layer(tokens)
        except BaseException:
            self._skeleton.gate.open()
            self._cache.rewind(len(self._cache.tokens))
            self._residency.restart()
            raise
        self._cache.append(tokens)
        return logits[0].float().cpu()

    def _model(self, tokens: Sequence[int], keep: int = 1, sees: torch.Tensor | None = None) -> torch.Tensor:
        output = self._skeleton.model(
            input_ids=torch.tensor([tokens]),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
            **({} if sees is None else self._in_tree(sees)),
        )
        logits: torch.Tensor = output.logits
        return logits

    def _in_tree(self, sees: torch.Tensor) -> dict[str, torch.Tensor]:
        """What transformers takes as it is: a mask ``(1, 1, T, S)``, true where a token attends; places ``(1, T)``."""
        assert self._cache.branches, "where a window moves drafts are chains"
        count, in_tree = sees.shape
        if count == 1 and bool(sees.all()):
            return {}  # one after the other, as ever
        before = self._cache.position.tokens + count - in_tree
        mask = torch.cat([sees.new_ones(count, before), sees], dim=1)
        places = before + sees.sum(-1) - 1
        device = self._residency.device(FIRST_LAYER)
        return {"attention_mask": mask[None, None].to(device), "position_ids": places[None].to(device)}

    def _layer_by_layer(self, tokens: Sequence[int]) -> torch.Tensor:
        gate = self._skeleton.gate
        chunks = [tokens[i : i + self._chunk_tokens] for i in range(0, len(tokens), self._chunk_tokens)]
        hidden: list[torch.Tensor | None] = [None] * len(chunks)
        start = self._cache.position.tokens
        for layer in self._layers:
            self._cache.position.tokens = start  # where a layer's cache begins its visit
            with self._residency.hold(layer):
                for index, chunk in enumerate(chunks):
                    self._cache.position.tokens = start + index * self._chunk_tokens
                    gate.only, gate.hidden = layer, hidden[index]
                    self._model(chunk)
                    hidden[index] = gate.hidden
        last = hidden[-1]
        assert last is not None
        gate.only, gate.hidden = "head", last[:, -1:]
        self._cache.position.tokens = start + len(tokens) - 1
        logits = self._model(tokens[-1:])
        gate.open()
        self._cache.position.tokens = start
        return logits

    def _bind_rest(self) -> None:
        if not self._rest_bound:
            if self._skeleton.rest:
                with self._residency.acquire("rest") as weights:
                    self._skeleton.bind_rest(weights)
            self._rest_bound = True
