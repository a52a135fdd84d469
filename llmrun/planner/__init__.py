"""Where each weight lives and is computed. Pure: no I/O, no clock, no torch."""

from llmrun.planner.make import DEFAULT_PLANNER, PLANNERS, make_plan
from llmrun.planner.plan import Placement, Plan, RingSpec

__all__ = ["DEFAULT_PLANNER", "PLANNERS", "Placement", "Plan", "RingSpec", "make_plan"]
