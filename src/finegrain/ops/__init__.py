"""Tensor operations shared by two or more methods."""
