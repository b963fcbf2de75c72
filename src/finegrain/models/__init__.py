"""Loading, adapters, the scoring engine and the reference."""
