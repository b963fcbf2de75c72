"""Reward models: losses of heads, aggregation, caps and repairs."""
