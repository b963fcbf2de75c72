"""Tensor maths shared by two or more methods."""
