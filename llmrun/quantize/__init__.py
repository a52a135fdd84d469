"""Weights in fewer bits: the reference of each format, rounding to it, and the checkpoint written in it."""
