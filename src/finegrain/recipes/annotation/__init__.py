"""What a model behind a server says of answers: prompts, replies, tasks and the asking."""
