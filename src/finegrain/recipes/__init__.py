"""Whole jobs, read top to bottom."""
