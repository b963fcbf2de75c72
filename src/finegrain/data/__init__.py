"""Rows, formats, templates, tokens: one path for every recipe."""
