"""Rounds: what `finegrain iterate` trains on, made anew by the model of every round; one method per file."""
