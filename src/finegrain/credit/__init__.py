"""Which tokens carry the reward: signal -> segments -> allocation."""
