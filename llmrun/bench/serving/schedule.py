"""When requests arrive, as ``vllm bench serve`` has it."""

from __future__ import annotations

import math
import random
from itertools import accumulate


def arrival_times(count: int, rate: float, burstiness: float, seed: int) -> tuple[float, ...]:
    """Seconds after the start at which ``count`` requests arrive, ``rate`` a second on average.

    The gaps are gamma distributed with shape ``burstiness`` and mean 1 / ``rate``: 1 is a Poisson process, less comes
    in bursts, more is evener, infinity is a fixed pace. They are scaled so that the last request arrives at ``count`` /
    ``rate``, whatever the seed. An infinite rate is all at once.
    """
    if math.isinf(rate):
        return (0.0,) * count
    draw = random.Random(seed)
    even = math.isinf(burstiness)
    gaps = [1.0 if even else draw.gammavariate(burstiness, 1 / burstiness) for _ in range(count)]
    at = list(accumulate(gaps))
    if not at[-1] > 0:  # a burstiness so small that every gap is rounded to nothing
        return (count / rate,) * count
    return tuple(one * count / rate / at[-1] for one in at)
