"""One line of a benchmark: what was run, on what, and what came out; llama-bench's field names where it has one.

``avg`` is the mean and ``stddev`` the sample deviation of the samples; a rate is tokens over seconds of one sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev

from llmrun.bench.case import Case

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """A measured case. ``None`` is a figure that there is none of: a TPOT without decoded tokens, VRAM without a GPU.

    Attributes:
        model_filename: the folder of the checkpoint.
        model_type: architecture, size, formats and quality, as in ``llama 135M BF16, q4 in RAM, quality balanced``.
        model_size: bytes of weights.
        n_ctx: the context that the plan reserves.
        test_time: when it began, ISO 8601 in UTC.
        samples_ns: wall time of each repetition.
        ttft_ms: request accepted to first token, the median of the repetitions.
        tpot_ms: time per output token after the first, the median of the repetitions.
        itl_ms: the median of all gaps between two tokens; ``itl_p99_ms`` their 99th percentile.
        ceiling_ts: what the measured bandwidths allow.
        mbu: achieved share of the memory bandwidth that decoding asks of the slowest tier, 0 to 1.
        predicted_ts: what the plan says.
        disk_bytes_per_token: read from disk for each token of the case.
        stall_share: of the time, in which the computation waited for weights, 0 to 1.
        ram_peak_bytes: of the process; the budget beside it.
        cache_state: ``cold``, the weights came from the disk within the sample, or ``warm``.
        plan_id: the fingerprint of the plan.
        sweep: the value of the swept option, as given.
        tokens_per_pass: with speculation, tokens that a pass over the model gave; ``draft_acceptance`` the share of the
            drafted tokens that were right, 0 to 1.
    """

    model_filename: str
    model_type: str
    model_size: int
    model_n_params: int
    cpu_info: str
    gpu_info: str
    n_threads: int
    n_ctx: int
    n_prompt: int
    n_gen: int
    n_depth: int
    test_time: str
    samples_ns: tuple[int, ...]
    ttft_ms: float | None
    tpot_ms: float | None
    itl_ms: float | None
    itl_p99_ms: float | None
    ceiling_ts: float | None
    mbu: float | None
    predicted_ts: float | None
    disk_bytes_per_token: float
    stall_share: float | None
    ram_peak_bytes: int
    ram_budget_bytes: int
    vram_peak_bytes: int | None
    vram_budget_bytes: int | None
    cache_state: str
    plan_id: str
    planner: str
    seed: int
    llmrun_version: str
    sweep: str | None = None
    tokens_per_pass: float | None = None
    draft_acceptance: float | None = None

    @property
    def case(self) -> Case:
        """What was measured."""
        return Case(self.n_prompt, self.n_gen, self.n_depth)

    @property
    def samples_ts(self) -> tuple[float, ...]:
        """Tokens a second of each repetition."""
        return tuple(self.case.n_tokens * 1e9 / sample_ns for sample_ns in self.samples_ns)

    @property
    def avg_ns(self) -> float:
        """Mean wall time."""
        return mean(self.samples_ns)

    @property
    def stddev_ns(self) -> float:
        """Sample deviation of the wall time; 0 of one sample."""
        return stdev(self.samples_ns) if len(self.samples_ns) > 1 else 0.0

    @property
    def avg_ts(self) -> float:
        """Mean rate."""
        return mean(self.samples_ts)

    @property
    def stddev_ts(self) -> float:
        """Sample deviation of the rate; 0 of one sample."""
        return stdev(self.samples_ts) if len(self.samples_ts) > 1 else 0.0
