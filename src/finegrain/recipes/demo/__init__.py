"""The demo: planted pairs, a base model, every row of its table, and the summary."""
