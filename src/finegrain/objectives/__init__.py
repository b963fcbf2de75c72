"""Preference and offline losses: Pair -> (B,) or Terms."""
