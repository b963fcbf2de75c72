"""What a round of `finegrain iterate` does before and after its training: samples, rows, distance to the start, the finished folder."""
