"""Score files joined and compared by `finegrain compare`."""
