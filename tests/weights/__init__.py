"""Tests of the arithmetic on weights."""
