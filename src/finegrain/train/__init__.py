"""The training loop and what it needs: batches, optimiser, checkpoints, logs."""
