"""Syntax trees of Python text: many tests look through the whole source, and none changes a tree."""

import ast
from functools import cache

parse = cache(ast.parse)
