"""Online reinforcement learning: policy losses."""
