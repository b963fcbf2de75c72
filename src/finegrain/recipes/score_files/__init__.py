"""Lines of `finegrain score`, and the baselines they are compared with."""
