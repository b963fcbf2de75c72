"""Loading models, adapters, the scoring engine and the reference."""
