"""Metrics with intervals: how good a reward model is, and how well its uncertainty finds its mistakes."""
