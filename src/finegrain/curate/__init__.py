"""From scores of given answers: columns that repair pairs, and pairs made from trees. Pure functions."""
