"""Reward models: losses of heads, aggregation, bounds and repairs."""
