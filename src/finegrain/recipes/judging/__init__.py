"""Who judges answers, and what they may ask of a run."""
