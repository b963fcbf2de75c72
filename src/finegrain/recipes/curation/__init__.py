"""Rows written by `finegrain curate`."""
