"""The pieces of `finegrain demo`."""
