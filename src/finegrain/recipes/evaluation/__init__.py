"""Problems graded and reported by `finegrain eval`."""
