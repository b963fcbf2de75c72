"""What a credit method may ask of a run."""
