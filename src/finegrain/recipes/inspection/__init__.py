"""What stands on the report page about single answers: pairs token by token, and scores of a reward model."""
