"""The benchmark of credit: one scorer, its uses at equal tuning, and what the labels cost."""
