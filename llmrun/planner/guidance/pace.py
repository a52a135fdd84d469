"""Counts made a sequence by the clock: what is streamed takes its turns at even times, not at even distances.

Stages differ in how long they compute; a link that is to be busy all the time needs its stages spaced by seconds. Each
channel (the disk, a GPU's link) has its next turn when the share of its work that is done falls behind the share of the
pass that is over; between turns come the stages that nothing moves for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.simulation.cost import NO_LINK, Cost

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def paced_codes(cost: Cost, of_stage: Ints, counts: Ints, offset: float) -> Ints:
    """A row of codes ``(n,)`` with so many stages of each class ``(K, C)``; ``offset``: of the first turns, 0 to 1."""
    pace = _Pace(cost, of_stage, counts, offset)
    return np.array([pace.next_code(stage) for stage in range(len(of_stage))])


@dataclass
class _Pace:
    cost: Cost
    of_stage: Ints
    counts: Ints
    offset: float
    now_s: float = 0.0
    left: Ints = field(init=False)
    done_s: Floats = field(init=False)  # of each channel's work
    total_s: Floats = field(init=False)
    period_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.counts.copy()
        first = np.array([np.flatnonzero(self.of_stage == number)[0] for number in range(len(self.counts))])
        on = self._channel[None, :] == np.arange(self.cost.n_gpus + 1)[:, None]
        self.total_s = on @ (self.counts * self._move_s[first]).sum(axis=0)
        self.done_s = np.zeros(len(self.total_s))
        chain_s = float((self.counts * self.cost.decode.compute_s[first]).sum()) + self.cost.token_s
        self.period_s = max(chain_s, float(self.total_s.max()))

    @cached_property
    def _channel(self) -> Ints:
        """``(C,)``: the disk 0, links from 1 on, -1 where nothing moves for a token."""
        return np.where(
            self.cost.streamed, 0, np.where(self.cost.decode.link == NO_LINK, -1, self.cost.decode.link + 1)
        )

    @cached_property
    def _move_s(self) -> Floats:
        """``(n, C)``."""
        moved: Floats = np.where(self.cost.streamed, self.cost.read_s[:, None], self.cost.decode.copy_s)
        return moved

    def next_code(self, stage: int) -> int:
        """What the next stage chooses."""
        number = self.of_stage[stage]
        code = self._choose(self.left[number], stage)
        self.left[number, code] -= 1
        channel = self._channel[code]
        if channel >= 0:
            self.now_s = max(self.now_s, self.period_s * self._share_done(channel))
            self.done_s[channel] += self._move_s[stage, code]
        self.now_s += float(self.cost.decode.compute_s[stage, code])
        return code

    def _choose(self, left: Ints, stage: int) -> int:
        """The channel that is most behind, if any is; else the stage stays, as what is most often left."""
        open_ = np.flatnonzero(left)
        moving = [code for code in open_ if self._channel[code] >= 0]
        staying = [code for code in open_ if self._channel[code] < 0]
        due_s = {c: self.period_s * self._share_due(self._channel[c], self._move_s[stage, c]) for c in moving}
        if moving and (not staying or min(due_s.values()) <= self.now_s):
            return int(min(moving, key=lambda code: (due_s[code], -left[code])))
        return int(max(staying, key=lambda code: left[code]))

    def _share_done(self, channel: int) -> float:
        return float(self.done_s[channel] / self.total_s[channel]) if self.total_s[channel] else 0.0

    def _share_due(self, channel: int, move_s: float) -> float:
        total_s = self.total_s[channel]
        return float((self.done_s[channel] + self.offset * move_s) / total_s) if total_s else 0.0
