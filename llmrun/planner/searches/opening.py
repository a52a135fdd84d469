"""Where the ants begin: the relaxed plans in all arrangements, the most promising of them improved in a tournament."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, join
from llmrun.planner.guidance.guide import Guide
from llmrun.planner.searches.local_search import LocalSearch, Place
from llmrun.planner.searches.search import Search

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHARE = 4  # one part in so many of what may be simulated is for the relaxed plans as they are
WHOLE = 5  # frames that are solved in whole stages
STARTS = 4  # frames from whose plans the local search starts


@dataclass(frozen=True)
class Opening:
    """What a search begins with, given the guide and a local search."""

    guide: Guide
    local: LocalSearch

    def places(self, search: Search) -> list[Place]:
        """Good places, the best first; what the search knows already is one of them."""
        seeds, frames = self._seeds(search)
        seconds = search.weigh(seeds, max(1, search.left // SHARE), below_s=np.inf)
        known = int(frames[int(np.argmin(seconds))])
        starts = [Place(search.best, search.best_s, known)] if np.isfinite(search.best_s) else []
        return self.local.tournament(search, [*self._starts(search, seeds, seconds, frames), *starts])

    def _seeds(self, search: Search) -> tuple[Candidates, Ints]:
        """The relaxed plans rounded and, of most frames, in whole stages; and the frame of each."""
        rounded, frames = self.guide.rounded()
        firsts = best_of_each(search.floor.seconds(rounded), frames)[:WHOLE]
        whole, of_frame = self.guide.whole(rounded.take(firsts), frames[firsts], self.local.random)
        return join([rounded, whole]), np.concatenate([frames, of_frame])

    def _starts(self, search: Search, seeds: Candidates, seconds: Floats, frames: Ints) -> list[Place]:
        """Of each frame the best, half by what it takes and half by what it would without any waiting."""
        found = np.where(np.isfinite(seconds), (seconds + search.floor.seconds(seeds)) / 2, np.inf)
        rows = [row for row in best_of_each(found, frames)[:STARTS] if np.isfinite(seconds[row])]
        return [Place(seeds.take(np.array([row])), float(seconds[row]), int(frames[row])) for row in rows]


def best_of_each(seconds: Floats, frames: Ints) -> Ints:
    """For each frame its best row, the best frames first."""
    order = np.argsort(seconds, kind="stable")
    _, first = np.unique(frames[order], return_index=True)
    return order[np.sort(first)]
