"""Rows, formats, templates and tokens: every recipe reads its data through the same code."""
