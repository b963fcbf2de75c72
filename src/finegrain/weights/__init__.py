"""Weight space: checkpoints of one architecture merged tensor by tensor, one method per file."""
