"""Answers looked at token by token."""
