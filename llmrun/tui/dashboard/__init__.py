"""The dashboard: a pure view of the figures of a run. See ``screen.dashboard``."""
