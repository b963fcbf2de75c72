"""Whole jobs: one file per command, with its settings and what it does from top to bottom, and the pieces they share in rooms of their own."""
