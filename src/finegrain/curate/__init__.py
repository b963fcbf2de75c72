"""Works on scores of given answers: columns that repair pairs, and pairs from trees of responses. Pure functions."""
