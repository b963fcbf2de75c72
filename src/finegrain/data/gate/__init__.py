"""The data gate: what is looked for in every row before anything is trained, and what is done about it."""
