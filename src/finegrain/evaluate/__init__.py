"""Metrics with intervals: how good a reward model is, and how well it knows when it is wrong."""
