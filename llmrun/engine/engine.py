"""The engine: tokens in, a stream of events out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from llmrun.checkpoint.spec import ModelSpec
from llmrun.engine.generation_config import load_generation_config
from llmrun.engine.loaded import load_model
from llmrun.engine.relay import Relay
from llmrun.engine.request import Request, Script
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.choose import drafters, shape_of
from llmrun.engine.speculation.draft import Drafter
from llmrun.engine.speculation.passes import Speculation, plain_tokens
from llmrun.engine.text_stream import TextStream
from llmrun.engine.tokenizer import ChatTokenizer
from llmrun.errors import UsageError
from llmrun.events import (
    Accepted,
    Event,
    Finished,
    FinishReason,
    LayerDone,
    MemorySample,
    PrefillProgress,
    Token,
)
from llmrun.hardware.process import process_io, process_memory
from llmrun.hardware.speeds import Speeds
from llmrun.planner.plan import CPU, Plan
from llmrun.runtime.accelerator import Accelerator
from llmrun.runtime.host import HostWeights
from llmrun.settings import SPECULATE_AUTO, SamplingSettings, Speculating

SAMPLE_S = 0.25
"""How often memory and bytes are reported."""


@dataclass(frozen=True)
class Beginning:
    """When an engine began to start, and what the process had read from disk by then."""

    at_s: float
    read_bytes: int


@dataclass(frozen=True)
class DraftModel:
    """A model that drafts, and its weights in RAM."""

    spec: ModelSpec
    plan: Plan
    host: HostWeights


class Engine:
    """One model, one KV cache, one generation at a time.

    Memory: the KV cache for the planned context and the activations of a pass; the weights are ``host``'s.

    Args:
        speeds: what was measured of this host, where each request is to be predicted.
        began: when ``host`` began to read; the prediction knows then what this start took.
        speculating: whether and how tokens are drafted.
        draft_model: drafts them, where a model does.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plan: Plan,
        host: HostWeights,
        accelerators: Mapping[str, Accelerator],
        *,
        speeds: Speeds | None = None,
        began: Beginning | None = None,
        speculating: Speculating = SPECULATE_AUTO,
        draft_model: DraftModel | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        folder = Path(spec.folder)
        self.tokenizer = ChatTokenizer.load(folder, trust_remote_code=trust_remote_code)
        self.spec = spec
        self.plan = plan
        self._generation_config = load_generation_config(folder)
        self._relay = Relay()
        self._cancel = threading.Event()
        load = partial(load_model, cancel=self._cancel, trust_remote_code=trust_remote_code)
        model = load(spec, plan, host, accelerators, self._emit)
        self._cache, self._residency, self._forward = model.cache, model.residency, model.forward
        self._draft_model, self._draft_host = None, None
        if draft_model:
            self._draft_host = draft_model.host
            self._draft_model = load(draft_model.spec, draft_model.plan, draft_model.host, {}, _unheard)
        shape = shape_of(speculating, plan)
        self._make_drafter = drafters(speculating, model, self._draft_model, shape)
        self._speculation = Speculation(self._forward, self._cache, shape, self._emit)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._prefill = PrefillProgress(0, 0, 0, 0)
        self._sampled_s = 0.0
        self._loaded = False
        self._expectation = None
        if speeds:
            from llmrun.engine.expectation import Expectation

            ready_s = time.monotonic()
            if began:
                imported_bytes = max(0, (process_io() or 0) - began.read_bytes - host.bytes_read)
                speeds = replace(speeds, startup_s=ready_s - began.at_s, startup_bytes=imported_bytes)
            planned = plan.speculating_as(speculating)
            self._expectation = Expectation(spec, planned, speeds, ready_s, draft_model.spec if draft_model else None)

    def generate(self, prompt: Sequence[int], sampling: SamplingSettings, stream: TextStream) -> Iterator[Event]:
        """The events of one answer to ``prompt``, live; closing the iterator stops the work and waits for its end.

        The KV cache of the last generation is used again as far as the two prompts begin alike.

        Raises:
            UsageError: ``empty-prompt``, or ``prompt-too-long`` for the planned context.
            DeviceError: ``read-failed``; what was generated before stays in the cache.
        """
        accepted_s = time.monotonic()
        self._check(prompt, room_tokens=1)
        sampler = Sampler(sampling, self._generation_config, prompt)
        yield from self._run(
            Request(
                accepted_s,
                tuple(prompt),
                sampler,
                stream,
                most_tokens=sampling.max_tokens,
                room_tokens=self.plan.workload.context_tokens - len(prompt),
                end_token_ids=frozenset() if sampling.ignore_eos else self.tokenizer.end_token_ids,
                drafter=self._drafter(sampler),
            )
        )

    def replay(self, prompt: Sequence[int], following: Sequence[int]) -> Iterator[Event]:
        """As ``generate``, with tokens that are given: nothing is sampled, no text is made, no token ends it.

        Args:
            prompt: read at once, as far as its beginning is not in the KV cache.
            following: taken one by one as if each had been sampled, so ``n`` of them make ``n`` events and
                ``n - 1`` passes; the last is fed to no pass and needs no room in the context.

        Raises:
            UsageError: ``empty-prompt``, or ``prompt-too-long`` where both together do not fit the planned context.
            DeviceError: ``read-failed``.
        """
        accepted_s = time.monotonic()
        self._check(prompt, room_tokens=len(following) - 1)
        yield from self._run(
            Request(
                accepted_s,
                tuple(prompt),
                Script(following),
                TextStream(lambda token_ids: ""),
                most_tokens=len(following),
                room_tokens=len(following),
                end_token_ids=frozenset(),
            )
        )

    def extend(self, prompt: Sequence[int], new_tokens: int) -> Iterator[Event]:
        """As ``replay``, with so many tokens that the model itself finds likeliest; they are drafted, where any are.

        Raises:
            UsageError: as ``replay``.
            DeviceError: ``read-failed``.
        """
        accepted_s = time.monotonic()
        self._check(prompt, room_tokens=new_tokens - 1)
        sampler = Sampler(SamplingSettings(temperature=0, repetition_penalty=1), self._generation_config, prompt)
        yield from self._run(
            Request(
                accepted_s,
                tuple(prompt),
                sampler,
                TextStream(lambda token_ids: ""),
                most_tokens=new_tokens,
                room_tokens=new_tokens,
                end_token_ids=frozenset(),
                drafter=self._drafter(sampler),
            )
        )

    @property
    def guesses(self) -> tuple[int, int]:
        """Of guesses by models so far: how many were right, and how many could have been (``Speculation``)."""
        drafted = self.plan.substitutes or self._draft_model
        return (self._speculation.right, self._speculation.tried) if drafted else (0, 0)

    @property
    def n_threads(self) -> int:
        """Threads that a computation on the CPU takes."""
        return torch.get_num_threads()

    def close(self) -> None:
        """Stop all work; the engine cannot be used again."""
        self._cancel.set()
        self._worker.shutdown()
        self._residency.close()
        if self._draft_model:
            self._draft_model.residency.close()

    def _run(self, request: Request) -> Iterator[Event]:
        self._relay = relay = Relay()
        done = self._worker.submit(self._work, request, relay)
        try:
            yield from relay
            done.result()
        finally:
            self._cancel.set()
            wait([done])
            self._cancel.clear()

    def _check(self, prompt: Sequence[int], *, room_tokens: int) -> None:
        context_tokens = self.plan.workload.context_tokens
        if not prompt:
            raise UsageError("empty-prompt", "the prompt has no tokens")
        if len(prompt) + room_tokens > context_tokens:
            longer = min(len(prompt) + max(256, room_tokens), self.spec.context_tokens)
            raise UsageError(
                "prompt-too-long",
                f"the prompt has {len(prompt):,} tokens, the context holds {context_tokens:,}",
                hint=f"`--context {longer}` makes room for it" if longer > len(prompt) else "shorten the prompt",
            )

    def _drafter(self, sampler: Sampler) -> Drafter | None:
        return self._make_drafter(sampler) if self._make_drafter else None

    def _work(self, request: Request, relay: Relay) -> None:
        try:
            with torch.inference_mode():
                self._answer(request)
        finally:
            relay.end()

    def _answer(self, request: Request) -> None:
        prompt = request.prompt
        reused = self._cache.reuse(prompt)
        accepted = Accepted(request.accepted_s, len(prompt), reused)
        first, self._loaded = not self._loaded, True
        self._emit(accepted)
        self._expect(accepted, request.most_tokens or self.plan.workload.new_tokens, first=first)
        self._prefill = PrefillProgress(request.accepted_s, 0, self.spec.n_layers + 1, len(prompt))
        logits = self._forward.prefill(prompt[reused:])
        self._prefill = PrefillProgress(0, 0, 0, 0)
        reason = self._decode(logits, request)
        self._sample(force=True)
        self._expect(accepted, len(self._cache.tokens) - len(prompt) + 1, first=first)
        self._emit(Finished(time.monotonic(), reason, request.stream.flush()))

    def _decode(self, logits: torch.Tensor, request: Request) -> FinishReason:
        """Token after token, from the logits of the prompt on, until there is a reason to end."""
        count, reason = 0, None
        for token in self._tokens(logits, request):
            count += 1
            self._sample(force=count == 1)
            reason = self._take(token, count, request)
            if reason:
                break
        assert reason, "tokens come without end"
        self._cache.rewind(len(request.prompt) + count - 1)  # of a pass that gave several, some came after the end
        return reason

    def _tokens(self, logits: torch.Tensor, request: Request) -> Iterator[int]:
        if request.drafter:
            wanted, start_s = request.wanted_tokens, self._drafting_start_s(request.prompt)
            return self._speculation.tokens(logits, request.chooser, request.drafter, wanted, start_s)
        return plain_tokens(self._forward, self._cache, logits, request.chooser)

    def _drafting_start_s(self, prompt: Sequence[int]) -> float:
        """What another model takes before its first guess: it comes in and reads the prompt; 0 where none drafts."""
        drafting = self.plan.prediction.drafting if self.plan.prediction else None
        if not (drafting and self._draft_model and self._draft_host):
            return 0.0
        missing_share = max(0.0, 1 - self._draft_host.bytes_read / self._draft_model.spec.nbytes)
        missing_tokens = len(prompt) - self._draft_model.cache.reuse(prompt)
        return missing_share * drafting.load_s + missing_tokens * drafting.prompt_token_s

    def _take(self, token: int, count: int, request: Request) -> FinishReason | None:
        """Tell a token, the ``count``-th of the answer; why it is the last, if it is."""
        if token in request.end_token_ids:
            return FinishReason.STOP
        self._residency.report_bytes()
        self._emit(Token(time.monotonic(), token, request.stream.push(token)))
        if request.stream.stopped:
            return FinishReason.STOP
        if count == request.most_tokens:
            return FinishReason.LENGTH
        return FinishReason.CONTEXT if count >= request.room_tokens else None

    def _expect(self, accepted: Accepted, new_tokens: int, *, first: bool) -> None:
        if self._expectation:
            self._emit(self._expectation.of(accepted, new_tokens, first=first, guesses=self.guesses))

    def _emit(self, event: Event) -> None:
        self._relay.put(event)
        if isinstance(event, LayerDone):
            if self._prefill.total_units and event.unit != "rest":
                done = self._prefill.done_units + 1
                self._prefill = PrefillProgress(
                    event.at_s, done, self._prefill.total_units, self._prefill.prompt_tokens
                )
                self._relay.put(self._prefill)
            self._sample()

    def _sample(self, *, force: bool = False) -> None:
        now_s = time.monotonic()
        if not force and now_s - self._sampled_s < SAMPLE_S:
            return
        self._sampled_s = now_s
        self._residency.report_bytes()
        budget_of = {memory.device: memory.budget_bytes for memory in self.plan.memory}
        process = process_memory()
        self._relay.put(MemorySample(now_s, CPU, process.rss_bytes, process.peak_rss_bytes, budget_of[CPU]))
        for device, (used_bytes, peak_bytes) in self._residency.device_memory().items():
            self._relay.put(MemorySample(now_s, device, used_bytes, peak_bytes, budget_of[device]))


def _unheard(event: Event) -> None:
    """Of a model that drafts nothing is told but what its drafts come to."""
