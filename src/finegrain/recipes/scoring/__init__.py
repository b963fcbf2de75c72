"""Lines of `finegrain score`, and what they stand relative to."""
