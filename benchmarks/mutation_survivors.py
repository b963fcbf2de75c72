"""Why some mutants survive: (files, what was written, what the mutant writes, reason)."""

SURVIVORS: list[tuple[str, str, str, str]] = []
