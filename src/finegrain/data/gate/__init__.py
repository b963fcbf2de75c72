"""The data gate: what is checked in every row before training, and what is done about it."""
