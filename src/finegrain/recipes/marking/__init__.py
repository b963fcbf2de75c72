"""What `finegrain mark` shows, and what comes back from it."""
