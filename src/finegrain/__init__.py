"""Align language models with reward that says where an answer is good or bad, and how sure that is."""

__version__ = "0.1.0"
