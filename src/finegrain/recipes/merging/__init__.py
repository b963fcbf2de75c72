"""The steps of `finegrain merge`: what is checked, the search of the strength, and the card."""
