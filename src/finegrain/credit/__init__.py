"""Token credit, which decides how much each token carries of the reward: signal -> segments -> allocation."""
