"""The reward of the speed benchmark of online RL: anything that is quick, the same on both sides."""


def reward(completions: list[str], **columns: object) -> list[float]:
    """The share of the digit 1 in an answer."""
    return [text.count("1") / max(1, len(text)) for text in completions]
