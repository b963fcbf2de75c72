"""One training job, from rows to a published model."""
