"""The planners: ant colony, greedy, even, exhaustive, linear programme, random, and the Pareto front."""
