"""Online reinforcement learning: sampled answers, their rewards, and the steps that learn from them."""
