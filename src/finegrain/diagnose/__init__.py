"""Verdicts on a run: displacement, length, coverage of the credit, agreement with annotators' marks."""
